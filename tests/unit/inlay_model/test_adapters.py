"""Adapters on tied weights: trained, saved, added, merged and read again, the model must stay the same one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inlay_model import Engine, GenerationSettings, ReplayMismatch
from inlay_model.accelerator.attached import attached as accelerated
from inlay_model.adapters import CONFIG, WEIGHTS, Added, digest_of_adapter, is_tied_alike, read_adapter
from inlay_model.errors import AdapterProblem
from inlay_model.loading import Checkpoint, load
from inlay_model.merge import merge
from inlay_model.prefix import Decoder, encode
from inlay_model.training import lora
from inlay_model.training.recipe import Lora
from inlay_testkit.tiny_training import save_tiny_checkpoint

LORA = Lora(rank=4, alpha=8)
KINDS = ("diffusion", "autoregressive")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of random weights of either kind."""
    return {kind: save_tiny_checkpoint(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def logits(model: Any) -> torch.Tensor:
    """Logits after a prompt and a text: through encoder and decoder, or through the sibling."""
    ids = torch.arange(20, 41)
    with torch.inference_mode():
        if not hasattr(model, "final_logit_softcapping"):
            return model(input_ids=ids[None], use_cache=False).logits[0]  # type: ignore[no-any-return]
        prefix = encode(model, tuple(ids[:11].tolist()), (0,) * 11, None)
        return model(past_key_values=prefix.cache, decoder_input_ids=ids[None, 11:]).logits[0]  # type: ignore[no-any-return]


def attached(base: Path, kind: str, seed: int = 1) -> tuple[Checkpoint, Any]:
    """A base with an adapter in it that has learnt something (random numbers)."""
    checkpoint = load(base, device="cpu", kind=kind)
    parameters = lora.attach(checkpoint.model, LORA, seed, checkpoint.about.name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return checkpoint, checkpoint.model


def saved(base: Path, kind: str, folder: Path, seed: int = 1) -> tuple[Path, torch.Tensor]:
    """The folder of an adapter, and the logits that the model had with it."""
    checkpoint, model = attached(base, kind, seed)
    expected = logits(model)
    lora.save_adapter(model, checkpoint, {}, folder)
    return folder, expected


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_on_added_merged_and_reloaded_are_one_model(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """The same logits with PEFT's layers, with the change added while loading, and from the merged checkpoint."""
    adapter, expected = saved(bases[kind], kind, tmp_path / "adapter")
    bare = logits(load(bases[kind], device="cpu", kind=kind).model)
    effect = (expected - bare).abs().max()
    assert effect > 0.5
    added = load(bases[kind], device="cpu", kind=kind, adapter=adapter)
    merge(bases[kind], adapter, tmp_path / "merged")
    merged = load(tmp_path / "merged", device="cpu", kind=kind)
    for model in (added.model, merged.model):
        assert (logits(model) - expected).abs().max() < 1e-4 * effect
    assert added.adapter_digest == digest_of_adapter(adapter)
    assert merged.adapter_digest is None
    assert json.loads((tmp_path / "merged" / "inlay.json").read_text())["merged"] == {
        "base_digest": added.digest,
        "adapter_digest": added.adapter_digest,
    }


def test_pefts_own_merge_is_the_trap_that_ours_avoids(bases: dict[str, Path]) -> None:
    """PEFT adds the change of a shared weight twice: far from the model, so the test above would notice."""
    from peft.tuners.lora import LoraLayer

    _, model = attached(bases["diffusion"], "diffusion")
    expected = logits(model)
    for module in list(model.modules()):
        if isinstance(module, LoraLayer):
            module.merge()
    assert (logits(model) - expected).abs().max() > 0.5


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_reads_what_is_saved(bases: dict[str, Path], tmp_path: Path) -> None:
    """The folder is an ordinary PEFT adapter: PEFT itself serves the same model, unmerged."""
    from peft import PeftModel

    adapter, expected = saved(bases["diffusion"], "diffusion", tmp_path / "adapter")
    base = load(bases["diffusion"], device="cpu").model
    theirs = PeftModel.from_pretrained(base, str(adapter)).base_model.model
    assert (logits(theirs) - expected).abs().max() < 1e-4


def test_encoder_and_decoder_learn_one_change(bases: dict[str, Path]) -> None:
    """A new adapter changes nothing, leaves experts, router and vision alone, and both sides share its A and B."""
    checkpoint = load(bases["diffusion"], device="cpu")
    bare = logits(checkpoint.model)
    parameters = lora.attach(checkpoint.model, LORA, 0, "base")
    assert torch.equal(logits(checkpoint.model), bare)
    learning = {name for name, p in checkpoint.model.named_parameters(remove_duplicate=False) if p.requires_grad}
    for part in ("vision_tower", "embed_vision", "experts", "router", "self_conditioning", "embed_tokens", "lm_head"):
        assert not any(part in name for name in learning)
    text = checkpoint.model.model
    for ours, theirs in zip(text.encoder.language_model.layers, text.decoder.layers, strict=True):
        assert ours.mlp.up_proj.lora_A["default"] is theirs.mlp.up_proj.lora_A["default"]
        assert ours.self_attn.q_proj.lora_B["default"] is theirs.self_attn.q_proj.lora_B["default"]
    # One sliding layer (q, k, v, o) and one global one, whose values are its keys; three matrices of the shared MLP.
    assert len(parameters) == 2 * (4 + 3 + 2 * 3)


def untied(base: Path, folder: Path) -> tuple[Path, torch.Tensor]:
    """An adapter as PEFT trains it on its own: encoder and decoder learn different changes of a shared weight."""
    from peft.tuners.lora import LoraLayer

    checkpoint, model = attached(base, "diffusion")
    generator = torch.Generator().manual_seed(9)
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and ".encoder." in name:
            for part in ("lora_A", "lora_B"):
                old = getattr(module, part)["default"]
                new = torch.nn.Linear(old.in_features, old.out_features, bias=False)
                with torch.no_grad():
                    new.weight.copy_(torch.randn(new.weight.shape, generator=generator) * 0.2)
                getattr(module, part)["default"] = new
    expected = logits(model)
    lora.save_adapter(model, checkpoint, {}, folder)
    return folder, expected


def test_an_adapter_that_differs_between_encoder_and_decoder_is_served_as_it_is(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """Added, each side gets its own change; merged into one checkpoint it cannot be, and that is said."""
    adapter, expected = untied(bases["diffusion"], tmp_path / "adapter")
    served = load(bases["diffusion"], device="cpu", adapter=adapter)
    assert (logits(served.model) - expected).abs().max() < 1e-3
    assert not is_tied_alike(load(bases["diffusion"], device="cpu").model, read_adapter(adapter))
    with pytest.raises(AdapterProblem, match="encoder and decoder"):
        merge(bases["diffusion"], adapter, tmp_path / "merged")


def test_an_adapter_of_the_decoder_alone_leaves_the_encoder(bases: dict[str, Path], tmp_path: Path) -> None:
    """What a file does not change stays as the base has it, also where the weight is shared."""
    adapter, _ = saved(bases["diffusion"], "diffusion", tmp_path / "adapter")
    tensors = {name: value for name, value in load_file(adapter / WEIGHTS).items() if ".encoder." not in name}
    save_file(tensors, adapter / WEIGHTS)
    bare = load(bases["diffusion"], device="cpu").model
    served = load(bases["diffusion"], device="cpu", adapter=adapter).model
    ids = tuple(range(20, 31))
    one, other = (encode(model, ids, (0,) * 11, None).cache for model in (bare, served))
    assert all(torch.equal(a.keys, b.keys) for a, b in zip(one.layers, other.layers, strict=True))
    assert not torch.allclose(logits(bare), logits(served), atol=1e-2)


def test_changing_adapters_leaves_no_trace(bases: dict[str, Path], tmp_path: Path) -> None:
    """Of several adapters one is active; going back and forth gives each time the same bits, in the same tensors."""
    folders = {
        name: saved(bases["diffusion"], "diffusion", tmp_path / name, seed)[0]
        for name, seed in zip("ab", (1, 2), strict=True)
    }
    checkpoint = load(bases["diffusion"], device="cpu", adapter=folders)
    places = [p.data_ptr() for p in checkpoint.model.parameters()]
    seen: dict[str | None, torch.Tensor] = {}
    for name in (None, "a", "b", None, "b", "a"):
        checkpoint.use_adapter(name)
        found = logits(checkpoint.model)
        assert torch.equal(seen.setdefault(name, found), found)
        assert checkpoint.adapter_digest == (None if name is None else digest_of_adapter(folders[name]))
    assert [p.data_ptr() for p in checkpoint.model.parameters()] == places
    alone = load(bases["diffusion"], device="cpu", adapter=folders["b"])
    assert torch.equal(logits(alone.model), seen["b"])
    with pytest.raises(AdapterProblem, match="there are: a, b"):
        checkpoint.use_adapter("c")


def of_a_canvas(model: Any) -> torch.Tensor:
    """Logits of a canvas after a prompt, by whatever passes the model has."""
    ids = tuple(range(20, 31))
    canvas_BL = torch.arange(model.config.canvas_length)[None] + 20
    with torch.inference_mode():
        return Decoder(model, encode(model, ids, (0,) * 11, None))(canvas_BL, canvas_BL >= 0)


def test_the_accelerated_passes_read_what_adapters_are_added_to(bases: dict[str, Path], tmp_path: Path) -> None:
    """Several adapters in turns, or one for good: the logits are those of the library's passes, and none fell back."""
    folders = {
        name: saved(bases["diffusion"], "diffusion", tmp_path / name, seed)[0] for name, seed in (("a", 1), ("b", 2))
    }
    plain = load(bases["diffusion"], device="cpu", adapter=folders)
    fast = load(bases["diffusion"], device="cpu", adapter=folders, accelerate=True)
    for name in ("a", None, "b", "a"):
        plain.use_adapter(name)
        fast.use_adapter(name)
        expected = of_a_canvas(plain.model)
        assert torch.allclose(of_a_canvas(fast.model), expected, atol=1e-3)
    alone = load(bases["diffusion"], device="cpu", adapter=folders["a"], accelerate=True)
    assert torch.allclose(of_a_canvas(alone.model), expected, atol=1e-3)
    assert accelerated(plain.model) is None
    assert accelerated(fast.model).counts == {"encode.fast": 4, "read.fast": 4}
    assert accelerated(alone.model).counts == {"encode.fast": 1, "read.fast": 1}


def test_a_model_whose_sides_differ_is_not_accelerated(bases: dict[str, Path], tmp_path: Path) -> None:
    """Whichever layer the adapter unties: the accelerated passes would read the decoder's weights for both sides."""
    adapter, _ = untied(bases["diffusion"], tmp_path / "adapter")
    tensors = {name: value for name, value in load_file(adapter / WEIGHTS).items() if "mlp.down_proj" in name}
    save_file(tensors, adapter / WEIGHTS)
    plain = load(bases["diffusion"], device="cpu", adapter=adapter)
    model = load(bases["diffusion"], device="cpu", adapter=adapter, accelerate=True).model
    assert accelerated(model) is None
    assert torch.equal(of_a_canvas(model), of_a_canvas(plain.model))


def test_a_text_names_its_adapter_and_its_study_is_encoded_for_it(bases: dict[str, Path], tmp_path: Path) -> None:
    """The run record has the adapter's digest, a replay under another is refused, and no encoded study is shared."""
    folders = {
        name: saved(bases["diffusion"], "diffusion", tmp_path / name, seed)[0] for name, seed in (("a", 1), ("b", 2))
    }
    engine = Engine(load(bases["diffusion"], device="cpu", adapter=folders))
    image = np.eye(96, dtype=np.uint8)
    records = []
    for name in ("a", "b", "a"):
        engine.use_adapter(name)
        records.append(engine.draft([image], settings=GenerationSettings(steps=2)).run)
    assert [record.adapter_digest for record in records] == [digest_of_adapter(folders[name]) for name in "aba"]
    assert (engine.prefixes.misses, engine.prefixes.hits) == (2, 1)
    assert records[0].text_digest == records[2].text_digest
    with pytest.raises(ReplayMismatch, match="adapter"):
        engine.replay(records[1], [image])


def test_an_adapter_for_another_base_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    """By the digest that is written with it, else by names and shapes; what is said of a base makes it no other one."""
    adapter, _ = saved(bases["diffusion"], "diffusion", tmp_path / "adapter")
    other = Path(shutil.copytree(bases["diffusion"], tmp_path / "other"))
    about = json.loads((other / "inlay.json").read_text())
    (other / "inlay.json").write_text(json.dumps(about | {"dispute_threshold": 0.25}))
    load(other, device="cpu", adapter=adapter)
    with (other / "config.json").open("a") as config:
        config.write("\n")
    with pytest.raises(AdapterProblem, match="made for another base"):
        load(other, device="cpu", adapter=adapter)
    (adapter / "inlay.json").unlink()
    load(other, device="cpu", adapter=adapter)
    with pytest.raises(AdapterProblem, match="which this model has not"):
        load(bases["autoregressive"], device="cpu", adapter=adapter, kind="autoregressive")
    tensors = load_file(adapter / WEIGHTS)
    name = next(name for name in tensors if "lora_B" in name)
    save_file(tensors | {name: torch.zeros(7, 4)}, adapter / WEIGHTS)
    with pytest.raises(AdapterProblem, match=r"as \(7, \d+\)"):
        load(bases["diffusion"], device="cpu", adapter=adapter)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused(
    bases: dict[str, Path], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """Adapters that would be served wrongly are named, with what they use."""
    adapter, _ = saved(bases["diffusion"], "diffusion", tmp_path / "adapter")
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(AdapterProblem, match=said):
        read_adapter(adapter)


def test_an_unfit_folder_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    """A missing file, a key that is no A or B, and half of a pair are named."""
    with pytest.raises(AdapterProblem, match=r"no adapter_config\.json"):
        read_adapter(tmp_path)
    adapter, _ = saved(bases["diffusion"], "diffusion", tmp_path / "adapter")
    tensors = load_file(adapter / WEIGHTS)
    first = next(iter(tensors))
    save_file({name: value for name, value in tensors.items() if name != first}, adapter / WEIGHTS)
    with pytest.raises(AdapterProblem, match="lacks A or B"):
        read_adapter(adapter)
    save_file(tensors | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, adapter / WEIGHTS)
    with pytest.raises(AdapterProblem, match=r"lm_head\.weight"):
        read_adapter(adapter)


def test_scales_follow_the_configuration(bases: dict[str, Path], tmp_path: Path) -> None:
    """alpha over rank; over its root with rsLoRA; alpha of a layer's own where a pattern names it."""
    adapter, _ = saved(bases["diffusion"], "diffusion", tmp_path / "adapter")
    config = json.loads((adapter / CONFIG).read_text())
    assert {delta.scale for delta in read_adapter(adapter).deltas.values()} == {2.0}
    (adapter / CONFIG).write_text(json.dumps(config | {"use_rslora": True, "alpha_pattern": {"q_proj": 2}}))
    scales = {name.rsplit(".", 1)[-1]: delta.scale for name, delta in read_adapter(adapter).deltas.items()}
    assert (scales["q_proj"], scales["o_proj"]) == (1.0, 4.0)


def test_a_change_is_computed_in_float32_and_rounded_once(bases: dict[str, Path], tmp_path: Path) -> None:
    """In bfloat16 the weight with its change is the nearest number to their exact sum."""
    adapter, _ = saved(bases["diffusion"], "diffusion", tmp_path / "adapter")
    exact = load(bases["diffusion"], device="cpu", adapter=adapter).model
    half = load(bases["diffusion"], device="cpu", dtype="bfloat16").model
    weights = dict(half.named_parameters())
    base = {name: weights[name].detach().clone() for name in weights}
    Added(half, {"a": read_adapter(adapter)})
    changed = [name for name in weights if not torch.equal(weights[name], base[name])]
    assert changed
    for name in changed:
        wanted = exact.get_parameter(name)
        # The base itself was rounded to bfloat16 first: one more half of a step than the sum's own rounding.
        step = torch.finfo(torch.bfloat16).eps * torch.maximum(wanted.abs(), base[name].float().abs())
        assert ((weights[name].float() - wanted).abs() <= step + 1e-6).all()
