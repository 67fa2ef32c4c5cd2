"""The kernels on a GPU: `Reference` with its methods replaced by Triton launches of the same meaning.

Block shapes come from `Tuning`, one table per kind of device; they change the order of summation and so belong to
what a text depends on (device and bucket), never to what a run measures on the fly.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

from inlay_model.accelerator import triton_attention, triton_experts, triton_norms, triton_vocabulary
from inlay_model.accelerator.packing import INNER_GROUP, Experts
from inlay_model.accelerator.reference import Drawn, Heads, Joint, Reference, Room


@dataclass(frozen=True, slots=True)
class Tile:
    """Block shape of one expert matmul: channels and depth per step, pipeline stages, warps, and which side is first.

    With `swap` the weights are the first operand, whose 64 rows Hopper's matrix unit needs; tokens are its columns.
    """

    block_n: int
    block_k: int
    stages: int
    warps: int
    swap: bool = True


def _shapes(by_rows: Mapping[int, Tile], bits: Mapping[int, Mapping[int, Tile]]) -> dict[tuple[int, int], Tile]:
    return {(width, rows): tile for width in (16, 8, 4) for rows, tile in {**by_rows, **bits.get(width, {})}.items()}


@dataclass(frozen=True, slots=True)
class Tuning:
    """Block shapes of one kind of device. Experts: by bits and by rows of a block.

    `rows_from` are the rows of a block by how many pairs an expert has on average: a block of an expert is as large as
    what it is likely to have, so that its weights are read once. `most_rows` limits them by bits. The defaults were the
    fastest on an H200 (parts `tiles`, `tiles-fp8` and `shapes` of the suite speed26b; none tries 4 bits).
    """

    rows_from: tuple[tuple[int, int], ...] = ((96, 128), (48, 64), (0, 32))
    most_rows: dict[int, int] = field(default_factory=lambda: {16: 128, 8: 64, 4: 64})
    # Rows of a block that holds little, which is mostly what an expert has beyond its full ones, by bits and by rows of
    # those. Where nothing stands it has as many as the others.
    rest: dict[tuple[int, int], int] = field(default_factory=lambda: {(16, 64): 32, (16, 128): 32})
    # Blocks of 128 rows fill the matrix unit themselves; with fewer the weights must.
    up: dict[tuple[int, int], Tile] = field(
        default_factory=lambda: _shapes(
            {32: Tile(64, 128, 3, 4), 64: Tile(64, 128, 3, 4), 128: Tile(64, 128, 3, 8, swap=False)},
            {
                16: {32: Tile(64, 128, 5, 4), 64: Tile(64, 64, 4, 4, swap=False), 128: Tile(128, 64, 4, 8)},
                8: {64: Tile(64, 128, 4, 4, swap=False)},
            },
        )
    )
    down: dict[tuple[int, int], Tile] = field(
        default_factory=lambda: _shapes(
            {32: Tile(128, 64, 4, 4), 64: Tile(128, 64, 4, 4), 128: Tile(64, 64, 3, 4, swap=False)},
            {
                16: {32: Tile(64, 64, 6, 4), 128: Tile(128, 64, 3, 8, swap=False)},
                8: {32: Tile(64, 64, 6, 4), 64: Tile(64, 64, 4, 4, swap=False)},
            },
        )
    )
    # (queries, keys, stages, warps) of attention by head width up to, for few canvases and for `many_canvases` or more,
    # which fill the device with larger blocks too.
    attention: dict[tuple[int, bool], tuple[int, int, int, int]] = field(
        default_factory=lambda: {
            (256, False): (64, 64, 2, 4),
            (256, True): (128, 64, 2, 8),
            (512, False): (32, 32, 2, 4),
            (512, True): (64, 32, 2, 8),
        }
    )
    many_canvases: int = 4
    # (pairs, warps) of a chunk where pairs are sorted by expert, for one chunk of this size and for more.
    group: dict[bool, tuple[int, int]] = field(default_factory=lambda: {False: (2048, 8), True: (4096, 8)})
    # (words, warps) of a chunk of the vocabulary for few positions and for `many_positions` or more. Each chunk is a
    # product of its own where probabilities weigh the embedding.
    vocabulary: dict[bool, tuple[int, int]] = field(default_factory=lambda: {False: (4096, 4), True: (8192, 4)})
    many_positions: int = 1024
    # Heads of a program, each with a warp of its own, where a projection is cut into heads, for few tokens and for
    # `many_positions` or more.
    heads: dict[bool, int] = field(default_factory=lambda: {False: 8, True: 8})
    # Warps of the kernels that take a row of hidden states each, by name, for few rows and for `many_positions` or
    # more. Where nothing stands there are four.
    warps: dict[tuple[str, bool], int] = field(
        default_factory=lambda: {("after_attention", False): 8, ("combine", False): 16}
    )

    def warped(self, name: str, rows: int) -> int:
        """Warps of a kernel that takes so many rows one by one."""
        return self.warps.get((name, rows >= self.many_positions), 4)

    def rows(self, bits: int, pairs: int, experts: int) -> int:
        """Rows of a block for so many pairs over so many experts."""
        fitting = next(rows for least, rows in self.rows_from if pairs >= least * experts)
        return min(fitting, self.most_rows[bits])

    def attended(self, width: int, canvases: int) -> tuple[int, int, int, int]:
        """Block shape of attention for heads of this width."""
        most = min(wide for wide, _ in self.attention if width <= wide)
        return self.attention[most, canvases >= self.many_canvases]

    def chunk(self, positions: int) -> tuple[int, int]:
        """Words and warps of a chunk of the vocabulary for so many positions."""
        return self.vocabulary[positions >= self.many_positions]


def tuning_of(found: Mapping[str, Any]) -> Tuning:
    """The tuning with what was found put in place, by name; other names are passed over.

    Names are `up.16.32`, `down.8.128`, `rows.16`, `rest.16.128`, `attention.256.many`, `vocabulary.few`, `group.many`,
    `warps.combine.many`, `heads.few`.
    """
    tuning = Tuning()
    for key, value in found.items():
        side, *rest = key.split(".")
        if side in {"up", "down"} and value:
            getattr(tuning, side)[int(rest[0]), int(rest[1])] = Tile(**value)
        elif side == "rows":
            tuning.most_rows[int(rest[0])] = int(value)
        elif side == "rest":
            tuning.rest[int(rest[0]), int(rest[1])] = int(value)
        elif side == "attention":
            tuning.attention[int(rest[0]), rest[1] == "many"] = tuple(value)
        elif side == "warps":
            tuning.warps[rest[0], rest[1] == "many"] = int(value)
        elif side == "heads":
            tuning.heads[rest[0] == "many"] = int(value)
        elif side in {"vocabulary", "group"}:
            getattr(tuning, side)[rest[0] == "many"] = tuple(value)
    return tuning


class Fused(Reference):
    """Triton kernels; the names in `without` stay with PyTorch operations."""

    name = "triton"

    def __init__(self, tuning: Tuning | None = None, without: Collection[str] = ()) -> None:
        self.tuning = tuning or Tuning()
        for name in without:
            if name not in vars(Reference):
                raise ValueError(f"There is no kernel {name}.")
            setattr(self, name, getattr(Reference(), name))

    def rms_norm(self, x_TH: Tensor, weight_H: Tensor | None, eps: float) -> Tensor:
        """See `Reference`."""
        width = x_TH.shape[-1]
        out_TH = torch.empty_like(x_TH)
        triton_norms.rms_norm_kernel[(x_TH.numel() // width,)](
            x_TH, weight_H, out_TH, eps, width, triton.next_power_of_2(width), weight_H is not None
        )
        return out_TH

    def add_norm(self, x_TH: Tensor, y_TH: Tensor, eps: float) -> Tensor:
        """See `Reference`."""
        out_TH = torch.empty_like(x_TH)
        width = x_TH.shape[-1]
        triton_norms.add_norm_kernel[(len(x_TH),)](x_TH, y_TH, out_TH, eps, width, triton.next_power_of_2(width))
        return out_TH

    def gate(self, gate_up_TI: Tensor) -> Tensor:
        """See `Reference`."""
        width = gate_up_TI.shape[-1] // 2
        out_TI = gate_up_TI.new_empty((*gate_up_TI.shape[:-1], width))
        size = out_TI.numel()
        triton_norms.gate_kernel[(triton.cdiv(size, 1024),)](gate_up_TI, out_TI, size, width, 1024)
        return out_TI

    def heads(
        self, projected_TD: Tensor, heads: Heads, turn: tuple[Tensor, Tensor], slots_T: Tensor, room: Room, eps: float
    ) -> Tensor:
        """See `Reference`."""
        tokens, columns = projected_TD.shape
        q_TAW = projected_TD.new_empty((tokens, heads.q_heads, heads.width))
        group = self.tuning.heads[tokens >= self.tuning.many_positions]
        triton_norms.heads_kernel[(tokens, triton.cdiv(columns // heads.width, group))](
            projected_TD,
            heads.q_norm,
            heads.k_norm,
            *turn,
            slots_T,
            q_TAW,
            room.keys,
            room.values,
            eps,
            tokens // len(room.keys),
            room.keys.shape[2],
            columns,
            heads.q_heads,
            heads.kv_heads,
            heads.width,
            triton.next_power_of_2(heads.width // 2),
            heads.own_values,
            group,
            num_warps=group,
        )
        return q_TAW

    def attend(self, q_TAW: Tensor, room: Room, lengths_B: Tensor, until_L: Tensor | None = None) -> Tensor:
        """See `Reference`."""
        rows, kv_heads, slots, width = room.keys.shape
        canvas = len(q_TAW) // rows
        out_TAW = torch.empty_like(q_TAW)
        block_m, block_n, stages, warps = self.tuning.attended(width, rows)
        triton_attention.attend_kernel[(triton.cdiv(canvas, block_m), q_TAW.shape[1], rows)](
            q_TAW,
            room.keys,
            room.values,
            lengths_B,
            until_L,
            out_TAW,
            canvas,
            room.start,
            slots,
            q_TAW.shape[1],
            kv_heads,
            width,
            block_m,
            block_n,
            until_L is not None,
            num_stages=stages,
            num_warps=warps,
        )
        return out_TAW.flatten(1)

    def after_attention(
        self,
        attended_TH: Tensor,
        residual_TH: Tensor,
        norms: tuple[Tensor, Tensor, Tensor],
        router_scale_H: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Reference`."""
        width = residual_TH.shape[-1]
        made = [torch.empty_like(residual_TH) for _ in range(4)]
        triton_norms.after_attention_kernel[(len(residual_TH),)](
            attended_TH,
            residual_TH,
            *norms,
            router_scale_H,
            *made,
            width**-0.5,
            eps,
            width,
            triton.next_power_of_2(width),
            num_warps=self.tuning.warped("after_attention", len(residual_TH)),
        )
        return made[0], made[1], made[2], made[3]

    def route(self, scores_TE: Tensor, expert_scale_E: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """See `Reference`."""
        tokens, experts = scores_TE.shape
        weights_TK = scores_TE.new_empty((tokens, top_k), dtype=torch.float32)
        chosen_TK = scores_TE.new_empty((tokens, top_k), dtype=torch.int32)
        triton_experts.route_kernel[(tokens,)](
            scores_TE,
            expert_scale_E,
            weights_TK,
            chosen_TK,
            experts,
            triton.next_power_of_2(experts),
            top_k,
            num_warps=1,
        )
        return weights_TK, chosen_TK

    def grouped(self, chosen_TK: Tensor, experts: int, rows: int) -> tuple[Tensor, Tensor]:
        """Pairs sorted into blocks of `rows` by expert, and the expert of each block (-1: unused)."""
        pairs = chosen_TK.numel()
        blocks = triton.cdiv(pairs, rows) + min(experts, pairs)
        few, _ = self.tuning.group[False]
        chunk, warps = self.tuning.group[pairs > few]
        sorted_P = chosen_TK.new_empty(blocks * rows)
        expert_P = chosen_TK.new_empty(blocks)
        triton_experts.group_kernel[(experts,)](
            chosen_TK,
            sorted_P,
            expert_P,
            pairs,
            blocks,
            rows,
            triton.next_power_of_2(experts),
            min(chunk, triton.next_power_of_2(pairs)),
            64,
            num_warps=warps,
        )
        return sorted_P, expert_P

    def experts(self, x_TH: Tensor, chosen_TK: Tensor, experts: Experts) -> Tensor:
        """See `Reference`."""
        pairs, top_k = chosen_TK.numel(), chosen_TK.shape[1]
        rows = self.tuning.rows(experts.bits, pairs, experts.count)
        rest = self.tuning.rest.get((experts.bits, rows), 0)
        up, down = self.tuning.up[experts.bits, rows], self.tuning.down[experts.bits, rows]
        sorted_P, expert_P = self.grouped(chosen_TK, experts.count, rows)
        rows_TH, rows_scale_T = x_TH, experts.gate_up_scale
        inner_scale_PG, inner_kind = experts.gate_up_scale, x_TH.dtype
        if experts.bits == 8:
            if not up.block_n == down.block_k == INNER_GROUP:
                raise ValueError(f"With float8 a tile makes, and a step reads, {INNER_GROUP} inner channels.")
            rows_TH, rows_scale_T = self.float8(x_TH)
            inner_kind = torch.float8_e4m3fn
            groups = triton.cdiv(experts.inner, INNER_GROUP)
            inner_scale_PG = x_TH.new_empty((len(sorted_P), groups), dtype=torch.float32)
        inner_PI = x_TH.new_empty((len(sorted_P), experts.inner), dtype=inner_kind)
        made_SH = x_TH.new_empty((pairs, experts.hidden))
        triton_experts.experts_up_kernel[(len(expert_P) * triton.cdiv(experts.inner, up.block_n),)](
            rows_TH,
            rows_scale_T,
            experts.gate_up,
            experts.gate_up_scale,
            sorted_P,
            expert_P,
            inner_PI,
            inner_scale_PG,
            pairs,
            experts.hidden,
            experts.inner,
            top_k,
            rows,
            rest,
            up.block_n,
            up.block_k,
            experts.bits,
            up.swap,
            **_launch(up),
        )
        triton_experts.experts_down_kernel[(len(expert_P) * triton.cdiv(experts.hidden, down.block_n),)](
            inner_PI,
            inner_scale_PG,
            experts.down,
            experts.down_scale,
            sorted_P,
            expert_P,
            made_SH,
            pairs,
            experts.inner,
            experts.hidden,
            rows,
            rest,
            down.block_n,
            down.block_k,
            experts.bits,
            down.swap,
            **_launch(down),
        )
        return made_SH

    def float8(self, x_TH: Tensor) -> tuple[Tensor, Tensor]:
        """Rows in float8, and the scale of each: `packing.through_float8` in two parts."""
        tokens, width = x_TH.shape
        out_TH = torch.empty_like(x_TH, dtype=torch.float8_e4m3fn)
        scale_T = x_TH.new_empty(tokens, dtype=torch.float32)
        triton_experts.float8_kernel[(tokens,)](x_TH, out_TH, scale_T, width, triton.next_power_of_2(width))
        return out_TH, scale_T

    def combine(
        self, pairs_SH: Tensor, weights_TK: Tensor, mlp_TH: Tensor, residual_TH: Tensor, joint: Joint, eps: float
    ) -> tuple[Tensor, Tensor]:
        """See `Reference`."""
        width = residual_TH.shape[-1]
        hidden_TH, next_TH = torch.empty_like(residual_TH), torch.empty_like(residual_TH)
        triton_norms.combine_kernel[(len(residual_TH),)](
            pairs_SH,
            weights_TK,
            mlp_TH,
            residual_TH,
            joint.mlp_H,
            joint.experts_H,
            joint.sum_H,
            joint.scalar,
            joint.next_H,
            hidden_TH,
            next_TH,
            eps,
            width,
            triton.next_power_of_2(width),
            weights_TK.shape[1],
            num_warps=self.tuning.warped("combine", len(residual_TH)),
        )
        return hidden_TH, next_TH

    def draw(
        self,
        logits_NV: Tensor,
        temperature_N: Tensor,
        uniform_N: Tensor,
        cap: float,
        banned_V: Tensor,
        uses_ban_N: Tensor,
    ) -> Drawn:
        """See `Reference`."""
        rows, size = logits_NV.shape
        most, warps = self.tuning.chunk(rows)
        words = min(most, triton.next_power_of_2(size))
        chunks, even = triton.cdiv(size, words), size % words == 0
        top_NS, mass_NS, moment_NS, scale_NS = (
            logits_NV.new_empty((rows, chunks), dtype=torch.float32) for _ in range(4)
        )
        best_NS = logits_NV.new_empty((rows, chunks), dtype=torch.int32)
        token_N, argmax_N = (logits_NV.new_empty(rows, dtype=torch.int64) for _ in range(2))
        entropy_N = logits_NV.new_empty(rows, dtype=torch.float32)
        p_NV = torch.empty_like(logits_NV)
        given = (logits_NV, temperature_N, banned_V, uses_ban_N, top_NS, mass_NS, moment_NS, best_NS)
        triton_vocabulary.chunk_kernel[(rows, chunks)](*given, p_NV, cap, size, chunks, words, even, num_warps=warps)
        triton_vocabulary.decide_kernel[(rows,)](
            *given,
            uniform_N,
            token_N,
            argmax_N,
            entropy_N,
            scale_NS,
            cap,
            size,
            chunks,
            triton.next_power_of_2(chunks),
            words,
            even,
            num_warps=warps,
        )
        return Drawn(token_N, argmax_N, entropy_N, p_NV, scale_NS, words)

    def expected(self, drawn: Drawn, embedding_VH: Tensor) -> Tensor:
        """See `Reference`; a product for each chunk of the vocabulary, and their sum in float32."""
        (rows, chunks), words = drawn.scale_NS.shape, drawn.words
        if chunks * words != len(embedding_VH):
            return super().expected(drawn, embedding_VH)
        p_SNW = drawn.p_NV.view(rows, chunks, words).transpose(0, 1)
        return self.weighed(_product(p_SNW, embedding_VH.view(chunks, words, -1)), drawn)

    def weighed(self, parts_SNH: Tensor, drawn: Drawn) -> Tensor:
        """The sum of what the chunks of the vocabulary make, each times its scale."""
        chunks, rows, width = parts_SNH.shape
        out_NH = drawn.p_NV.new_empty((rows, width))
        triton_vocabulary.weigh_kernel[(rows, triton.cdiv(width, 1024))](
            parts_SNH, drawn.scale_NS, out_NH, rows, width, chunks, 1024
        )
        return out_NH


def _product(left_SNW: Tensor, right_SWH: Tensor) -> Tensor:
    if left_SNW.is_cuda and left_SNW.dtype != torch.float32:
        return torch.bmm(left_SNW, right_SWH, out_dtype=torch.float32)
    return torch.bmm(left_SNW.float(), right_SWH.float())


def _launch(tile: Tile) -> dict[str, Any]:
    return {"num_stages": tile.stages, "num_warps": tile.warps}
