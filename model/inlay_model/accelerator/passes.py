"""The lean passes: a prompt into keys and values, a canvas into hidden states, hidden states into a step.

Only tensors go in and come out, nothing waits for the device and no shape depends on data: so each pass can be captured
in a graph. What is computed is what `DiffusionGemmaForBlockDiffusion` computes, with the locks of `inlay_model.step`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from inlay_model.accelerator.reference import Joint, Reference, Room
from inlay_model.accelerator.weights import Layer, Weights
from inlay_model.step import accept, outlook

Turn = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of a pass stand: slots in the rooms, turns by kind of layer (sliding, full), prefix lengths.

    `until_L` is given for prompts only: how many slots each token sees. A canvas sees its whole prefix and itself.
    """

    slots_T: Tensor
    turns: dict[bool, Turn]
    lengths_B: Tensor
    until_L: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Free:
    """The free positions of a batch, padded to N: where to read (padding: token 0) and write (padding: behind all)."""

    read_N: Tensor
    write_N: Tensor


@dataclass(frozen=True, slots=True)
class Rule:
    """How to take one step: per row temperature, entropy bound and whether bans hold; random numbers; the locks.

    `before_BL` is the argmax of the step before, for the outlook.
    """

    temperature_B: Tensor
    bound_B: Tensor
    uses_ban_B: Tensor
    banned_V: Tensor
    uniform_N: Tensor
    renoise_BL: Tensor
    ids_BL: Tensor
    locked_BL: Tensor
    before_BL: Tensor


@dataclass(frozen=True, slots=True)
class Taken:
    """A step taken: next canvas, emitted argmax, accepted positions, entropies, outlook, what the next step is told."""

    canvas_BL: Tensor
    argmax_BL: Tensor
    accepted_BL: Tensor
    entropy_BL: Tensor
    outlook_B3: Tensor
    told_BLH: Tensor


class Beside:
    """Runs one piece of work beside another: on a second stream of a GPU, in turn elsewhere."""

    def __init__(self, device: torch.device, *, apart: bool) -> None:
        self._stream = torch.cuda.Stream(device) if apart and device.type == "cuda" else None

    def both(self, aside: Callable[[], Tensor], ahead: Callable[[], Any]) -> tuple[Tensor, Any]:
        """Results of both; neither may use what the other makes."""
        if self._stream is None:
            return aside(), ahead()
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            first = aside()
        second = ahead()
        here.wait_stream(self._stream)
        return first, second


@dataclass(frozen=True, slots=True)
class Machine:
    """What every pass needs: weights, kernels, and whether shared MLP and experts run beside each other."""

    weights: Weights
    kernels: Reference
    beside: Beside


def encode_pass(machine: Machine, embedded_TH: Tensor, rooms: Sequence[Room], places: Places) -> None:
    """Write keys and values of a prompt into the rooms, layer by layer. One row; padding goes to slots nobody reads."""
    weights, kernels = machine.weights, machine.kernels
    hidden_TH = embedded_TH
    normed_TH = kernels.rms_norm(hidden_TH, weights.layers[0].input_norm, weights.eps)
    last = len(weights.layers) - 1
    for number, (layer, room) in enumerate(zip(weights.layers, rooms, strict=True)):
        if number == last:
            # Its keys and values are all that is asked of the last layer.
            kernels.heads(
                linear(normed_TH, layer.projection),
                layer.heads,
                places.turns[layer.sliding],
                places.slots_T,
                room,
                weights.eps,
            )
            return
        following = weights.layers[number + 1].input_norm
        hidden_TH, normed_TH = _layer(
            machine, layer, (hidden_TH, normed_TH), room, places, layer.encoder_scalar, following
        )


def decode_pass(machine: Machine, canvas_BL: Tensor, told_BLH: Tensor, rooms: Sequence[Room], places: Places) -> Tensor:
    """Normed hidden states T x H of the canvases, each reading its prefix in the rooms and being told `told_BLH`."""
    weights, kernels = machine.weights, machine.kernels
    embedded_TH = embedding(canvas_BL.flatten(), weights.embedding) * weights.embed_scale
    normed_TH = kernels.rms_norm(told_BLH.flatten(0, 1), weights.told_norm, weights.eps)
    signal_TH = linear(kernels.gate(linear(normed_TH, weights.told_up)), weights.told_down)
    hidden_TH = kernels.add_norm(embedded_TH, signal_TH, weights.eps)
    normed_TH = kernels.rms_norm(hidden_TH, weights.layers[0].input_norm, weights.eps)
    following = [*(layer.input_norm for layer in weights.layers[1:]), weights.final_norm]
    for layer, room, norm in zip(weights.layers, rooms, following, strict=True):
        hidden_TH, normed_TH = _layer(machine, layer, (hidden_TH, normed_TH), room, places, layer.decoder_scalar, norm)
    return normed_TH


