"""Phantom anatomy to pixels, a batch at a time, with tensor arithmetic alone.

The painter's algorithm over soft-edged masks: each structure pulls the image towards its own brightness where
its mask is one. The same code draws single images on a CPU and thousands a second on an accelerator while a
model trains.

Shape suffixes: B batch, H height, W width.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from inlay_model.phantom.anatomy import Anatomy, draw_anatomy
from inlay_model.phantom.findings import Findings, IntArray, draw_findings

SIZE = 384
"""Side of a phantom image in pixels; a pixel is 400 mm / SIZE wide."""

_DRAWING = threading.Lock()

_SOFT = 1.5 * 2 / SIZE  # edge width of a mask: one and a half pixels, so that edges are anti-aliased
_RIBS = 8
_NOISE_CELLS = {"fine vessels": 48, "vessels": 24, "oedema": 40, "consolidation": 32}
"""Smooth noise fields and their number of bumps along a side."""

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Phantom:
    """One phantom: its findings and its image, uint8 of shape (SIZE, SIZE), bright where X-rays are absorbed."""

    seed: int
    findings: Findings
    image: npt.NDArray[np.uint8]


def phantom(seed: int, findings: Findings | None = None) -> Phantom:
    """The phantom of a seed, with findings drawn from the seed unless they are given."""
    rng = np.random.default_rng(seed)
    indices = draw_findings(1, rng) if findings is None else findings.indices()[None]
    with _one_thread():
        image = render(draw_anatomy(indices, rng), torch.Generator().manual_seed(seed))[0]
    return Phantom(seed, Findings.from_indices(indices[0]), image.numpy())


@contextmanager
def _one_thread() -> Iterator[None]:
    """One image is hundreds of small operations: 0.1 s by one thread, 1 s by 64 of them on two cores.

    The number belongs to the process, so images are drawn one after the other.
    """
    with _DRAWING:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def phantoms(indices: IntArray, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
    """Images of findings, shape (B, slots), as uint8 of shape (B, SIZE, SIZE) on the generator's device."""
    return render(draw_anatomy(indices, rng), generator)


def render(anatomy: Anatomy, generator: torch.Generator) -> Tensor:
    """Draw a batch of phantoms: uint8, shape (B, SIZE, SIZE), on the device of `generator`."""
    return paint(*ingredients(anatomy, generator))


