"""Which layers go where: planned from sizes and free memory, before anything is read."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from inlay_model import Engine
from inlay_model.accelerator import loader, memory
from inlay_model.accelerator.devices import Sizes, planned, sizes_of
from inlay_model.accelerator.memory import GIB, OVERHEAD, copied_bytes, free_bytes, need_of
from inlay_model.accelerator.random_weights import diffusion_config
from inlay_model.errors import NotEnoughMemory

SIZES = st.builds(Sizes, st.lists(st.integers(1, 9), min_size=1, max_size=30).map(tuple), st.integers(0, 20))


@given(SIZES, st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_no_device_holds_more_than_it_has(sizes: Sizes, free: list[int]) -> None:
    """Layers stand in runs, in order, and within what is free; where it is refused, not even filling in order fits."""
    try:
        places = planned(sizes, free, overhead=0)
    except NotEnoughMemory:
        assert not _fits(sizes, free)
        return
    assert len(places) == len(sizes.layers)
    assert all(b - a >= 0 for a, b in itertools.pairwise(places))
    for device, room in enumerate(free):
        held = sum(size for size, place in zip(sizes.layers, places, strict=True) if place == device)
        assert held + (sizes.home if device == 0 else 0) <= room


def _fits(sizes: Sizes, free: list[int]) -> bool:
    left, at = free[0] - sizes.home, 0
    if left < 0:
        return False
    for layer in sizes.layers:
        while left < layer:
            at += 1
            if at == len(free):
                return False
            left = free[at]
        left -= layer
    return True


def test_equal_devices_are_filled_equally() -> None:
    """The 26B model over two cards of 80 GiB: each holds about half of it, the first one less of the layers."""
    sizes = sizes_of(diffusion_config())
    places = planned(sizes, [80 * GIB, 80 * GIB])
    held = [sum(size for size, at in zip(sizes.layers, places, strict=True) if at == device) for device in (0, 1)]
    assert abs(held[0] + sizes.home - held[1]) < 2 * max(sizes.layers)
    assert places.count(0) < places.count(1)


def test_a_small_card_takes_few_layers() -> None:
    """Cards of 24 and 48 GiB: the 26B model fits, and the smaller one is not filled first."""
    places = planned(sizes_of(diffusion_config()), [24 * GIB, 48 * GIB])
    assert set(places) == {0, 1}
    assert places.count(0) < 15


def test_the_sizes_add_up_to_the_need() -> None:
    """Layers and all else are what the model needs on one device, without what is left to libraries."""
    assert sizes_of(diffusion_config()).total == need_of(diffusion_config()).total - OVERHEAD


def test_too_little_on_all_devices_says_what_each_has() -> None:
    """Two cards of 24 GiB: refused with what is needed, what is free on each, and the remedy."""
    with pytest.raises(
        NotEnoughMemory, match=r"needs 51\.\d GiB of GPU memory; 48\.0 GiB are free on 2 devices \(24\.0, 24\.0\)"
    ):
        planned(sizes_of(diffusion_config()), [24 * GIB, 24 * GIB])
    # Enough altogether, but the first one cannot even hold what is no layer.
    with pytest.raises(NotEnoughMemory, match=r"several of them \(device auto\)"):
        planned(sizes_of(diffusion_config()), [2 * GIB, 80 * GIB])


def test_too_little_main_memory_is_said_before_loading(
    checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that main memory cannot hold is refused before its weights are read, instead of being killed."""
    monkeypatch.setattr(loader, "free_bytes", lambda _: 1000)
    with pytest.raises(NotEnoughMemory, match=r"needs 0\.0 GiB of main memory; 0\.0 GiB are free"):
        Engine.load(checkpoint_folder, device="cpu")


def test_what_is_converted_on_its_way_to_a_gpu_must_fit_main_memory(
    checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in float32 are converted for a GPU and refused before that; as they are stored they are mapped."""
    files = [checkpoint_folder / "model.safetensors"]
    stored = sum(weight.numel() for weight in load_file(files[0]).values())
    assert copied_bytes(files, torch.bfloat16) == 2 * stored
    assert copied_bytes(files, torch.float32) == 0
    monkeypatch.setattr(loader, "free_bytes", lambda _: 80 * GIB)
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    gpu = torch.device("cuda")
    wanted = r"of main memory while its weights are read; .* \(a container's limit counts\).* stored in bfloat16"
    with (
        pytest.raises(NotEnoughMemory, match=wanted),
        loader.place(checkpoint_folder, files, gpu, torch.bfloat16, "bf16", spread=False, accelerate=False),
    ):
        pass
    with loader.place(checkpoint_folder, files, gpu, torch.float32, "bf16", spread=False, accelerate=False):
        pass


def test_what_a_container_has_used_of_its_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 MB 4 are used, 1 of them by files that Linux would let go of; without a limit the machine's counts."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    machine = free_bytes(memory.MAIN)
    assert machine > 10_000_000
    stat = "anon 3000000\nfile 1500000\ninactive_file 600000\nactive_file 400000\n"
    for name, text in {"memory.max": "10000000\n", "memory.current": "4000000\n", "memory.stat": stat}.items():
        (tmp_path / name).write_text(text)
    assert free_bytes(memory.MAIN) == 7_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(memory.MAIN) > 10_000_000
