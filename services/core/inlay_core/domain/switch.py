"""What a switch stops: all generation, or the part of it that has this intended use, site, modality and model.

A switch is named by what it covers, so that there is one for each scope and its name says all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, urlencode

from inlay_core.domain.errors import Invalid
from inlay_core.domain.job import JobKind
from inlay_core.domain.order import Order
from inlay_core.domain.text import refuse_unstorable

GENERATION: Final = "generation"
"""The name of the switch that stops all generation; the others' names begin with it."""

# Names are keys of a table and stand in the trail.
LONGEST_VALUE: Final = 120
LONGEST_NAME: Final = 512
_PARTS: Final = ("use", "site", "modality", "model")


@dataclass(frozen=True, slots=True)
class Writer:
    """The model that a worker writes with: its name and its digest."""

    name: str = ""
    digest: str = ""

    def is_called(self, model: str) -> bool:
        """Whether a switch that names `model` means this one."""
        return model in (self.name, self.digest)


UNKNOWN: Final = Writer()
"""Nobody knows yet which model will write."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is covered; None does not restrict. `use` is the intended use: drafts from images, or infill of text."""

    use: JobKind | None = None
    # Who assigned the order's numbers (MSH-4), as filters of results mean it.
    site: str | None = None
    modality: str | None = None
    # A model's name or digest, as run records state it.
    model: str | None = None

    def __post_init__(self) -> None:
        for part in _PARTS[1:]:
            value = getattr(self, part)
            if value is not None:
                _check(value, part)
        if len(self.name) > LONGEST_NAME:
            raise Invalid("bad-scope", "The scope is too long.", "switch.name")

    @property
    def name(self) -> str:
        """The switch's name: `generation`, or `generation?use=draft&site=NORTH`."""
        given = [(part, str(getattr(self, part))) for part in _PARTS if getattr(self, part) is not None]
        return f"{GENERATION}?{urlencode(given)}" if given else GENERATION

    @classmethod
    def named(cls, name: str) -> Scope:
        """The scope of a stored switch. Raises Invalid for what is no switch's name."""
        head, _, rest = name.partition("?")
        given = dict(parse_qsl(rest, keep_blank_values=True))
        if head != GENERATION or not given.keys() <= set(_PARTS):
            raise Invalid("unknown-switch", "No switch has such a name.", "switch.name")
        return cls.of(**given)

    @classmethod
    def of(
        cls, use: str | None = None, site: str | None = None, modality: str | None = None, model: str | None = None
    ) -> Scope:
        """The scope of texts that came from outside. Raises Invalid, naming the part."""
        kinds = {str(kind): kind for kind in JobKind}
        if use is not None and use not in kinds:
            raise Invalid("unknown-use", f"An intended use is one of {', '.join(kinds)}.", "use")
        return cls(kinds[use] if use is not None else None, site, modality, model)

    def covers(self, kind: JobKind, order: Order, writer: Writer = UNKNOWN) -> bool:
        """Whether this generation is meant. A scope that names a model covers nothing while the model is unknown."""
        return (
            self.use in (None, kind)
            and (self.site is None or self.site in (order.assigner, order.accession_assigner))
            and self.modality in (None, order.modality)
            and (self.model is None or writer.is_called(self.model))
        )


EVERYTHING: Final = Scope()
"""What the kill switch covers."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be generated now: the intended uses that the settings leave on, less what switches stop."""

    kinds: frozenset[JobKind]
    stops: tuple[Scope, ...] = ()

    def allows(self, kind: JobKind, order: Order, writer: Writer = UNKNOWN) -> bool:
        """Whether generation of this kind may run for this order."""
        return kind in self.kinds and not any(stop.covers(kind, order, writer) for stop in self.stops)

    def for_writer(self, writer: Writer) -> Allowance:
        """The same for a worker: its stops name no model; what is stopped for all sites and modalities has no kind."""
        mine = [stop for stop in self.stops if stop.model is None or writer.is_called(stop.model)]
        stops = [replace(stop, model=None) for stop in mine]
        blanket = [stop for stop in stops if stop.site is None and stop.modality is None]
        kinds = frozenset(kind for kind in self.kinds if all(stop.use not in (None, kind) for stop in blanket))
        return Allowance(kinds, tuple(stop for stop in stops if stop not in blanket))


def _check(value: str, part: str) -> None:
    refuse_unstorable(value, part)
    if not value.strip() or len(value) > LONGEST_VALUE:
        raise Invalid("bad-scope", f"Expected a text of 1 to {LONGEST_VALUE} characters.", part)
