"""The commands draft, infill and replay: files in, text or JSON out. Each takes the parsed arguments and returns 0."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay_model.errors import BadRequest
from inlay_model.loading import default_checkpoint
from inlay_model.provenance import RunRecord, request_json
from inlay_model.request import Filled, Gap, GenerationSettings, Item, Lock, PromptContext, Section, StepEvent
from inlay_model.study import read_picture, refuse_foreign

if TYPE_CHECKING:
    from inlay_model.engine import Engine

_GAP = re.compile(r"\[\.\.\.(\d+)?\]")
_LABEL = "AI draft, not verified by a clinician."
_DEMO_LABEL = "Synthetic phantom images only; not for clinical use."


def draft(arguments: argparse.Namespace) -> int:
    """Write a report about an image."""
    engine = _engine(arguments)
    images = _images(arguments, engine)
    names = [name.strip().lower() for name in arguments.sections.split(",")]
    filled = engine.draft(
        images, sections=names, settings=_settings(arguments), context=_context(arguments), on_step=_watcher(arguments)
    )
    _show(arguments, engine, filled, [Section(name, (Gap(),)) for name in names])
    return 0


def infill(arguments: argparse.Namespace) -> int:
    """Fill the gaps between locked text."""
    sections = read_request(arguments.request) if arguments.request else parse_sections(arguments.section or ())
    engine = _engine(arguments)
    images = _images(arguments, engine)
    filled = engine.infill(
        images or None,
        sections,
        settings=_settings(arguments),
        context=_context(arguments),
        on_step=_watcher(arguments),
    )
    _show(arguments, engine, filled, sections)
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """Run a recorded request again and say whether the text is the same."""
    saved = _object(arguments.record_file, "run", "sections")
    engine = _engine(arguments)
    record = RunRecord.from_json(saved["run"])
    sections = [section_from_json(section) for section in saved["sections"]]
    filled = engine.replay(record, _images(arguments, engine), sections)
    print(filled.text if not arguments.json else json.dumps(_as_json(filled)))
    print("The same text as recorded.", file=sys.stderr)
    return 0


def parse_sections(written: Sequence[str]) -> list[Section]:
    """Sections written as `name=Locked. [...] Locked too.`; `[...]` is a gap, `[...20]` one of at most 20 tokens."""
    sections = []
    for line in written:
        name, equals, text = line.partition("=")
        if not equals:
            raise BadRequest("A section is written NAME=TEXT.")
        sections.append(Section(name.strip().lower(), tuple(_items(text))))
    return sections


def read_request(file: Path) -> list[Section]:
    """Sections from a JSON file: {"sections": [{"name", "items": [{"lock": text} | {"gap": {"max_tokens"}}]}]}."""
    return [section_from_json(section) for section in _object(file, "sections")["sections"]]


def _object(file: Path, *keys: str) -> dict[str, Any]:
    """The JSON object of a file, which has these keys; raises `BadRequest` for anything else."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise BadRequest(f"{file} cannot be read as JSON ({type(problem).__name__}).") from problem
    if not isinstance(said, dict) or not said.keys() >= set(keys):
        raise BadRequest(f"{file} is no JSON object with {' and '.join(keys)}.")
    return said


def section_from_json(said: Mapping[str, Any]) -> Section:
    """One section of a request in JSON; raises `BadRequest` for an item that is neither lock nor gap."""
    items: list[Item] = []
    for item in said["items"]:
        if "lock" in item:
            items.append(Lock(str(item["lock"])))
        elif "gap" in item:
            items.append(Gap(**item["gap"]))
        else:
            raise BadRequest("An item of a section is a lock or a gap.")
    return Section(str(said["name"]), tuple(items))


def _items(text: str) -> list[Item]:
    items: list[Item] = []
    at = 0
    for gap in _GAP.finditer(text):
        if gap.start() > at:
            items.append(Lock(text[at : gap.start()]))
        items.append(Gap(max_tokens=int(gap[1]) if gap[1] else None))
        at = gap.end()
    return [*items, Lock(text[at:])] if at < len(text) else items


def _engine(arguments: argparse.Namespace) -> "Engine":
    import torch

    from inlay_model.engine import Engine
    from inlay_model.loading import load

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = arguments.model or default_checkpoint()
    return Engine(load(model, arguments.revision, arguments.device, adapter=arguments.adapter))


def _images(arguments: argparse.Namespace, engine: "Engine") -> list[Any]:
    pictures = [read_picture(path) for path in arguments.image or ()]
    refuse_foreign(pictures, demonstration=engine.is_demonstration, allowed=arguments.demo_model_on_any_study)
    return [picture.image for picture in pictures]


def _settings(arguments: argparse.Namespace) -> GenerationSettings:
    return GenerationSettings(steps=arguments.steps, seed=arguments.seed)


def _context(arguments: argparse.Namespace) -> PromptContext:
    return PromptContext(style=arguments.style)


def _watcher(arguments: argparse.Namespace) -> Callable[[StepEvent], None] | None:
    if not arguments.watch:
        return None

    def told(event: StepEvent) -> None:
        print(f"[{event.step}/{event.steps}] {event.free_left} open: {event.text}", file=sys.stderr)

    return told


def _show(arguments: argparse.Namespace, engine: "Engine", filled: Filled, sections: Sequence[Section]) -> None:
    if arguments.record:
        saved = {"sections": request_json(sections), "run": filled.run.to_json()}
        arguments.record.write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(_as_json(filled), ensure_ascii=False))
        return
    print(filled.text)
    print(f"({_LABEL}{f' {_DEMO_LABEL}' if engine.is_demonstration else ''})", file=sys.stderr)
    for note in filled.notes:
        print(f"note: {note}", file=sys.stderr)


def _as_json(filled: Filled) -> dict[str, Any]:
    sections = [
        {
            "name": section.name,
            "text": section.text,
            "pieces": [
                {"text": piece.text, "kind": piece.kind, "item": piece.item, "sha256": piece.sha256}
                for piece in section.pieces
            ],
        }
        for section in filled.sections
    ]
    return {"sections": sections, "notes": list(filled.notes), "run": filled.run.to_json()}
