from pathlib import Path

import matplotlib as mpl
import pytest

from inlay_core.domain.errors import Invalid
from inlay_core.printing import Printed, Printer

PAGE = Printed(
    "Radiology report", "AI draft", (("Patient", "Müller"),), (("Findings", "Clear & <b>normal</b>.\n\tEnd."),)
)
DEJAVU = str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def test_the_same_content_is_the_same_bytes() -> None:
    """A PDF carries no time and no random id, so that size and hash in a resource hold for ever."""
    page = Printer().page(PAGE)
    assert page is not None
    assert page.startswith(b"%PDF-")
    assert page == Printer().page(PAGE)


def test_a_character_without_a_glyph_makes_no_page() -> None:
    """A word that the font cannot show would be missing unseen: there is no page then, but with a font that can."""
    greek = Printed("Report", "", (), (("Findings", "α and β"),))
    assert Printer().page(greek) is None
    assert Printer(DEJAVU).page(greek) is not None


def test_a_font_is_a_truetype_file(tmp_path: Path) -> None:
    """Anything else is refused when the process starts, not at the first report."""
    wrong = tmp_path / "font.ttf"
    wrong.write_bytes(b"no font")
    for path in (wrong, tmp_path / "missing.ttf"):
        with pytest.raises(Invalid) as refused:
            Printer(str(path))
        assert refused.value.place == "INLAY_PDF_FONT"
