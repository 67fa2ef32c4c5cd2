"""A mixture of experts computed densely: every expert sees every token, the router's weights choose.

For a handful of small experts this is faster than sorting tokens by expert, needs no synchronisation with the host
and compiles; the result is that of the library's own code to rounding. For the 26B model's 128 experts it would be
sixteen times the work, so it is chosen only where experts are few.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

NAME = "dense"
MOST_EXPERTS = 16


def dense_experts(experts: Any, hidden_NH: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """Experts' weighted output, shape (N, H), for N tokens of width H and K chosen experts each."""
    count = experts.num_experts
    weights_NE = hidden_NH.new_zeros(len(hidden_NH), count).scatter(1, chosen_NK, weights_NK.to(hidden_NH.dtype))
    gate_ENI, up_ENI = (hidden_NH @ experts.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)
    inner_ENI = experts.act_fn(gate_ENI) * up_ENI * weights_NE.t().unsqueeze(-1)
    inner_NEI = inner_ENI.transpose(0, 1).flatten(1)
    output_NH: Tensor = inner_NEI @ experts.down_proj.transpose(1, 2).flatten(0, 1)
    return output_NH.to(hidden_NH.dtype)


def use_dense_experts(model: Any) -> bool:
    """Choose dense experts for a model whose experts are few; returns whether it did."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    text = model.config.get_text_config()
    if (text.num_experts or 0) > MOST_EXPERTS:
        return False
    ALL_EXPERTS_FUNCTIONS.register(NAME, dense_experts)
    # The public setter asks a list that knows no registered implementation.
    text._experts_implementation_internal = NAME  # noqa: SLF001
    return True
