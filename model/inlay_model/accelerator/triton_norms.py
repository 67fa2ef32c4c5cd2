"""Kernels over one row of hidden states: norms with their residuals, the norms and rotary embedding of heads, gating.

They round to the model's dtype where transformers' modules do, so that the difference is that of summation order alone.
Every program owns its row: no atomics, the same result each time.
"""

import triton
import triton.language as tl


@triton.jit
def _normed(x, width: tl.constexpr, eps):
    return x * tl.rsqrt(tl.sum(x * x, 0) / width + eps)


@triton.jit
def rms_norm_kernel(x, weight, out, eps, width: tl.constexpr, block: tl.constexpr, has_weight: tl.constexpr):
    """RMS norm of each row, times a weight where there is one."""
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, block)
    inside = at < width
    normed = _normed(tl.load(x + row + at, inside, 0.0).to(tl.float32), width, eps)
    if has_weight:
        normed *= tl.load(weight + at, inside, 0.0).to(tl.float32)
    tl.store(out + row + at, normed.to(out.dtype.element_ty), inside)


@triton.jit
def add_norm_kernel(x, y, out, eps, width: tl.constexpr, block: tl.constexpr):
    """RMS norm (no weight) of the sum of two rows."""
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, block)
    inside = at < width
    total = tl.load(x + row + at, inside, 0.0).to(tl.float32) + tl.load(y + row + at, inside, 0.0).to(tl.float32)
    total = total.to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row + at, _normed(total, width, eps).to(out.dtype.element_ty), inside)


@triton.jit
def after_attention_kernel(
    attended,
    residual,
    w_post,
    w_mlp,
    w_experts,
    router_scale,
    hidden,
    mlp_in,
    experts_in,
    router_in,
    root,
    eps,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """Residual after attention, and the three inputs that are made of it: shared MLP, experts, router."""
    kind = hidden.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, block)
    inside = at < width
    normed = _normed(tl.load(attended + row + at, inside, 0.0).to(tl.float32), width, eps)
    normed = (normed * tl.load(w_post + at, inside, 0.0).to(tl.float32)).to(kind).to(tl.float32)
    total = (normed + tl.load(residual + row + at, inside, 0.0).to(tl.float32)).to(kind)
    tl.store(hidden + row + at, total, inside)
    normed = _normed(total.to(tl.float32), width, eps)
    tl.store(mlp_in + row + at, (normed * tl.load(w_mlp + at, inside, 0.0).to(tl.float32)).to(kind), inside)
    tl.store(experts_in + row + at, (normed * tl.load(w_experts + at, inside, 0.0).to(tl.float32)).to(kind), inside)
    scaled = normed.to(kind).to(tl.float32) * tl.load(router_scale + at, inside, 0.0).to(tl.float32)
    tl.store(router_in + row + at, (scaled.to(kind).to(tl.float32) * root).to(kind), inside)


@triton.jit
def combine_kernel(
    pairs,
    chosen_weights,
    mlp,
    residual,
    w_mlp,
    w_experts,
    w_post,
    scalar,
    w_next,
    hidden,
    next_in,
    eps,
    width: tl.constexpr,
    block: tl.constexpr,
    top_k: tl.constexpr,
):
    """Sum of a token's experts, joined with shared MLP and residual, and the norm that the next layer begins with."""
    kind = hidden.dtype.element_ty
    token = tl.program_id(0).to(tl.int64)
    row = token * width
    at = tl.arange(0, block)
    inside = at < width
    experts = tl.zeros((block,), tl.float32)
    for k in tl.static_range(top_k):
        weight = tl.load(chosen_weights + token * top_k + k)
        experts += weight * tl.load(pairs + (token * top_k + k) * width + at, inside, 0.0).to(tl.float32)
    experts = _normed(experts.to(kind).to(tl.float32), width, eps)
    experts = (experts * tl.load(w_experts + at, inside, 0.0).to(tl.float32)).to(kind).to(tl.float32)
    shared = _normed(tl.load(mlp + row + at, inside, 0.0).to(tl.float32), width, eps)
    shared = (shared * tl.load(w_mlp + at, inside, 0.0).to(tl.float32)).to(kind).to(tl.float32)
    both = _normed((shared + experts).to(kind).to(tl.float32), width, eps)
    both = (both * tl.load(w_post + at, inside, 0.0).to(tl.float32)).to(kind).to(tl.float32)
    total = (tl.load(residual + row + at, inside, 0.0).to(tl.float32) + both).to(kind).to(tl.float32)
    total = (total * tl.load(scalar).to(tl.float32)).to(kind)
    tl.store(hidden + row + at, total, inside)
    normed = _normed(total.to(tl.float32), width, eps) * tl.load(w_next + at, inside, 0.0).to(tl.float32)
    tl.store(next_in + row + at, normed.to(kind), inside)


