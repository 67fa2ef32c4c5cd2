"""Sampling over the vocabulary in two passes: one over all of it, and one row's decision.

The raw logits are read once and the probabilities written once, each chunk of the vocabulary as multiples of its
likeliest word: what they are to be multiplied with is known when all chunks are through, and is applied where they
are used. The random number of a row comes from outside, so that a captured graph draws what its request's generator
says. What limits these kernels is arithmetic, so nothing is computed for words that no chunk lacks or bans.
"""

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _chunk(logits, temperatures, banned, uses_ban, n, chunk, cap, size, block: tl.constexpr, even: tl.constexpr):
    """A chunk of row n: its words, which of them there are, and their logits as probabilities are made of them.

    Capped, banned, divided by the temperature, in powers of two; nothing is possible beyond the vocabulary.
    """
    at = chunk * block + tl.arange(0, block)
    valid = at < size
    bans = tl.load(uses_ban + n) != 0
    warmth = _LOG2_E / tl.load(temperatures + n)
    place = logits + n.to(tl.int64) * size + at
    raw = tl.load(place, None if even else valid, None if even else 0.0).to(tl.float32)
    # The hyperbolic tangent by one exponential: the same to 4e-6 after the cap.
    y = cap - 2.0 * cap / (tl.exp2(raw * (2.0 * _LOG2_E / cap)) + 1.0)
    if bans:
        y = tl.where(tl.load(banned + at, valid, 0) != 0, -1.0e4, y)
    y = y * warmth
    return at, valid, y if even else tl.where(valid, y, -float("inf"))


@triton.jit
def chunk_kernel(
    logits,
    temperatures,
    banned,
    uses_ban,
    most,
    mass,
    moment,
    best,
    p,
    cap,
    size,
    chunks,
    block: tl.constexpr,
    even: tl.constexpr,
):
    """Of one chunk of one row: largest value, sum of exponentials, their first moment, place of the largest.

    The exponentials themselves, over that of the largest, go to `p` in the dtype of the embedding they will weigh.
    """
    n = tl.program_id(0)
    chunk = tl.program_id(1)
    at, valid, y = _chunk(logits, temperatures, banned, uses_ban, n, chunk, cap, size, block, even)
    top = tl.max(y, 0)
    above = y - top
    e = tl.exp2(above)
    tl.store(p + n.to(tl.int64) * size + at, e.to(p.dtype.element_ty), None if even else valid)
    if not even:
        above = tl.where(valid, above, 0.0)
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
    scale,
    cap,
    size,
    chunks,
    chunks_block: tl.constexpr,
    block: tl.constexpr,
    even: tl.constexpr,
):
    """One row's token by inversion of its cumulative distribution, its most likely token, its entropy in nats.

    `scale` gets what makes probabilities of each chunk's exponentials.
    """
    n = tl.program_id(0)
    c = tl.arange(0, chunks_block)
    there = c < chunks
    tops = tl.load(most + n * chunks + c, there, -float("inf"))
    top = tl.max(tops, 0)
    shrink = tl.where(there, tl.exp2(tops - top), 0.0)
    masses = tl.load(mass + n * chunks + c, there, 0.0) * shrink
    total = tl.sum(masses, 0)
    moments = tl.load(moment + n * chunks + c, there, 0.0) * shrink + tl.where(there, tops - top, 0.0) * masses
    tl.store(entropy + n, tl.log(total) - tl.sum(moments, 0) / total * _LN_2)
    tl.store(scale + n * chunks + c, shrink / total, there)
    first = tl.min(tl.where(tops == top, c, chunks_block - 1), 0)
    tl.store(argmax + n, tl.load(best + n * chunks + tl.minimum(first, chunks - 1)).to(tl.int64))
    target = tl.load(uniform + n) * total
    reached = tl.cumsum(masses, 0)
    chunk = tl.minimum(tl.sum(((reached <= target) & there).to(tl.int32), 0), chunks - 1)
    before = tl.sum(tl.where(c < chunk, masses, 0.0), 0)
    at, valid, y = _chunk(logits, temperatures, banned, uses_ban, n, chunk, cap, size, block, even)
    e = tl.exp2(y - top)
    below = (tl.cumsum(e, 0) + before <= target) & valid
    # Rounding may leave the target beyond the last of them: then it is the last that is possible at all.
    last = tl.max(tl.where(e > 0.0, at, chunk * block), 0)
    tl.store(token + n, tl.minimum(chunk * block + tl.sum(below.to(tl.int32), 0), last).to(tl.int64))


@triton.jit
def weigh_kernel(parts, scale, out, rows, width: tl.constexpr, chunks: tl.constexpr, block: tl.constexpr):
    """A row's parts of each chunk (chunks x rows x width), times the chunk's scale, added up in order."""
    n = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    total = tl.zeros((block,), tl.float32)
    for chunk in range(chunks):
        part = tl.load(parts + (chunk * rows + n) * width + at, inside, 0.0).to(tl.float32)
        total += part * tl.load(scale + n * chunks + chunk)
    tl.store(out + n * width + at, total.to(out.dtype.element_ty), inside)
