"""Which adapter writes for whom: one for all, or by the sending site and the modality, as a TOML file says.

    [[adapter]]
    folder = "/srv/inlay/adapters/north-ct"
    site = "NORTH"
    modality = "CT"

`site` is who assigned the order's number (the facility that sends it, where the number names nobody), `modality` the
order's. What a rule leaves out fits all. The first rule that fits decides; where none does, INLAY_ADAPTER, else the
bare checkpoint.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inlay_core.application.ports import Claimed
from inlay_core.domain.errors import Invalid

SETTING: Final = "INLAY_ADAPTERS"
_KEYS: Final = {"folder", "site", "modality"}


@dataclass(frozen=True, slots=True)
class Rule:
    """An adapter's folder and whose jobs it is for; None fits all."""

    folder: str
    site: str | None = None
    modality: str | None = None

    def fits(self, site: str, modality: str | None) -> bool:
        """Whether a job of this site and modality is meant."""
        return self.site in (None, site) and self.modality in (None, modality)


@dataclass(frozen=True, slots=True)
class Choice:
    """The rules of an installation, and the adapter of whoever none of them fits."""

    rules: tuple[Rule, ...] = ()
    default: str | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """Every adapter that may be needed, each once."""
        named = [rule.folder for rule in self.rules] + ([self.default] if self.default else [])
        return tuple(dict.fromkeys(named))

    def of(self, claimed: Claimed) -> str | None:
        """The folder of the adapter for a job; None is the bare checkpoint."""
        fitting = (rule.folder for rule in self.rules if rule.fits(claimed.site, claimed.images.modality))
        return next(fitting, self.default)

    @property
    def by_job(self) -> Callable[[Claimed], str | None] | None:
        """What says which adapter a job wants; None where there is nothing to choose."""
        return self.of if self.rules else None


def read_choice(default: str, file: str) -> Choice:
    """The choice of the settings INLAY_ADAPTER and INLAY_ADAPTERS; raises Invalid naming what cannot be read."""
    return Choice(_rules(Path(file)) if file else (), default or None)


def to_load(choice: Choice) -> str | Mapping[str, str] | None:
    """What the checkpoint is loaded with: nothing, one adapter for good, or several by folder to choose from."""
    if not choice.rules:
        return choice.default
    return {folder: folder for folder in choice.folders}


def _rules(file: Path) -> tuple[Rule, ...]:
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise Invalid("bad-setting", f"The file cannot be read as TOML ({type(problem).__name__}).", SETTING) from None
    listed = said.get("adapter")
    if not isinstance(listed, list) or said.keys() != {"adapter"}:
        raise Invalid("bad-setting", "Expected [[adapter]] tables and nothing else.", SETTING)
    return tuple(_rule(table, number) for number, table in enumerate(listed, start=1))


def _rule(table: Mapping[str, Any], number: int) -> Rule:
    if not isinstance(table.get("folder"), str) or not table.keys() <= _KEYS:
        raise Invalid("bad-setting", f"[[adapter]] {number}: expected folder, and perhaps site and modality.", SETTING)
    if not all(isinstance(value, str) and value for value in table.values()):
        raise Invalid("bad-setting", f"[[adapter]] {number}: expected text.", SETTING)
    return Rule(**table)