@triton.jit
def gate_kernel(gate_up, out, size, width: tl.constexpr, block: tl.constexpr):
    """GELU (tanh form) of the first half of a row times its second half."""
    kind = out.dtype.element_ty
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < size
    row = (at // width).to(tl.int64)
    column = at % width
    gate = tl.load(gate_up + row * 2 * width + column, inside, 0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, inside, 0.0).to(tl.float32)
    gate = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    tl.store(out + at, (gate.to(kind).to(tl.float32) * up).to(kind), inside)


@triton.jit
def heads_kernel(
    projected,
    q_weight,
    k_weight,
    cosines,
    sines,
    slots,
    q,
    keys,
    values,
    eps,
    canvas,
    room,
    columns: tl.constexpr,
    q_heads: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    own_values: tl.constexpr,
    group: tl.constexpr,
):
    """Some heads of one token out of the joint projection: normed, turned, and written where attention reads them.

    Program (token, group of heads); heads are q, then k, then (own_values) v. Without own values the values are the
    keys before norm and turn. Keys and values go to their cache: rows of the batch, heads, `room` slots, `width`.
    """
    kind = q.dtype.element_ty
    token = tl.program_id(0)
    head = tl.program_id(1) * group + tl.arange(0, group)
    half: tl.constexpr = width // 2
    at = tl.arange(0, block)
    inside = at < half
    there = (head < columns // width)[:, None] & inside[None, :]
    source = projected + token.to(tl.int64) * columns + head[:, None] * width + at[None, :]
    low = tl.load(source, there, 0.0).to(tl.float32)
    high = tl.load(source + half, there, 0.0).to(tl.float32)
    rate = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / width + eps)[:, None]
    low *= rate
    high *= rate
    is_query = (head < q_heads)[:, None] & there
    is_key = ((head >= q_heads) & (head < q_heads + kv_heads))[:, None] & there
    slot = tl.load(slots + token)
    kv_head = (head - q_heads) % kv_heads
    target = (((token // canvas).to(tl.int64) * kv_heads + kv_head) * room + slot)[:, None] * width + at[None, :]
    is_value = ((head >= q_heads + kv_heads)[:, None] & there) if own_values else is_key
    tl.store(values + target, low.to(kind), is_value)
    tl.store(values + target + half, high.to(kind), is_value)
    low *= _of_kind(q_weight, k_weight, is_key, at, inside)
    high *= _of_kind(q_weight + half, k_weight + half, is_key, at, inside)
    low = low.to(kind).to(tl.float32)
    high = high.to(kind).to(tl.float32)
    turn = token.to(tl.int64) * width + at
    turned_low = low * tl.load(cosines + turn, inside, 0.0).to(tl.float32)[None, :]
    turned_low -= high * tl.load(sines + turn, inside, 0.0).to(tl.float32)[None, :]
    turned_high = high * tl.load(cosines + turn + half, inside, 0.0).to(tl.float32)[None, :]
    turned_high += low * tl.load(sines + turn + half, inside, 0.0).to(tl.float32)[None, :]
    tl.store(keys + target, turned_low.to(kind), is_key)
    tl.store(keys + target + half, turned_high.to(kind), is_key)
    place = q + (token.to(tl.int64) * q_heads + head)[:, None] * width + at[None, :]
    tl.store(place, turned_low.to(kind), is_query)
    tl.store(place + half, turned_high.to(kind), is_query)


@triton.jit
def _of_kind(q_weight, k_weight, is_key, at, inside):
    ours = tl.load(q_weight + at, inside, 0.0).to(tl.float32)[None, :]
    theirs = tl.load(k_weight + at, inside, 0.0).to(tl.float32)[None, :]
    return tl.where(is_key, theirs, ours)
