"""How the demonstration is told: to a person, with the canvas as it is denoised, or to a program, a line per step."""

import json
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

# What each step does, in the words of the ward.
TITLES = {
    "order": "The RIS sends an order (HL7 v2 ORM^O01 over MLLP)",
    "ack": "Inlay has stored it and acknowledges",
    "images": "The radiograph arrives in the watched folder",
    "draft": "The model drafts the report from the image",
    "fhir": "The EHR fetches the draft over FHIR",
    "lock": "The radiologist locks what is right",
    "infill": "The model writes the rest again, from both sides of the locks",
    "sign": "The radiologist signs",
    "oru": "The RIS receives the final result (HL7 v2 ORU^R01)",
    "audit": "The audit trail verifies",
}

Details = Mapping[str, Any]


class Show(Protocol):
    """Someone who tells what happens, as it happens."""

    def note(self, text: str) -> None:
        """Say something that is no step."""

    def begin(self, step: str) -> None:
        """A step begins."""

    def canvas(self, step: int, steps: int, text: str) -> None:
        """The model's canvas after a denoising step."""

    def end(self, step: str, seconds: float, details: Details, *, ok: bool) -> None:
        """A step has ended; `details` says with what."""


class JsonLines:
    """One JSON object per line and step, flushed at once; nothing else on that stream."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def note(self, text: str) -> None:
        """Programs need no notes."""

    def begin(self, step: str) -> None:
        """A line is written when the step has ended."""

    def canvas(self, step: int, steps: int, text: str) -> None:
        """The number of canvases is part of the step's details."""

    def end(self, step: str, seconds: float, details: Details, *, ok: bool) -> None:
        """Write the step's line."""
        row = {"step": step, "ok": ok, "seconds": round(seconds, 3), **details}
        self._output.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._output.flush()


class Terminal:
    """For a person: each step with its time, the canvas changing in place where the output is a terminal."""

    def __init__(self, output: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=output, highlight=False, soft_wrap=False)
        self._live: Any = None
        self._canvases = 0

    def note(self, text: str) -> None:
        """A line of its own, dimmed."""
        self._console.print(text, style="dim")

    def begin(self, step: str) -> None:
        """The step's title; its time follows when it has ended."""
        self._canvases = 0
        self._console.print(f"[bold]{TITLES[step]}[/bold]")

    def canvas(self, step: int, steps: int, text: str) -> None:
        """Redraw the canvas; without a terminal, one line per denoising step would be noise, so a few are shown."""
        from rich.live import Live
        from rich.panel import Panel
        from rich.text import Text

        self._canvases += 1
        if not self._console.is_terminal:
            if step in {1, (steps + 1) // 2, steps}:
                self._console.print(Text(f"  step {step}/{steps}: {_one_line(text)}", style="cyan"))
            return
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=20, transient=True)
            self._live.start()
        self._live.update(Panel(Text(text), title=f"denoising step {step} of {steps}", border_style="cyan"))

    def end(self, step: str, seconds: float, details: Details, *, ok: bool) -> None:  # noqa: ARG002  # Told at its begin.
        """The outcome, the time and what there is to read."""
        from rich.text import Text

        if self._live is not None:
            self._live.stop()
            self._live = None
        mark, style = ("done", "green") if ok else ("FAILED", "bold red")
        self._console.print(Text.assemble(("  " + mark, style), f" in {seconds:.2f} s"))
        for name, value in details.items():
            self._console.print(Text.assemble("  ", (f"{name}: ", "dim"), _readable(value)))
        self._console.print()


def _readable(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "".join(f"\n    {name.capitalize()}: {text}" for name, text in value.items())
    if isinstance(value, (list, tuple)):
        return "".join(f"\n    - {item}" for item in value)
    return json.dumps(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())
