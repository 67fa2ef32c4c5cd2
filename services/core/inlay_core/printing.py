"""A report on paper: PDF pages made by ReportLab, the same bytes for the same content at every time.

A character that the font has no glyph for would be missing from the page without a trace. There is no page then: None
is the answer, and whoever asked falls back to the text itself.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from inlay_core.domain.errors import Invalid

if TYPE_CHECKING:
    from reportlab.platypus import Flowable

# A page that is asked for again (a search after a notification after a read) is not made again; some 20 KB each.
_KEPT: Final = 256
_PLAIN, _BOLD = "Inlay", "Inlay-Bold"


@dataclass(frozen=True, slots=True)
class Printed:
    """What stands on the page: a title, the notice, facts as (name, value), and the sections as (title, text)."""

    title: str
    notice: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[tuple[str, str], ...]

    def texts(self) -> Iterator[str]:
        """Every text that is to be seen."""
        yield from (self.title, self.notice)
        for pair in (*self.facts, *self.sections):
            yield from pair


class Printer:
    """Makes pages in one font: a TrueType file of the site's, else Bitstream Vera, which knows Latin scripts only.

    Raises Invalid for a file that is no such font.
    """

    def __init__(self, font: str = "") -> None:
        from reportlab.pdfbase import pdfmetrics
        from reportlab.pdfbase.ttfonts import TTFError, TTFont

        # A site names one file; ReportLab's own pair comes with it. Names are unique per file: fonts are global there.
        plain, bold = (font, font) if font else ("Vera.ttf", "VeraBd.ttf")
        self._names = (f"{_PLAIN}:{plain}", f"{_BOLD}:{bold}")
        try:
            faces = [TTFont(name, path) for name, path in zip(self._names, (plain, bold), strict=True)]
        except (TTFError, OSError, ValueError):
            raise Invalid("bad-setting", "The file is no TrueType font that can be read.", "INLAY_PDF_FONT") from None
        for face in faces:
            pdfmetrics.registerFont(face)
        self._glyphs = frozenset(faces[0].face.charToGlyph) & frozenset(faces[1].face.charToGlyph)
        self._made = lru_cache(_KEPT)(self._page)

    def page(self, content: Printed) -> bytes | None:
        """The PDF; None when a character of the content has no glyph."""
        return self._made(content)

    def _page(self, content: Printed) -> bytes | None:
        if any(ord(c) not in self._glyphs and c not in "\r\n\t" for text in content.texts() for c in text):
            return None
        from reportlab.lib.pagesizes import A4
        from reportlab.lib.units import mm
        from reportlab.platypus import SimpleDocTemplate

        out = io.BytesIO()
        # invariant: no time and no random id inside, so that size and hash are those of the content.
        document = SimpleDocTemplate(
            out, pagesize=A4, invariant=1, title=content.title, author="Inlay", leftMargin=22 * mm, rightMargin=22 * mm
        )
        document.build(list(self._story(content)))
        return out.getvalue()

    def _story(self, content: Printed) -> Iterator[Flowable]:
        from reportlab.lib.styles import ParagraphStyle
        from reportlab.platypus import Paragraph, Spacer

        plain, bold = self._names
        text = ParagraphStyle("text", fontName=plain, fontSize=10, leading=14, splitLongWords=1)
        head = ParagraphStyle("head", fontName=bold, fontSize=11, leading=15, spaceBefore=8, keepWithNext=1)
        top = ParagraphStyle("top", fontName=bold, fontSize=14, leading=19)
        notice = ParagraphStyle("notice", fontName=bold, fontSize=10, leading=14, borderWidth=1, borderPadding=4)
        yield Paragraph(_lines(content.title), top)
        if content.notice:
            yield Spacer(1, 8)
            yield Paragraph(_lines(content.notice), notice)
            yield Spacer(1, 8)
        for name, value in content.facts:
            yield Paragraph(f"{_lines(name)}: {_lines(value)}", text)
        for title, words in content.sections:
            yield Paragraph(_lines(title), head)
            yield Paragraph(_lines(words), text)


def _lines(text: str) -> str:
    """Text in ReportLab's small markup: escaped, line ends and runs of blanks as they are."""
    joined = escape(text).replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    return joined.replace("  ", " \u00a0").replace("\n", "<br/>")
