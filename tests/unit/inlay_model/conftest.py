from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from inlay_model import Engine
from inlay_testkit.tiny_diffusion import save_tiny


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with random weights that knows the style `concise`."""
    return save_tiny(tmp_path_factory.mktemp("tiny-diffusion"), styles=["concise"])


@pytest.fixture(scope="session")
def engine(checkpoint_folder: Path) -> Engine:
    """An engine with the tiny checkpoint, shared by all tests: requests leave nothing behind but encoded prefixes."""
    return Engine.load(checkpoint_folder, device="cpu")


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    """An image of noise, 384 by 384."""
    return np.random.default_rng(7).integers(0, 256, (384, 384), dtype=np.uint8)
