"""The plain twin of every kernel, in PyTorch operations: what kernels are compared with, and what runs without a GPU.

Shapes: B rows of a batch, L positions of a row, T = B x L tokens, H hidden, E experts, K chosen per token, S = T x K
pairs, N free positions, V vocabulary. None of these functions waits for the device, so each can stand in a captured
graph in place of its kernel; the one exception is `experts` on weights that a GPU's grouped matmul cannot read.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inlay_model.accelerator.packing import INNER_GROUP, Experts, through_float8
from inlay_model.step import IMPOSSIBLE


@dataclass(frozen=True, slots=True)
class Room:
    """Keys and values of one layer, each B x heads x slots x width. Prefix first; a canvas begins at slot `start`."""

    keys: Tensor
    values: Tensor
    start: int


@dataclass(frozen=True, slots=True)
class Heads:
    """How a joint projection is cut into heads, and their norms. Without own values, values are the raw keys."""

    q_norm: Tensor
    k_norm: Tensor
    q_heads: int
    kv_heads: int
    width: int
    own_values: bool


@dataclass(frozen=True, slots=True)
class Drawn:
    """What sampling yields per free position: a drawn token, the likeliest one, entropy (nats), all probabilities.

    The probabilities are those of `p_NV` times `scale_NS`, one of which there is for each run of `words` words.
    """

    token_N: Tensor
    argmax_N: Tensor
    entropy_N: Tensor
    p_NV: Tensor
    scale_NS: Tensor
    words: int

    def probabilities(self) -> Tensor:
        """The probabilities themselves, N x V, in the dtype of `p_NV`."""
        size = self.p_NV.shape[1]
        scale_NV = self.scale_NS.repeat_interleave(self.words, dim=-1)[:, :size]
        return (self.p_NV.float() * scale_NV).to(self.p_NV.dtype)


@dataclass(frozen=True, slots=True)
class Joint:
    """Norms and scalar of a layer's end: of the shared MLP, of the experts, of their sum, and of the layer after it."""

    mlp_H: Tensor
    experts_H: Tensor
    sum_H: Tensor
    scalar: Tensor
    next_H: Tensor


