"""Our Storage SCP against dcmtk's programs."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from inlay_dicom.dataset import read
from inlay_dicom.folder import FolderIndex
from inlay_dicom.mapping import FolderImages
from inlay_dicom.pixels import grey8
from inlay_dicom.scp import Peer, Use
from inlay_testkit.dicom import file_bytes, in_syntax, radiograph
from inlay_testkit.pacs import dcmtk, wait_for
from inlay_testkit.scp import LOOPBACK, storage

pytestmark = pytest.mark.peers

GREY = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
# storescu's option for the syntax that it proposes.
SYNTAXES = {
    ImplicitVRLittleEndian: "-xi",
    ExplicitVRBigEndian: "-xb",
    DeflatedExplicitVRLittleEndian: "-xd",
    JPEGBaseline8Bit: "-xy",
    JPEGLosslessSV1: "-xs",
    JPEGLSLossless: "-xt",
    JPEG2000Lossless: "-xv",
    RLELossless: "-xr",
}


def test_echoscu_is_answered(tmp_path: Path) -> None:
    """dcmtk's echoscu gets success from our AE title and a rejection from another."""
    with storage(tmp_path, peers=(Peer("ECHOER", LOOPBACK),)) as scp:
        assert dcmtk("echoscu", "-aet", "ECHOER", "-aec", "INLAY", "127.0.0.1", scp.port).returncode == 0
        refused = dcmtk("echoscu", "-v", "-aet", "STRANGER", "-aec", "INLAY", "127.0.0.1", scp.port)
        assert refused.returncode != 0
        assert "Calling AE Title Not Recognized" in refused.stderr + refused.stdout


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
def test_storescu_sends_every_syntax(tmp_path: Path, syntax: str) -> None:
    """What dcmtk's storescu sends in each transfer syntax can be shown afterwards, with the pixels it had."""
    eight = syntax == JPEGBaseline8Bit
    original = radiograph((GREY // 16).astype(np.uint8)) if eight else radiograph(GREY, bits_stored=12)
    path = tmp_path / "sent.dcm"
    path.write_bytes(file_bytes(in_syntax(original, syntax)))  # type: ignore[arg-type]
    with storage(tmp_path / "store") as scp:
        sent = dcmtk("storescu", "-v", SYNTAXES[syntax], "-aec", "INLAY", "127.0.0.1", scp.port, path)  # type: ignore[index]
        assert sent.returncode == 0, sent.stderr
    source = FolderImages(FolderIndex(tmp_path / "store", settle_s=0.0), rescan_s=0.0)
    (found,) = source.find("1.2.3", None)
    shown, expected = grey8(read(source.load(found))), grey8(original)
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= (3 if eight else 0)


def test_storescu_hears_that_the_store_is_full(tmp_path: Path) -> None:
    """dcmtk understands our refusal as out of resources."""
    path = tmp_path / "sent.dcm"
    path.write_bytes(file_bytes(radiograph(GREY)))
    with storage(tmp_path / "store", quota_bytes=100) as scp:
        sent = dcmtk("storescu", "-v", "-aec", "INLAY", "127.0.0.1", scp.port, path)
        assert "OutOfResources" in sent.stderr + sent.stdout
        assert scp.files == []


def test_storescu_that_aborts_leaves_nothing(tmp_path: Path) -> None:
    """An association that dcmtk aborts after its image keeps the image; the listener goes on."""
    path = tmp_path / "sent.dcm"
    path.write_bytes(file_bytes(radiograph(GREY)))
    with storage(tmp_path / "store", use=Use(associations=2)) as scp:
        for _ in range(4):
            dcmtk("storescu", "--abort", "-aec", "INLAY", "127.0.0.1", scp.port, path)
        # More were aborted than there may be: their places are free again, if not at once.
        wait_for(lambda: dcmtk("echoscu", "-aec", "INLAY", "127.0.0.1", scp.port).returncode == 0)
        assert len(scp.files) == 1
