from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from tests.unit.inlay_model.accelerator.conftest import distance

from inlay_model.accelerator.packing import pack, through_float8
from inlay_model.accelerator.reference import Heads, Joint, Reference, Room

triton = pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed here")

from inlay_model.accelerator.fused import Fused, Tile, Tuning, tuning_of  # noqa: E402 - after the check above

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# On a GPU in the dtype of service too; Triton's interpreter has no bfloat16 matrices.
KINDS = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
PLAIN = Reference()
KERNELS = Fused(Tuning(vocabulary={False: (128, 4)}))
# Relative, of the whole tensor: float32 differs by the order of sums, the others by one rounding.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> torch.dtype:
    """A dtype of activations."""
    torch.manual_seed(0)
    found: torch.dtype = request.param
    return found


def normal(*shape: int, kind: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    """Random numbers on the device under test."""
    return (torch.randn(shape) * scale).to(DEVICE, kind)


def agree(work: Callable[[Reference], Any], kind: torch.dtype) -> None:
    """Both kinds of kernels give the same tensors within the tolerance."""
    for ours, plain in zip(_flat(work(KERNELS)), _flat(work(PLAIN)), strict=True):
        assert ours.dtype == plain.dtype
        assert ours.shape == plain.shape
        assert distance(ours, plain) < TOLERANCE[kind]


def _flat(found: Any) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def test_norms_and_gates_are_the_plain_ones(kind: torch.dtype) -> None:
    """RMS norms (with a weight, without, of a sum) and the gate, at a width that is no power of two."""
    x_TH, y_TH, weight_H = normal(5, 96, kind=kind), normal(5, 96, kind=kind), normal(96, kind=kind)
    agree(lambda kernels: kernels.rms_norm(x_TH, weight_H, 1e-6), kind)
    agree(lambda kernels: kernels.rms_norm(x_TH, None, 1e-6), kind)
    agree(lambda kernels: kernels.add_norm(x_TH, y_TH, 1e-6), kind)
    agree(lambda kernels: kernels.gate(x_TH), kind)


def test_what_stands_between_the_matmuls_of_a_layer_is_the_plain_one(kind: torch.dtype) -> None:
    """After attention: residual and three inputs; at the end: weighted experts, both norms, residual, next norm."""
    x_TH, y_TH = normal(7, 96, kind=kind), normal(7, 96, kind=kind)
    norms = [normal(96, kind=kind) for _ in range(5)]
    agree(lambda kernels: kernels.after_attention(x_TH, y_TH, (norms[0], norms[1], norms[2]), norms[3], 1e-6), kind)
    pairs_SH, weights_TK = normal(28, 96, kind=kind), torch.rand(7, 4).to(DEVICE)
    joint = Joint(norms[0], norms[1], norms[2], torch.tensor([0.7]).to(DEVICE, kind), norms[4])
    agree(lambda kernels: kernels.combine(pairs_SH, weights_TK, x_TH, y_TH, joint, 1e-6), kind)


@pytest.mark.parametrize("own_values", [True, False])
def test_heads_are_normed_turned_and_put_into_their_slots(kind: torch.dtype, own_values: bool) -> None:
    """Two rows of six tokens: queries come back, keys and values stand in the room, all else there is untouched."""
    heads = Heads(normal(32, kind=kind), normal(32, kind=kind), 4, 2, 32, own_values)
    projected_TD = normal(12, (8 if own_values else 6) * 32, kind=kind)
    turn = (normal(12, 32, kind=kind), normal(12, 32, kind=kind))
    slots_T = torch.arange(8, 14, dtype=torch.int32).repeat(2).to(DEVICE)

    def work(kernels: Reference) -> tuple[torch.Tensor, ...]:
        keys, values = (torch.full((2, 2, 20, 32), 3.0).to(DEVICE, kind) for _ in range(2))
        room = Room(keys, values, 8)
        return kernels.heads(projected_TD, heads, turn, slots_T, room, 1e-6), room.keys, room.values

    agree(work, kind)
    assert bool((work(KERNELS)[1][:, :, :8] == 3.0).all())


def test_a_canvas_sees_its_prefix_and_itself_and_nothing_else(kind: torch.dtype) -> None:
    """Rows with prefixes of 3 and 8 tokens; slots between prefix and canvas hold NaN and are never read."""
    keys, values = normal(2, 2, 20, 32, kind=kind), normal(2, 2, 20, 32, kind=kind)
    for part in (keys, values):
        part[0, :, 3:8] = float("nan")
        part[:, :, 14:] = float("nan")
    q_TAW, lengths_B = normal(12, 4, 32, kind=kind, scale=0.3), torch.tensor([3, 8], dtype=torch.int32).to(DEVICE)
    agree(lambda kernels: kernels.attend(q_TAW, Room(keys, values, 8), lengths_B), kind)


def test_a_prompt_sees_as_far_as_it_is_told(kind: torch.dtype) -> None:
    """Six tokens over fourteen slots, each to an end of its own; slots beyond the prompt are never read."""
    keys, values = normal(1, 2, 20, 32, kind=kind), normal(1, 2, 20, 32, kind=kind)
    values[:, :, 14:] = float("nan")
    until_L = torch.tensor([9, 10, 14, 14, 14, 1], dtype=torch.int32).to(DEVICE)
    lengths_B = torch.tensor([14], dtype=torch.int32).to(DEVICE)
    q_TAW = normal(6, 4, 32, kind=kind, scale=0.3)
    agree(lambda kernels: kernels.attend(q_TAW, Room(keys, values, 16), lengths_B, until_L), kind)


def test_routing_chooses_the_same_experts(kind: torch.dtype) -> None:
    """Twelve experts (no power of two), four chosen, in order of probability, weights with the experts' own scales."""
    scores_TE, scale_E = normal(7, 12, kind=kind), torch.rand(12).to(DEVICE, kind)
    weights_TK, chosen_TK = KERNELS.route(scores_TE, scale_E, 4)
    plain_TK, expected_TK = PLAIN.route(scores_TE, scale_E, 4)
    assert chosen_TK.equal(expected_TK)
    torch.testing.assert_close(weights_TK, plain_TK)


@pytest.mark.parametrize("chunk", [16, 64, 128])
def test_grouping_puts_every_pair_into_a_block_of_its_expert(chunk: int) -> None:
    """However uneven the choice (one expert has most pairs, some have none), each pair stands in exactly one block.

    So in one chunk and in several, the last of which is not full.
    """
    kernels = Fused(Tuning(group={False: (16, 4), True: (chunk, 4)}))
    chosen_TK = torch.tensor([[0, 5], [5, 3], [5, 1], [5, 3], [5, 0]] * 9, dtype=torch.int32).to(DEVICE)
    sorted_P, expert_P = kernels.grouped(chosen_TK, 6, 16)
    flat = chosen_TK.flatten().tolist()
    found = []
    for block, expert in enumerate(expert_P.tolist()):
        pairs = [pair for pair in sorted_P[block * 16 : block * 16 + 16].tolist() if expert >= 0 and pair < len(flat)]
        assert all(flat[pair] == expert for pair in pairs)
        found += pairs
    assert sorted(found) == list(range(len(flat)))


def tiled(up: Tile, down: Tile) -> Fused:
    """Kernels with these tiles for blocks of 16 rows, whatever the precision."""
    uses = [(bits, 16) for bits in (16, 8, 4)]
    return Fused(Tuning(((0, 16),), up=dict.fromkeys(uses, up), down=dict.fromkeys(uses, down)))


def uneven(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Forty rows and their choice of five experts out of twelve, of which one has more rows than a block."""
    chosen_TK = torch.randint(0, 5, (40, 4), dtype=torch.int32).to(DEVICE)
    chosen_TK[:, 0] = 2
    return normal(40, 128, kind=kind), chosen_TK


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("swap", [True, False])
def test_experts_are_the_plain_ones_in_every_precision(kind: torch.dtype, bits: int, swap: bool) -> None:
    """Uneven routing over some of twelve experts; rows and weights in float8 where weights are."""
    experts = pack(normal(12, 128, 128, kind=kind, scale=0.1), normal(12, 128, 64, kind=kind, scale=0.1), bits)
    kernels = tiled(Tile(64, 64, 2, 4, swap), Tile(32, 64, 2, 4, swap))
    given = *uneven(kind), experts
    assert distance(kernels.experts(*given), PLAIN.experts(*given)) < expert_tolerance(kind, bits)


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("swap", [True, False])
def test_a_block_that_holds_little_is_computed_as_a_small_one(kind: torch.dtype, bits: int, swap: bool) -> None:
    """Blocks of 32 rows, some full, some with more than 16 pairs and some with fewer; what they say is the same."""
    experts = pack(normal(12, 128, 128, kind=kind, scale=0.1), normal(12, 128, 64, kind=kind, scale=0.1), bits)
    x_TH, chosen_TK = uneven(kind)
    sizes = torch.bincount(chosen_TK.flatten(), minlength=12)
    assert {0, 1, 2} <= {(0 if size == 0 else 1 if size % 32 <= 16 else 2) for size in sizes.tolist()}
    up, down = {(bits, 32): Tile(64, 64, 2, 4, swap)}, {(bits, 32): Tile(32, 64, 2, 4, swap)}
    kernels = Fused(Tuning(((0, 32),), up=up, down=down, rest={(bits, 32): 16}))
    given = x_TH, chosen_TK, experts
    assert distance(kernels.experts(*given), PLAIN.experts(*given)) < expert_tolerance(kind, bits)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_step_that_does_not_divide_the_depth_reads_nothing_beyond_it(bits: int) -> None:
    """Steps of 128 over depths of 192 and 320: what stands behind the last expert's weights is no number."""
    kind, wide = torch.float32, Tile(64, 128, 2, 4)
    experts = pack(normal(3, 384, 320, kind=kind, scale=0.1), normal(3, 320, 192, kind=kind, scale=0.1), bits)
    ending = replace(experts, gate_up=_with_nan_behind(experts.gate_up), down=_with_nan_behind(experts.down))
    x_TH, chosen_TK = normal(5, 320, kind=kind), torch.tensor([[2, 0]] * 5, dtype=torch.int32).to(DEVICE)
    # In float8 a step of the second depth is a group, which divides what the first projection makes.
    kernels = tiled(wide, Tile(64, 64, 2, 4) if bits == 8 else wide)
    found = kernels.experts(x_TH, chosen_TK, ending)
    assert distance(found, PLAIN.experts(x_TH, chosen_TK, experts)) < expert_tolerance(kind, bits)


def _with_nan_behind(weight: torch.Tensor) -> torch.Tensor:
    """The same weights in memory that goes on with NaN in whatever precision."""
    raw = torch.full((weight.nbytes + 4096,), 0xFF, dtype=torch.uint8, device=weight.device)
    raw[: weight.nbytes] = weight.contiguous().view(torch.uint8).flatten()
    return raw[: weight.nbytes].view(weight.dtype).view(weight.shape)


def expert_tolerance(kind: torch.dtype, bits: int) -> float:
    """One number that falls on the other side of a rounding to float8 is more than all else together."""
    return max(TOLERANCE[kind], 2e-3) if bits == 8 else TOLERANCE[kind]


def test_rows_are_float8_as_the_plain_conversion_has_them() -> None:
    """From rows of zeros and of tiny numbers to the largest, bit for bit in the interpreter; NaN stays NaN.

    A GPU divides with an error in the last place: there a number at the edge may fall on the other side.
    """
    torch.manual_seed(0)
    x_TH = torch.randn(7, 96) * torch.logspace(-30, 4, 96)
    x_TH[0], x_TH[1, 3] = 0.0, float("nan")
    found_TH, scale_T = KERNELS.float8(x_TH.to(DEVICE))
    clean = torch.tensor([0, 2, 3, 4, 5, 6])
    held_TH, expected_TH = (found_TH.float() * scale_T.unsqueeze(-1)).cpu()[clean], through_float8(x_TH)[clean]
    if DEVICE == "cpu":
        assert held_TH.equal(expected_TH)
    # A step of float8 is at most an eighth of a number, and 2^-9 of a row's scale.
    torch.testing.assert_close(held_TH, expected_TH, rtol=0.126, atol=float(scale_T[clean].max()) * 2**-9)
    near_TH = torch.isclose(held_TH, expected_TH, rtol=1e-6, atol=0.0)
    assert float(near_TH[expected_TH != 0].float().mean()) > 0.97
    assert bool(found_TH[1, 3].float().isnan())


def test_blocks_grow_with_what_an_expert_is_likely_to_have() -> None:
    """One canvas of the 26B model has blocks of 32 rows, four of 64, eight of 128; what was found is put in place."""
    tuning = Tuning()
    assert [tuning.rows(16, canvases * 2048, 128) for canvases in (1, 4, 8)] == [32, 64, 128]
    assert tuning.rows(4, 8 * 2048, 128) == 64
    named = tuning_of(
        {
            "rows.16": 64,
            "rest.16.64": 16,
            "up.16.32": asdict(Tile(32, 32, 2, 2)),
            "vocabulary.few": [2048, 8],
            "attention.256.many": [1, 2, 3, 4],
            "warps.combine.many": 2,
            "heads.few": 1,
        }
    )
    assert [named.chunk(count) for count in (256, 2048)] == [(2048, 8), tuning.chunk(2048)]
    assert [named.warped("combine", rows) for rows in (256, 2048)] == [tuning.warped("combine", 256), 2]
    assert named.heads == {**tuning.heads, False: 1}
    assert named.rest[16, 64] == 16
    assert (named.rows(16, 8 * 2048, 128), named.up[16, 32].block_n, named.attended(256, 8)) == (64, 32, (1, 2, 3, 4))


@pytest.mark.parametrize("words", [1000, 1024])
def test_the_same_random_numbers_draw_the_same_tokens(kind: torch.dtype, words: int) -> None:
    """Drawn tokens, argmax, entropies and probabilities, with bans in every other row; the last chunk whole or not.

    A drawn token may be a neighbour where the number falls within rounding of its border: 1e-5 of probability.
    """
    logits_NV = normal(64, words, kind=kind, scale=8.0)
    temperature_N, uniform_N = torch.rand(64).to(DEVICE) * 0.5 + 0.3, torch.rand(64).to(DEVICE)
    banned_V = (torch.rand(words) < 0.2).to(DEVICE, torch.uint8)
    uses_ban_N = (torch.arange(64) % 2).to(DEVICE, torch.uint8)
    given = (logits_NV, temperature_N, uniform_N, 30.0, banned_V, uses_ban_N)
    ours, plain = KERNELS.draw(*given), PLAIN.draw(*given)
    assert ours.argmax_N.equal(plain.argmax_N)
    torch.testing.assert_close(ours.entropy_N, plain.entropy_N, atol=1e-5, rtol=1e-4)
    near = 2e-2 if kind != torch.float32 else 1e-4
    torch.testing.assert_close(ours.probabilities(), plain.probabilities(), atol=2e-6, rtol=near)
    embedding_VH = normal(words, 96, kind=kind)
    expected_NH = PLAIN.expected(plain, embedding_VH)
    assert distance(KERNELS.expected(ours, embedding_VH), expected_NH) < TOLERANCE[kind]
    assert distance(KERNELS.expected(plain, embedding_VH), expected_NH) < TOLERANCE[kind]
    assert not banned_V[ours.token_N[1::2]].any()
    exact_NV = PLAIN.draw(logits_NV.double().float(), *given[1:]).p_NV.double().cumsum(-1)
    border_N = exact_NV.gather(-1, torch.minimum(ours.token_N, plain.token_N).unsqueeze(-1)).squeeze(-1)
    close_N = (border_N - uniform_N.double()).abs() < 1e-5
    assert bool(((ours.token_N == plain.token_N) | close_N).all())


def test_certain_and_nan_logits_are_handled() -> None:
    """A certain row has entropy zero and draws its token at both ends of the unit interval; NaN stays NaN."""
    logits_NV = torch.full((3, 300), -20.0).to(DEVICE)
    logits_NV[:2, 7] = 29.0
    logits_NV[2, 5] = float("nan")
    uniform_N = torch.tensor([0.0, 1.0 - 2**-24, 0.5]).to(DEVICE)
    none = torch.zeros(300, dtype=torch.uint8).to(DEVICE)
    drawn = KERNELS.draw(logits_NV, torch.full((3,), 0.2).to(DEVICE), uniform_N, 30.0, none, none[:3])
    assert drawn.token_N[:2].tolist() == [7, 7]
    assert drawn.entropy_N[:2].abs().max() < 1e-6
    assert bool(drawn.entropy_N[2].isnan())
    assert 0 <= int(drawn.token_N[2]) < 300


def test_kernels_can_be_left_to_pytorch_by_name() -> None:
    """`without` takes names of kernels, and refuses others."""
    assert Fused(without=["attend"]).attend.__func__ is Reference.attend  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no kernel attention"):
        Fused(without=["attention"])
