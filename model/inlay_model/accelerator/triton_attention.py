"""Attention of a canvas over a prefix and itself, or of a prompt over its own beginning, with shared key heads.

Keys lie in a fixed room: the prefix in the first slots (as many as `lengths` says), the canvas from slot `start` on.
So one captured graph serves prefixes of every length, and only the slots in use are read.
"""

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _attended(
    acc,
    most,
    total,
    q,
    keys,
    values,
    first,
    end,
    until,
    width,
    block_n: tl.constexpr,
    depth: tl.constexpr,
):
    # As PyTorch multiplies float32; of narrower numbers it says nothing.
    precision: tl.constexpr = "ieee" if q.dtype == tl.float32 else "tf32"
    at = first + tl.arange(0, block_n)
    wide = tl.arange(0, depth)
    valid = at < end
    key = tl.load(keys + at[None, :].to(tl.int64) * width + wide[:, None], valid[None, :], 0.0)
    scores = tl.dot(q, key, input_precision=precision) * _LOG2E
    seen = at[None, :] < until[:, None]
    scores = tl.where(seen, scores, -1.0e30)
    higher = tl.maximum(most, tl.max(scores, 1))
    shrink = tl.exp2(most - higher)
    p = tl.where(seen, tl.exp2(scores - higher[:, None]), 0.0)
    total = total * shrink + tl.sum(p, 1)
    value = tl.load(values + at[:, None].to(tl.int64) * width + wide[None, :], valid[:, None], 0.0)
    acc = tl.dot(p.to(value.dtype), value, acc * shrink[:, None], input_precision=precision)
    return acc, higher, total


@triton.jit
def attend_kernel(
    q,
    keys,
    values,
    lengths,
    until,
    out,
    canvas,
    start,
    room,
    q_heads: tl.constexpr,
    kv_heads: tl.constexpr,
    depth: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    bounded: tl.constexpr,
):
    """Program (block of queries, head, row of the batch).

    With `bounded` a prompt: each token sees the slots before the one that `until` says for it.
    Slots beyond those in use are never read: what stands there may be no number.
    """
    row = tl.program_id(2).to(tl.int64)
    head = tl.program_id(1)
    at = tl.program_id(0) * block_m + tl.arange(0, block_m)
    wide = tl.arange(0, depth)
    place = ((row * canvas + at[:, None]) * q_heads + head) * depth + wide[None, :]
    query = tl.load(q + place, at[:, None] < canvas, 0.0)
    base = (row * kv_heads + head // (q_heads // kv_heads)) * room * depth
    keys += base
    values += base
    acc = tl.zeros((block_m, depth), tl.float32)
    most = tl.full((block_m,), -1.0e30, tl.float32)
    total = tl.zeros((block_m,), tl.float32)
    if bounded:
        sees = tl.load(until + at, at < canvas, 0)
        length = tl.max(sees, 0)
        for first in range(0, length, block_n):
            acc, most, total = _attended(
                acc, most, total, query, keys, values, first, length, sees, depth, block_n, depth
            )
    else:
        length = tl.load(lengths + row)
        sees = tl.zeros((block_m,), tl.int32) + length
        for first in range(0, length, block_n):
            acc, most, total = _attended(
                acc, most, total, query, keys, values, first, length, sees, depth, block_n, depth
            )
        sees = tl.zeros((block_m,), tl.int32) + start + canvas
        for first in range(start, start + canvas, block_n):
            acc, most, total = _attended(
                acc, most, total, query, keys, values, first, start + canvas, sees, depth, block_n, depth
            )
    # A query that may see nothing (padding) is given zeros.
    acc /= tl.maximum(total, 1.0e-30)[:, None]
    tl.store(out + place, acc.to(out.dtype.element_ty), at[:, None] < canvas)
