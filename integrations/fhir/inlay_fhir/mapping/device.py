"""The model as a Device: one per model and adapter, named by their digests, which every run record states.

https://hl7.org/fhir/R4/device.html; type as in HL7's guide "AI Transparency on FHIR" (1.0.0-ballot, AI Device).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from inlay_core.domain.errors import NotFound
from inlay_core.domain.labels import PHANTOMS_ONLY
from inlay_fhir.elements import ARTIFICIAL_INTELLIGENCE, Json, concept, filled, reference, string
from inlay_fhir.mapping.naming import SHA256_SYSTEM

# Half of a SHA-256 names a model as surely as anybody can need, and leaves room for the adapter's in a FHIR id (64).
_HALF: Final = 31
_DEVICE_ID: Final = re.compile(r"([0-9a-f]{31})(?:\.([0-9a-f]{31}))?")

Run = Mapping[str, Any]


def device_id(run: Run) -> str | None:
    """The Device of a run record; None where the record does not say which model it was."""
    model, adapter = str(run.get("model_digest") or ""), str(run.get("adapter_digest") or "")
    full = f"{model[:_HALF]}.{adapter[:_HALF]}" if adapter else model[:_HALF]
    return full if _DEVICE_ID.fullmatch(full) else None


def digest_prefix(identity: str) -> str:
    """The beginning of the model's digest in a Device id. Raises NotFound for what is no such id."""
    parts = _DEVICE_ID.fullmatch(identity)
    if parts is None:
        raise NotFound("unknown-model", "No job used such a model.", "Device.id")
    return parts[1]


def device(identity: str, run: Run) -> Json:
    """The model of a run record as the Device `identity`. Raises NotFound when the record is of another one."""
    if device_id(run) != identity:
        raise NotFound("unknown-model", "No job used such a model.", "Device.id")
    digests = [run["model_digest"], run.get("adapter_digest")]
    versions = [string(str(run["revision"])) if run.get("revision") else None, run["model_digest"]]
    return filled(
        resourceType="Device",
        id=identity,
        identifier=[{"system": SHA256_SYSTEM, "value": digest} for digest in digests if digest],
        status="active",
        deviceName=[{"name": name(run), "type": "model-name"}],
        type_=concept(ARTIFICIAL_INTELLIGENCE, text="Diffusion language model that drafts radiology reports"),
        version=[{"value": version} for version in versions if version],
        note=[{"text": PHANTOMS_ONLY}] if run.get("demonstration") else None,
    )


def device_reference(run: Run) -> Json:
    """A Reference to the model of a run: literal where its digest is known, by name otherwise."""
    identity = device_id(run)
    return reference(
        f"Device/{identity}" if identity else None,
        type="Device",
        identifier={"system": SHA256_SYSTEM, "value": run["model_digest"]} if identity else None,
        display=name(run),
    )


def name(run: Run) -> str:
    """What the model is called; the folders of a path are nobody's business."""
    stated = string(str(run.get("model") or ""))
    return (stated or "").replace("\\", "/").rstrip("/").rpartition("/")[2] or "model"