def logits_pass(machine: Machine, normed_TH: Tensor, free: Free) -> Tensor:
    """Raw logits N x V at the free positions, before the cap."""
    return linear(normed_TH[free.read_N], machine.weights.embedding)


def capped(machine: Machine, logits_NV: Tensor) -> Tensor:
    """Logits in float32 as the model gives them."""
    cap = machine.weights.cap
    return torch.tanh(logits_NV.float() / cap) * cap


def step_pass(machine: Machine, logits_NV: Tensor, free: Free, rule: Rule) -> Taken:
    """One denoising step from raw logits: the twin of `inlay_model.step.denoise` and `self_conditioning`."""
    rows, length = rule.ids_BL.shape
    row_N = free.read_N // length
    drawn = machine.kernels.draw(
        logits_NV,
        rule.temperature_B[row_N],
        rule.uniform_N,
        machine.weights.cap,
        rule.banned_V,
        rule.uses_ban_B[row_N],
    )
    free_BL = ~rule.locked_BL
    entropy_BL = _spread(drawn.entropy_N, free, logits_NV.new_zeros(rows * length, dtype=torch.float32), rows)
    bound: Any = rule.bound_B.unsqueeze(-1)
    accepted_BL = accept(entropy_BL, free_BL, bound)
    sampled_BL = _spread(drawn.token_N, free, rule.renoise_BL.flatten(), rows)
    argmax_BL = torch.where(rule.locked_BL, rule.ids_BL, _spread(drawn.argmax_N, free, rule.ids_BL.flatten(), rows))
    mixed_BL = torch.where(accepted_BL, sampled_BL, rule.renoise_BL)
    soft_NH = machine.kernels.expected(drawn, machine.weights.embedding) * machine.weights.embed_scale
    certain_TH = embedding(rule.ids_BL.flatten(), machine.weights.embedding) * machine.weights.embed_scale
    return Taken(
        canvas_BL=torch.where(rule.locked_BL, rule.ids_BL, mixed_BL),
        argmax_BL=argmax_BL,
        accepted_BL=accepted_BL,
        entropy_BL=entropy_BL,
        outlook_B3=outlook(argmax_BL, rule.before_BL, accepted_BL, entropy_BL, rule.locked_BL),
        told_BLH=_spread(soft_NH, free, certain_TH, rows),
    )


def _spread(values_N: Tensor, free: Free, onto_T: Tensor, rows: int) -> Tensor:
    """The values at their free positions over what stands there otherwise, B x L (x H)."""
    roomy = torch.cat((onto_T, onto_T[:1]))
    roomy.index_copy_(0, free.write_N, values_N.to(roomy.dtype))
    return roomy[:-1].view(rows, -1, *roomy.shape[1:])


def _layer(
    machine: Machine,
    layer: Layer,
    state: tuple[Tensor, Tensor],
    room: Room,
    places: Places,
    scalar: Tensor,
    next_norm: Tensor,
) -> tuple[Tensor, Tensor]:
    kernels, eps = machine.kernels, machine.weights.eps
    hidden_TH, normed_TH = state
    q_TAW = kernels.heads(
        linear(normed_TH, layer.projection), layer.heads, places.turns[layer.sliding], places.slots_T, room, eps
    )
    attended_TH = linear(kernels.attend(q_TAW, room, places.lengths_B, places.until_L), layer.out)
    residual_TH, mlp_in_TH, experts_in_TH, router_in_TH = kernels.after_attention(
        attended_TH, hidden_TH, layer.middle_norms, layer.router_scale, eps
    )

    def shared() -> Tensor:
        return linear(kernels.gate(linear(mlp_in_TH, layer.mlp_up)), layer.mlp_down)

    def chosen() -> tuple[Tensor, Tensor]:
        weights_TK, chosen_TK = kernels.route(
            linear(router_in_TH, layer.router), layer.expert_scale, machine.weights.top_k
        )
        return weights_TK, kernels.experts(experts_in_TH, chosen_TK, layer.experts)

    mlp_TH, (weights_TK, pairs_SH) = machine.beside.both(shared, chosen)
    mlp_norm, experts_norm, sum_norm = layer.end_norms
    joint = Joint(mlp_norm, experts_norm, sum_norm, scalar, next_norm)
    return kernels.combine(pairs_SH, weights_TK, mlp_TH, residual_TH, joint, eps)
