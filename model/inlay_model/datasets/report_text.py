"""The sections of a free-text report, by the headings that stand in capitals at the beginning of a line. Pure."""

import re

# MIMIC-CXR writes `FINDINGS:` or `FINDINGS AND IMPRESSION:`; times and ratios have digits before their colon.
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /&(),-]{2,60}):", re.MULTILINE)
# Headings that mean the same to a reader.
_SAME = {"conclusion": "impression", "conclusions": "impression", "summary": "impression", "finding": "findings"}


def sections_of(text: str) -> dict[str, str]:
    """Section texts by lower-case name, in the report's order, white space made single blanks; empty ones are left out.

    Text before the first heading belongs to none. Of a heading that stands twice the texts are joined.
    """
    found: dict[str, str] = {}
    headings = list(_HEADING.finditer(text))
    for number, heading in enumerate(headings):
        end = headings[number + 1].start() if number + 1 < len(headings) else len(text)
        name = " ".join(heading[1].lower().split())
        body = " ".join(text[heading.end() : end].split())
        if body:
            name = _SAME.get(name, name)
            found[name] = f"{found[name]} {body}" if name in found else body
    return found