class Reference:
    """All kernels in PyTorch operations. `fused.Fused` overrides them."""

    name = "reference"

    def rms_norm(self, x_TH: Tensor, weight_H: Tensor | None, eps: float) -> Tensor:
        """RMS norm of each row in float32, times the weight."""
        wide_TH = x_TH.float()
        normed_TH = wide_TH * torch.rsqrt(wide_TH.square().mean(-1, keepdim=True) + eps)
        if weight_H is not None:
            normed_TH = normed_TH * weight_H.float()
        return normed_TH.to(x_TH.dtype)

    def add_norm(self, x_TH: Tensor, y_TH: Tensor, eps: float) -> Tensor:
        """RMS norm, without a weight, of a sum."""
        return self.rms_norm(x_TH + y_TH, None, eps)

    def gate(self, gate_up_TI: Tensor) -> Tensor:
        """GELU (tanh form) of the first half of each row times its second half."""
        gate_TI, up_TI = gate_up_TI.chunk(2, dim=-1)
        return functional.gelu(gate_TI, approximate="tanh") * up_TI

    def heads(
        self, projected_TD: Tensor, heads: Heads, turn: tuple[Tensor, Tensor], slots_T: Tensor, room: Room, eps: float
    ) -> Tensor:
        """Queries T x heads x width; keys and values of token t go to slot `slots_T[t]` of its row in the room.

        `turn` are cosines and sines of the tokens' positions, T x width.
        """
        tokens = len(projected_TD)
        rows = len(room.keys)
        parts_TAW = projected_TD.view(tokens, -1, heads.width)
        q, k, *own = parts_TAW.split(
            [heads.q_heads, heads.kv_heads, *([heads.kv_heads] if heads.own_values else [])], dim=1
        )
        v_TGW = self.rms_norm(own[0] if own else k, None, eps)
        q_TAW = _turned(self.rms_norm(q, heads.q_norm, eps), turn)
        k_TGW = _turned(self.rms_norm(k, heads.k_norm, eps), turn)
        row_T = torch.arange(tokens, device=slots_T.device) // (tokens // rows)
        for kept, new_TGW in ((room.keys, k_TGW), (room.values, v_TGW)):
            kept.transpose(1, 2)[row_T, slots_T.long()] = new_TGW
        return q_TAW

    def attend(self, q_TAW: Tensor, room: Room, lengths_B: Tensor, until_L: Tensor | None = None) -> Tensor:
        """Attention T x (heads x width) over the first `lengths_B` slots and the canvas; the scale is one.

        With `until_L` (int32, of one row) a prompt: each token sees the slots before the one that stands there for it.
        """
        rows, kv_heads, slots, width = room.keys.shape
        canvas = len(q_TAW) // rows
        q_BALW = q_TAW.view(rows, canvas, -1, width).transpose(1, 2)
        at_S = torch.arange(slots, device=q_TAW.device)
        prefix = (at_S < lengths_B.unsqueeze(-1))[:, None, None, :]
        own = (at_S >= room.start) & (at_S < room.start + canvas)
        seen = prefix | own if until_L is None else (at_S < until_L.unsqueeze(-1))[None, None]
        groups = q_BALW.shape[1] // kv_heads
        # Slots that nothing was written to may hold NaN, and zero times NaN is NaN.
        shown_S = seen.any(-2, keepdim=True).transpose(-1, -2)
        keys, values = (
            torch.where(shown_S, kept, 0).repeat_interleave(groups, dim=1) for kept in (room.keys, room.values)
        )
        out_BALW = functional.scaled_dot_product_attention(q_BALW, keys, values, attn_mask=seen, scale=1.0)
        return out_BALW.transpose(1, 2).reshape(len(q_TAW), -1)

    def after_attention(
        self,
        attended_TH: Tensor,
        residual_TH: Tensor,
        norms: tuple[Tensor, Tensor, Tensor],
        router_scale_H: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The residual after attention, and the inputs of shared MLP, experts and router made of it.

        `norms` are the weights after attention, before the MLP, before the experts.
        """
        after_H, mlp_H, experts_H = norms
        hidden_TH = residual_TH + self.rms_norm(attended_TH, after_H, eps)
        router_TH = self.rms_norm(hidden_TH, None, eps) * router_scale_H * hidden_TH.shape[-1] ** -0.5
        return hidden_TH, self.rms_norm(hidden_TH, mlp_H, eps), self.rms_norm(hidden_TH, experts_H, eps), router_TH

    def route(self, scores_TE: Tensor, expert_scale_E: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """Weights (float32) and numbers (int32) of each token's experts, T x K."""
        best_TK, chosen_TK = torch.topk(scores_TE.softmax(-1, dtype=torch.float32), top_k, dim=-1)
        weights_TK = best_TK / best_TK.sum(-1, keepdim=True) * expert_scale_E.float()[chosen_TK]
        return weights_TK, chosen_TK.int()

    def experts(self, x_TH: Tensor, chosen_TK: Tensor, experts: Experts) -> Tensor:
        """What each chosen expert makes of its token, S x H in the order of `chosen_TK`, not yet weighted."""
        chosen_S, order_S = chosen_TK.flatten().sort(stable=True)
        rows_SH = x_TH[order_S // chosen_TK.shape[1]]
        ends_E = torch.searchsorted(
            chosen_S, torch.arange(experts.count, device=x_TH.device, dtype=chosen_S.dtype), right=True
        )
        if x_TH.is_cuda and experts.bits == 16:
            gate_up, down = experts.gate_up.transpose(1, 2), experts.down.transpose(1, 2)
            inner_SI = self.gate(functional.grouped_mm(rows_SH, gate_up, offs=ends_E.int()))
            made_SH = functional.grouped_mm(inner_SI, down, offs=ends_E.int())
        else:
            made_SH = torch.zeros_like(rows_SH)
            begin = 0
            for expert, end in enumerate(ends_E.tolist()):
                if end > begin:
                    made_SH[begin:end] = self._expert(rows_SH[begin:end], experts, expert)
                begin = end
        return torch.empty_like(made_SH).index_copy_(0, order_S, made_SH)

    def _expert(self, rows_SH: Tensor, experts: Experts, expert: int) -> Tensor:
        if experts.bits != 8:
            up, down = experts.widened(rows_SH.dtype, expert)
            return self.gate(rows_SH @ up.T) @ down.T
        # With float8 weights what they are multiplied with is float8 too.
        up, down = experts.widened(torch.float32, expert)
        inner_SI = self.gate(through_float8(rows_SH.float()) @ up.T)
        return (through_float8(inner_SI, INNER_GROUP) @ down.T).to(rows_SH.dtype)

    def combine(
        self, pairs_SH: Tensor, weights_TK: Tensor, mlp_TH: Tensor, residual_TH: Tensor, joint: Joint, eps: float
    ) -> tuple[Tensor, Tensor]:
        """The layer's output, and the normed input of the next layer."""
        tokens, top_k = weights_TK.shape
        weighted = pairs_SH.view(tokens, top_k, -1).float() * weights_TK.unsqueeze(-1)
        experts_TH = self.rms_norm(weighted.sum(1).to(mlp_TH.dtype), joint.experts_H, eps)
        both_TH = self.rms_norm(self.rms_norm(mlp_TH, joint.mlp_H, eps) + experts_TH, joint.sum_H, eps)
        hidden_TH = (residual_TH + both_TH) * joint.scalar
        return hidden_TH, self.rms_norm(hidden_TH, joint.next_H, eps)

    def draw(
        self,
        logits_NV: Tensor,
        temperature_N: Tensor,
        uniform_N: Tensor,
        cap: float,
        banned_V: Tensor,
        uses_ban_N: Tensor,
    ) -> Drawn:
        """Sample each row of raw logits: capped, bans applied where asked for, divided by its temperature.

        `banned_V` and `uses_ban_N` are uint8. A token is drawn by inverting the cumulative distribution at `uniform_N`.
        """
        y_NV = torch.tanh(logits_NV.float() / cap) * cap
        y_NV = y_NV.masked_fill(banned_V.bool() & uses_ban_N.bool().unsqueeze(-1), IMPOSSIBLE)
        log_p_NV = torch.log_softmax(y_NV / temperature_N.unsqueeze(-1), dim=-1)
        p_NV = log_p_NV.exp()
        cumulative_NV = p_NV.cumsum(-1)
        total_N1 = cumulative_NV[:, -1:]
        below_N1 = torch.minimum(
            uniform_N.unsqueeze(-1) * total_N1, torch.nextafter(total_N1, torch.zeros_like(total_N1))
        )
        token_N = torch.searchsorted(cumulative_NV, below_N1, right=True).squeeze(-1).clamp(max=p_NV.shape[-1] - 1)
        return Drawn(
            token_N,
            y_NV.argmax(-1),
            -(p_NV * log_p_NV).sum(-1),
            p_NV.to(logits_NV.dtype),
            torch.ones_like(total_N1),
            p_NV.shape[1],
        )

    def expected(self, drawn: Drawn, embedding_VH: Tensor) -> Tensor:
        """The embedding that is expected under these probabilities, N x H, not yet times the model's own scale."""
        return drawn.probabilities() @ embedding_VH


def _turned(x_TAW: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cosine_T1W, sine_T1W = (part.unsqueeze(1) for part in turn)
    low, high = x_TAW.chunk(2, dim=-1)
    return x_TAW * cosine_T1W + torch.cat((-high, low), dim=-1) * sine_T1W
