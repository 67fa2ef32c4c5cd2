"""SMART scopes of systems: what may be done with which type of resource.

https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html: `system/DiagnosticReport.rs`, letters in the order
c r u d s; version 1 (`.read`, `.write`, `.*`) is read as its equal. Filters after a question mark are not granted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_SCOPE: Final = re.compile(r"system/(\*|[A-Z][A-Za-z]*)\.(c?r?u?d?s?|read|write|\*)", re.ASCII)
_LETTERS: Final = "cruds"
_FIRST_VERSION: Final[Mapping[str, str]] = MappingProxyType({"read": "rs", "write": "cud", "*": _LETTERS})
# Interaction of the router -> the letter that it takes. What is not here takes none.
LETTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "read": "r",
        "vread": "r",
        "history-instance": "r",
        "history-type": "s",
        "search-type": "s",
        "create": "c",
        "delete": "d",
        "operation": "u",
    }
)


@dataclass(frozen=True, slots=True)
class Scopes:
    """Pairs of (type or `*`, letter); `unknown` are scopes that could not be read."""

    pairs: frozenset[tuple[str, str]] = frozenset()
    unknown: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def parsed(cls, text: str) -> Scopes:
        """The scopes in a text with blanks between them."""
        pairs: set[tuple[str, str]] = set()
        unknown: list[str] = []
        for word in text.split():
            found = _SCOPE.fullmatch(word)
            if found is None or not found[2]:
                unknown.append(word)
                continue
            pairs |= {(found[1], letter) for letter in _FIRST_VERSION.get(found[2], found[2])}
        return cls(frozenset(pairs), tuple(unknown))

    def granted(self, text: str) -> Scopes:
        """What of the scopes in `text` these allow; a wish for `*` gives what there is."""
        wanted = Scopes.parsed(text)
        narrowed = {pair for pair in wanted.pairs if self.allow(*pair)}
        narrowed |= {pair for pair in self.pairs if ("*", pair[1]) in wanted.pairs}
        return Scopes(frozenset(narrowed))

    def allow(self, resource: str, letter: str) -> bool:
        """Whether the letter is allowed on that type."""
        return (resource, letter) in self.pairs or ("*", letter) in self.pairs

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __str__(self) -> str:
        kinds = sorted({kind for kind, _ in self.pairs})
        letters = {kind: "".join(letter for letter in _LETTERS if (kind, letter) in self.pairs) for kind in kinds}
        return " ".join(f"system/{kind}.{letters[kind]}" for kind in kinds)
