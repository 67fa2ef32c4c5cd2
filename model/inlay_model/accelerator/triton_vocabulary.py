"""Sampling over the vocabulary in three passes: statistics of chunks, one row's decision, probabilities.

The raw logits are read twice and the probabilities written once; nothing of size rows x vocabulary lies in between. The
random number of a row comes from outside, so that a captured graph draws what its request's generator says.
What limits these kernels are exponentials and reciprocals, so no number is divided by what a whole row has in common.
"""

import triton
import triton.language as tl


@triton.jit
def _processed(logits, row, at, valid, temperature, cap, banned, uses_ban):
    raw = tl.load(logits + row + at, valid, 0.0).to(tl.float32)
    # The hyperbolic tangent by one exponential: the same to 4e-6 after the cap.
    y = cap - 2.0 * cap / (tl.exp(raw * (2.0 / cap)) + 1.0)
    ban = tl.load(banned + at, valid & uses_ban, 0) != 0
    y = tl.where(ban, -1.0e4, y) * (1.0 / temperature)
    return tl.where(valid, y, -float("inf"))


@triton.jit
def chunk_kernel(
    logits, temperatures, banned, uses_ban, most, mass, moment, best, cap, size, chunks, block: tl.constexpr
):
    """Of one chunk of one row: largest value, sum of exponentials, their first moment, place of the largest."""
    n = tl.program_id(0)
    chunk = tl.program_id(1)
    at = chunk * block + tl.arange(0, block)
    valid = at < size
    ban = tl.load(uses_ban + n) != 0
    y = _processed(logits, n.to(tl.int64) * size, at, valid, tl.load(temperatures + n), cap, banned, ban)
    top = tl.max(y, 0)
    above = tl.where(valid, y - top, 0.0)
    e = tl.where(valid, tl.exp(above), 0.0)
    place = n * chunks + chunk
    tl.store(most + place, top)
    tl.store(mass + place, tl.sum(e, 0))
    tl.store(moment + place, tl.sum(e * above, 0))
    tl.store(best + place, tl.min(tl.where(y == top, at, size - 1), 0))


@triton.jit
def decide_kernel(
    logits,
    temperatures,
    banned,
    uses_ban,
    most,
    mass,
    moment,
    best,
    uniform,
    token,
    argmax,
    entropy,
    normaliser,
    cap,
    size,
    chunks,
    chunks_block: tl.constexpr,
    block: tl.constexpr,
):
    """One row's token by inversion of its cumulative distribution, its most likely token, its entropy in nats."""
    n = tl.program_id(0)
    c = tl.arange(0, chunks_block)
    there = c < chunks
    tops = tl.load(most + n * chunks + c, there, -float("inf"))
    top = tl.max(tops, 0)
    shrink = tl.where(there, tl.exp(tops - top), 0.0)
    masses = tl.load(mass + n * chunks + c, there, 0.0) * shrink
    total = tl.sum(masses, 0)
    moments = tl.load(moment + n * chunks + c, there, 0.0) * shrink + tl.where(there, tops - top, 0.0) * masses
    tl.store(entropy + n, tl.log(total) - tl.sum(moments, 0) / total)
    tl.store(normaliser + n, top + tl.log(total))
    first = tl.min(tl.where(tops == top, c, chunks_block - 1), 0)
    tl.store(argmax + n, tl.load(best + n * chunks + tl.minimum(first, chunks - 1)).to(tl.int64))
    target = tl.load(uniform + n) * total
    reached = tl.cumsum(masses, 0)
    chunk = tl.minimum(tl.sum(((reached <= target) & there).to(tl.int32), 0), chunks - 1)
    before = tl.sum(tl.where(c < chunk, masses, 0.0), 0)
    at = chunk * block + tl.arange(0, block)
    valid = at < size
    ban = tl.load(uses_ban + n) != 0
    y = _processed(logits, n.to(tl.int64) * size, at, valid, tl.load(temperatures + n), cap, banned, ban)
    p = tl.where(valid, tl.exp(y - top), 0.0)
    below = (tl.cumsum(p, 0) + before <= target) & valid
    # Rounding may leave the target beyond the last of them: then it is the last that is possible at all.
    last = tl.max(tl.where(p > 0.0, at, chunk * block), 0)
    tl.store(token + n, tl.minimum(chunk * block + tl.sum(below.to(tl.int32), 0), last).to(tl.int64))


@triton.jit
def probabilities_kernel(logits, temperatures, banned, uses_ban, normaliser, out, cap, size, block: tl.constexpr):
    """Probabilities of one chunk of one row, in the dtype of the embedding that they will weigh."""
    n = tl.program_id(0)
    at = tl.program_id(1) * block + tl.arange(0, block)
    valid = at < size
    row = n.to(tl.int64) * size
    ban = tl.load(uses_ban + n) != 0
    y = _processed(logits, row, at, valid, tl.load(temperatures + n), cap, banned, ban)
    tl.store(out + row + at, tl.exp(y - tl.load(normaliser + n)).to(out.dtype.element_ty), valid)
