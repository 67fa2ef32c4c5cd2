"""The human-readable part of a resource: XHTML that carries text and nothing else.

https://hl7.org/fhir/R4/narrative.html: only static elements; here every word is escaped, so no text can bring its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from inlay_fhir.elements import Json, writable

_NEWLINE: Final = re.compile(r"\r\n|\r|\n")


def narrative(notice: str, sections: Iterable[tuple[str, str]]) -> Json:
    """A Narrative of the notice, in bold above everything, and titled texts. Line breaks of the text are kept."""
    parts = [f"<p><b>{escaped(notice)}</b></p>"] if notice else []
    for title, text in sections:
        parts.append(f"<h3>{escaped(title)}</h3><p>{escaped(text)}</p>")
    body = "".join(parts) or "<p>No text yet.</p>"
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{body}</div>'}


def escaped(text: str) -> str:
    """`text` as XHTML: markup characters become entities, line breaks <br/>, unwritable characters U+FFFD."""
    plain = writable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return _NEWLINE.sub("<br/>", plain)
