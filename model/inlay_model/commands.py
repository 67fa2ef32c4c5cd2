"""The commands draft, infill and replay: files in, text or JSON out. Each takes the parsed arguments and returns 0.

What is asked is read and checked before a checkpoint is loaded.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from inlay_model.answer import draft_request
from inlay_model.asked import parse_sections, read_earlier, read_record, read_request
from inlay_model.errors import BadRequest
from inlay_model.loading import default_checkpoint
from inlay_model.printed import as_json, as_record, remarks
from inlay_model.request import Filled, Gap, GenerationSettings, PromptContext, Section, StepEvent, check_sections
from inlay_model.study import read_picture, refuse_foreign

if TYPE_CHECKING:
    from inlay_model.engine import Engine


def draft(arguments: argparse.Namespace) -> int:
    """Write a report about an image."""
    names = [name.strip().lower() for name in arguments.sections.split(",")]
    asked = draft_request(names, arguments.begin)
    check_sections(asked)
    if not arguments.image:
        raise BadRequest("A draft needs an image: --image FILE. Without one, infill writes from locked text alone.")
    settings = GenerationSettings(steps=arguments.steps, seed=arguments.seed, canvases=arguments.canvases)
    engine, images = _engine(arguments)
    filled = engine.draft(
        images,
        sections=names,
        begin=arguments.begin,
        settings=settings,
        context=PromptContext(style=arguments.style),
        on_step=_watcher(arguments),
    )
    _show(arguments, engine, filled, asked)
    return 0


def infill(arguments: argparse.Namespace) -> int:
    """Fill the gaps between locked text."""
    sections = _asked(arguments)
    settings = GenerationSettings(
        steps=arguments.steps,
        seed=arguments.seed,
        alternatives=arguments.alternatives,
        warm_start=arguments.warm_start,
        confidence=arguments.confidence,
    )
    engine, images = _engine(arguments)
    filled = engine.infill(
        images or None,
        sections,
        settings=settings,
        context=PromptContext(style=arguments.style, rewrite=arguments.rewrite),
        on_step=_watcher(arguments),
    )
    _show(arguments, engine, filled, sections)
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """Run a recorded request again and say whether the text is the same."""
    record, sections = read_record(arguments.record_file)
    engine, images = _engine(arguments)
    filled = engine.replay(record, images, sections)
    _print(arguments, engine, filled, confidence=False)
    print("The same text as recorded.", file=sys.stderr)
    return 0


def _asked(arguments: argparse.Namespace) -> list[Section]:
    """The sections of an infill, whichever way they are given."""
    if arguments.request:
        sections = read_request(arguments.request)
    elif arguments.earlier:
        sections = read_earlier(arguments.earlier)
    else:
        sections = parse_sections(arguments.section)
    check_sections(sections)
    if arguments.rewrite and not arguments.style:
        raise BadRequest("--rewrite needs the style to write in: --style NAME.")
    gaps = [item for section in sections for item in section.items if isinstance(item, Gap)]
    if (arguments.warm_start or arguments.rewrite) and not any(gap.replaces for gap in gaps):
        option = "--rewrite" if arguments.rewrite else "--warm-start"
        raise BadRequest(
            f"{option} begins from the text that gaps replace, and none says what it replaces: write [...|replaced "
            "text], give replaces in --request, or name the record of an earlier run (--earlier)."
        )
    return sections


def _engine(arguments: argparse.Namespace) -> tuple["Engine", list[Any]]:
    """The engine and its images: files that cannot be read are named before a checkpoint is loaded."""
    pictures = [read_picture(path) for path in arguments.image or ()]
    import torch

    from inlay_model.engine import Engine
    from inlay_model.loading import load

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    checkpoint = load(
        arguments.model or default_checkpoint(),
        arguments.revision,
        arguments.device,
        adapter=arguments.adapter,
        precision=arguments.precision,
        accelerate=arguments.accelerate,
    )
    engine = Engine(checkpoint)
    refuse_foreign(pictures, demonstration=engine.is_demonstration, allowed=arguments.demo_model_on_any_study)
    return engine, [picture.image for picture in pictures]


def _watcher(arguments: argparse.Namespace) -> Callable[[StepEvent], None] | None:
    if not arguments.watch:
        return None

    def told(event: StepEvent) -> None:
        print(f"[{event.step}/{event.steps}] {event.free_left} open: {event.text}", file=sys.stderr)

    return told


def _show(arguments: argparse.Namespace, engine: "Engine", filled: Filled, asked: Sequence[Section]) -> None:
    if arguments.record:
        saved = json.dumps(as_record(filled, asked), indent=2, ensure_ascii=False)
        arguments.record.write_text(saved + "\n", encoding="utf-8")
    _print(arguments, engine, filled, confidence=getattr(arguments, "confidence", False))


def _print(arguments: argparse.Namespace, engine: "Engine", filled: Filled, *, confidence: bool) -> None:
    if arguments.json:
        print(json.dumps(as_json(filled), ensure_ascii=False))
        return
    print(filled.text)
    for line in remarks(filled, demonstration=engine.is_demonstration, confidence=confidence):
        print(line, file=sys.stderr)