def ingredients(anatomy: Anatomy, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The numbers of a batch as tensors (B, 1, 1), and all noise that its images need."""
    device, batch = generator.device, len(anatomy["gain"])

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, device=device)

    numbers = {name: torch.from_numpy(values).to(device)[:, None, None] for name, values in anatomy.items()}
    noise = {name: normal(1, cells, cells) for name, cells in _NOISE_CELLS.items()}
    return numbers, noise | {"grain": normal(SIZE, SIZE)}


def paint(numbers: dict[str, Tensor], noise: dict[str, Tensor]) -> Tensor:
    """Paint a batch, uint8 of shape (B, SIZE, SIZE). Pure, so that it can be compiled."""
    scene = _Scene(numbers, noise)
    scene.trunk()
    scene.lungs()
    scene.lung_findings()
    scene.fluid_and_air()
    scene.mediastinum()
    scene.bones()
    scene.devices()
    return scene.exposed()


def _inside(distance: Tensor) -> Tensor:
    """Soft mask of a signed distance: one where it is positive, anti-aliased at zero."""
    return torch.sigmoid(distance / (_SOFT / 2))


class _Scene:
    """The image under the brush, the numbers that place its parts, and its noise."""

    def __init__(self, numbers: dict[str, Tensor], noise: dict[str, Tensor]) -> None:
        self._numbers, self._noises = numbers, noise
        device = noise["grain"].device
        centres = (torch.arange(SIZE, device=device, dtype=torch.float32) + 0.5) / SIZE * 2 - 1
        grid_y, grid_x = centres[None, :, None], centres[None, None, :]
        angle, scale = self["rotation"], self["scale"]
        x, y = grid_x - self["shift x"], grid_y - self["shift y"]
        self.x = (x * torch.cos(angle) + y * torch.sin(angle)) / scale
        self.y = (y * torch.cos(angle) - x * torch.sin(angle)) / scale
        # The spine's course bends sideways in scoliosis; what hangs on the spine follows it in part.
        self.spine = self["spine bend"] * torch.cos((self.y - 0.05) * 2.4).clamp(min=-0.2)
        self.image = torch.full_like(self.x, 0.03)
        self.right, self.left = self._lung(-1), self._lung(1)

    def __getitem__(self, name: str) -> Tensor:
        return self._numbers[name]

    def _toward(self, mask: Tensor, brightness: float | Tensor) -> None:
        self.image = self.image + mask * (brightness - self.image)

    def _add(self, mask: Tensor, brightness: float | Tensor) -> None:
        self.image = self.image + mask * brightness

    def _noise(self, name: str) -> Tensor:
        """Smooth noise of about unit variance, shape (B, H, W)."""
        size = (SIZE, SIZE)
        return torch.nn.functional.interpolate(self._noises[name], size=size, mode="bicubic", align_corners=False)[:, 0]

    def _lung(self, side: int) -> Tensor:
        """Soft mask of one lung field; side -1 is the patient's right."""
        dome = self["right dome"] if side < 0 else self["left dome"]
        across = (self.x * side - self["lung centre"]) / self["lung width"]
        # The chest wall narrows towards the apex.
        taper = 1 - 0.34 * ((-self.y - 0.05).clamp(min=0) / 0.75) ** 2
        wall = 1 - (across / taper).abs() ** 3.0 - ((self.y + 0.10).abs() / 0.68).clamp(max=1.5) ** 4
        diaphragm = dome + 0.16 * (across * 0.9) ** 2 - self.y
        return _inside(wall * 0.16) * _inside(diaphragm)

    def trunk(self) -> None:
        """Soft tissue of chest, shoulders and abdomen."""
        chest = 1 - (self.x.abs() / 0.86) ** 5 - ((self.y - 0.35) / 1.25).abs() ** 6
        neck = 1 - (self.x / 0.26) ** 4
        shoulders = self.y + 0.82 - 0.22 * self.x**2
        self._toward(_inside(chest * 0.2), 0.46)
        self._toward(_inside(shoulders * 0.5) * _inside(0.97 - self.x.abs()), 0.42)
        self._toward(_inside(neck * 0.15), 0.45)
        self._toward(torch.sigmoid((self.y - 0.68) / 0.05) * _inside(chest * 0.2), 0.57)

    def lungs(self) -> None:
        """Aerated lung with its vessels, denser towards the hila."""
        both = torch.maximum(self.right, self.left)
        self._toward(both, 0.15)
        hilum = torch.exp(-(((self.x.abs() - 0.17) / 0.15) ** 2) - ((self.y + 0.02) / 0.20) ** 2)
        self._add(both * hilum, 0.16)
        vessels = self._noise("fine vessels") * 0.5 + self._noise("vessels") * 0.5
        self._add(both * (0.35 + hilum) * vessels, 0.035 * self["texture"])

    def lung_findings(self) -> None:
        """Oedema, consolidation and nodule."""
        both = torch.maximum(self.right, self.left)
        wings = torch.exp(-(((self.x.abs() - 0.34) / 0.17) ** 2) - ((self.y - 0.02) / 0.30) ** 2)
        self._add(both * wings * (1 + 0.35 * self._noise("oedema")), self["oedema"])
        size = self["consolidation size"].clamp(min=1e-3)
        dx, dy = self.x - self["consolidation x"], self.y - self["consolidation y"]
        patch = torch.exp(-(((dx / size) ** 2 + (dy / (0.85 * size)) ** 2) ** 1.6))
        self._toward(both * patch * (self["consolidation size"] > 0), 0.56 + 0.05 * self._noise("consolidation"))
        away = torch.sqrt((self.x - self["nodule x"]) ** 2 + (self.y - self["nodule y"]) ** 2)
        self._toward(_inside(self["nodule radius"] - away) * (self["nodule radius"] > 0) * 0.92, 0.62)

    def mediastinum(self) -> None:
        """Heart, great vessels, trachea."""
        half = self["heart half width"]
        dx, dy = self.x - 0.34 * half + 0.01, self.y - 0.27
        tilt_x, tilt_y = 0.94 * dx + 0.34 * dy, 0.94 * dy - 0.34 * dx
        heart = 1 - torch.sqrt((tilt_x / half) ** 2 + (tilt_y / (0.20 + 0.28 * half)) ** 2)
        diaphragm = _inside(0.62 - self.y)
        # Brighter than fluid, so that its size can be read inside an effusion.
        self._toward(_inside(heart * half) * diaphragm, 0.72)
        centre = self.x - 0.6 * self.spine
        knob = 0.05 - torch.sqrt((centre - 0.10) ** 2 + (self.y + 0.36) ** 2) * 0.6
        self._toward(_inside(0.115 - centre.abs()) * _inside(self.y + 0.95), 0.55)
        self._toward(_inside(knob), 0.60)
        self._toward(_inside(0.035 - centre.abs()) * _inside(-0.22 - self.y) * _inside(self.y + 0.98), 0.38)

    def fluid_and_air(self) -> None:
        """Pleural effusions with their meniscus, pneumothorax with its pleural line."""
        for side, field in ((-1, self.right), (1, self.left)):
            top = self["right fluid top" if side < 0 else "left fluid top"]
            across = self.x * side - self["lung centre"]
            meniscus = 0.30 * across.clamp(min=-0.1) + 0.05
            self._toward(field * _inside(self.y - top + meniscus), 0.63)
            depth = self["pneumothorax depth"]
            present = (self["pneumothorax side"] == side) & (depth > 0)
            rim = self._rim(side)
            depth = depth * ((0.30 - self.y) / 0.45).clamp(0, 1) ** 0.5
            air = field * _inside(depth - rim) * present
            line = field * _inside(0.008 - (rim - depth).abs()) * _inside(0.25 - self.y) * present
            self._toward(air, 0.05)
            self._toward(line * 0.9, 0.52)

    def _rim(self, side: int) -> Tensor:
        """Rough distance from the chest wall and the apex, zero at the wall."""
        across = (self.x * side - self["lung centre"]) / self["lung width"]
        taper = 1 - 0.34 * ((-self.y - 0.05).clamp(min=0) / 0.75) ** 2
        lateral = (taper - across) * self["lung width"]
        apical = (self.y + 0.76) * 0.8
        # A smooth minimum rounds the corner between the two.
        return (lateral.clamp(min=1e-2) ** -3 + apical.clamp(min=1e-2) ** -3) ** (-1 / 3)

    def bones(self) -> None:
        """Spine, ribs, clavicles and rib fractures."""
        vertebrae = 0.75 + 0.25 * torch.cos(self.y * 2 * torch.pi / 0.13)
        self._add(_inside(0.075 - (self.x - self.spine).abs()) * vertebrae, 0.13)
        self._toward(_inside(0.010 - (self.x - self.spine).abs()) * 0.35, 0.9)
        for rib in range(_RIBS):
            self._rib(rib)
        for side in (-1, 1):
            along = self.x * side
            course = self.y + 0.70 + 0.10 * (along - 0.30) - 0.05 * torch.sin(along * 7)
            self._add(_inside(0.022 - course.abs()) * _inside(along - 0.07) * _inside(0.72 - along), 0.13)

    def _rib(self, rib: int) -> None:
        along = self.x.abs()
        course = -0.62 + rib * self["rib pitch"] + self["rib slope"] * (along - 0.1) + 0.55 * (along - 0.35) ** 2
        broken = (self["fracture rib"] == rib) & (self["fracture side"] != 0)
        same_side = self.x * self["fracture side"] > 0
        beyond = along - self["fracture x"]
        displaced = broken & same_side
        # A broken rib drops by more than its own width beyond the fracture and leaves a gap there.
        course = course + torch.where(displaced, 0.048 * _inside(beyond), torch.zeros_like(course))
        width = 0.016 - (self.y - course).abs()
        span = _inside(along - 0.09) * _inside(0.71 - along)
        self._add(_inside(width) * span * torch.where(displaced, _inside(beyond.abs() - 0.010), 1.0), 0.085)
        callus = 0.036 - torch.sqrt(beyond**2 + (self.y - course) ** 2)
        self._add(_inside(callus) * displaced * _inside(width + 0.030), 0.16)

    def devices(self) -> None:
        """Pacemaker with its lead, tracheal tube, central line."""
        side = self["pacemaker side"]
        present = side != 0
        dx, dy = self.x - side * self["pacemaker x"], self.y - self["pacemaker y"]
        box = torch.minimum(0.070 - dx.abs(), 0.055 - dy.abs())
        self._toward(_inside(box) * present, 0.97)
        fraction = ((self.y - self["pacemaker y"]) / (0.32 - self["pacemaker y"])).clamp(0, 1)
        course = side * self["pacemaker x"] * (1 - fraction) ** 2 + 0.12 * fraction
        lead = _inside(0.007 - (self.x - course).abs() * 0.8) * _inside(0.32 - self.y)
        self._toward(lead * _inside(self.y - self["pacemaker y"]) * present * 0.85, 0.95)
        tip = self["tube tip"]
        # Below the carina the tube runs into the right main bronchus.
        centre = self.x - 0.6 * self.spine + 0.55 * (self.y + 0.24).clamp(min=0)
        walls = _inside(0.006 - (centre.abs() - 0.022).abs()) * _inside(tip - self.y)
        self._toward(walls * 0.9, 0.92)
        line = self["line side"]
        down = ((self.y + 1.0) / (self["line tip"] + 1.0)).clamp(0, 1)
        path = line * 0.24 * (1 - down) ** 1.5 - 0.075
        catheter = _inside(0.0065 - (self.x - path).abs() * 0.9) * _inside(self["line tip"] - self.y)
        self._toward(catheter * (line != 0) * 0.9, 0.90)

    def exposed(self) -> Tensor:
        """The finished exposure with its noise, uint8."""
        exposed = self.image * self["gain"] + self["offset"] + self._noises["grain"] * self["noise"]
        return (exposed.clamp(0, 1) * 255).round().to(torch.uint8)
