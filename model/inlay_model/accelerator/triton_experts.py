"""The mixture of experts with few rows per expert: routing, grouping, and two matmuls that read every weight once.

With 256 tokens and 8 of 128 experts each, an expert sees about 16 rows: the time is that of streaming its weights from
memory. Rows are sorted by expert into blocks of `rows`; an expert with more rows than a block has several blocks, so no
capacity is ever exceeded. Programs own their outputs: no atomics, the same result each time.
Weights are bfloat16, float8 (e4m3, a scale per output channel) or 4 bits (two per byte, a scale per 32 inputs). With
float8 weights the rows are float8 too: widening the weights costs more than reading them. A row that goes in has one
scale, a row between the projections one per `packing.INNER_GROUP` channels, which is what one program makes of it.
"""

import triton
import triton.language as tl

from inlay_model.accelerator.packing import E4M3_MOST

_MOST = tl.constexpr(E4M3_MOST)
# Adding and subtracting it rounds to multiples of 2^-9, the step of e4m3 below its least normal number, 2^-6.
_MAGIC = tl.constexpr(1.5 * 2**14)


@triton.jit
def _rounded(x):
    # Rounded to e4m3's three bits, ties to even, before the conversion, which is then exact: Triton's interpreter
    # truncates.
    bits = x.to(tl.int32, bitcast=True)
    bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
    # Counting up the bits of what is no number would make a number of it.
    bits = tl.where(x == x, bits, 0x7FF00000)  # noqa: PLR0124 - only NaN differs from itself
    fine = (x + _MAGIC) - _MAGIC
    return tl.where(tl.abs(x) < 0.015625, fine, bits.to(tl.float32, bitcast=True)).to(tl.float8e4nv)


@triton.jit
def float8_kernel(x, out, scales, width: tl.constexpr, block: tl.constexpr):
    """A row in float8, and the scale that makes its largest magnitude the largest number of float8."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    wide = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(wide), 0) / _MOST, 1.0e-12)
    tl.store(out + row * width + at, _rounded(wide / scale), inside)
    tl.store(scales + row, scale)


@triton.jit
def route_kernel(scores, expert_scale, weights, chosen, experts, block: tl.constexpr, top_k: tl.constexpr):
    """Softmax over the experts' scores, the best k, their weights normalised and times each expert's own scale."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    slot = tl.arange(0, top_k)
    score = tl.load(scores + token * experts + at, at < experts, -float("inf")).to(tl.float32)
    p = tl.exp(score - tl.max(score, 0))
    p = tl.where(at < experts, p / tl.sum(p, 0), -1.0)
    best = tl.zeros((top_k,), tl.float32)
    who = tl.zeros((top_k,), tl.int32)
    for k in tl.static_range(top_k):
        top = tl.max(p, 0)
        # The lowest number of equals, as a stable sort would have it.
        index = tl.min(tl.where(p == top, at, block - 1), 0)
        best = tl.where(slot == k, top, best)
        who = tl.where(slot == k, index, who)
        p = tl.where(at == index, -1.0, p)
    best = best / tl.sum(best, 0) * tl.load(expert_scale + who).to(tl.float32)
    tl.store(weights + token * top_k + slot, best)
    tl.store(chosen + token * top_k + slot, who)


@triton.jit
def group_kernel(
    chosen,
    pairs,
    block_expert,
    count,
    blocks,
    rows: tl.constexpr,
    experts: tl.constexpr,
    chunk: tl.constexpr,
    tail: tl.constexpr,
):
    """Sort token-expert pairs into blocks of `rows` by expert; program e writes the blocks of expert e.

    `pairs` gets the number of each pair (token * k + slot), `count` where a block has no more of them; `block_expert`
    the expert of each block, -1 after the last one. `experts` is the next power of two.
    """
    expert = tl.program_id(0)
    numbers = tl.arange(0, experts)
    sizes = tl.zeros((experts,), tl.int32)
    for first in range(0, count, chunk):
        at = first + tl.arange(0, chunk)
        ids = tl.load(chosen + at, at < count, 0)
        sizes += tl.histogram(ids, experts)
        # Beyond the end of the list zeros were counted.
        sizes -= tl.where(numbers == 0, tl.sum((at >= count).to(tl.int32), 0), 0)
    needed = (sizes + rows - 1) // rows
    begins = tl.cumsum(needed, 0) - needed
    begin = tl.sum(tl.where(numbers == expert, begins, 0), 0)
    size = tl.sum(tl.where(numbers == expert, sizes, 0), 0)
    mine = tl.sum(tl.where(numbers == expert, needed, 0), 0)
    running = 0
    for first in range(0, count, chunk):
        at = first + tl.arange(0, chunk)
        hit = (tl.load(chosen + at, at < count, -1) == expert).to(tl.int32)
        rank = running + tl.cumsum(hit, 0) - 1
        tl.store(pairs + begin * rows + rank, at, hit != 0)
        running += tl.sum(hit, 0)
    rest = size + tl.arange(0, rows)
    tl.store(pairs + begin * rows + rest, tl.full((rows,), 0, tl.int32) + count, rest < mine * rows)
    for first in range(0, mine, tail):
        at = first + tl.arange(0, tail)
        tl.store(block_expert + begin + at, tl.full((tail,), 0, tl.int32) + expert, at < mine)
    if expert == tl.num_programs(0) - 1:
        for first in range(begin + mine, blocks, tail):
            at = first + tl.arange(0, tail)
            tl.store(block_expert + at, tl.full((tail,), -1, tl.int32), at < blocks)


@triton.jit
def _product(acc, a, w, swap: tl.constexpr):
    # Weights first: then they fill the 64 rows that Hopper's matrix unit asks for, and the few tokens are its columns.
    # As PyTorch multiplies float32; of narrower numbers it says nothing.
    precision: tl.constexpr = "ieee" if a.dtype == tl.float32 else "tf32"
    # Hopper sums float8 products with fewer bits than float32 has: after each step they are added in float32.
    imprecise: tl.constexpr = a.shape[1]
    if swap:
        made = tl.dot(w, tl.trans(a), acc, input_precision=precision, max_num_imprecise_acc=imprecise)
    else:
        made = tl.dot(a, tl.trans(w), acc, input_precision=precision, max_num_imprecise_acc=imprecise)
    return made


@triton.jit
def _loaded(pointers, ok, inside, even: tl.constexpr):
    # Where steps of the depth do not divide it, the last one must not read what stands behind.
    return tl.load(pointers, ok[:, None] if even else ok[:, None] & inside[None, :], 0.0)


@triton.jit
def _four_bits_product(
    acc,
    source,
    row_at,
    row_ok,
    weight,
    scale,
    channel,
    channel_ok,
    depth: tl.constexpr,
    block_k: tl.constexpr,
    swap: tl.constexpr,
):
    """Accumulate rows of `source` times channels of 4 bits over the whole depth, scales applied here."""
    even: tl.constexpr = depth % block_k == 0
    half: tl.constexpr = block_k // 2
    within = tl.arange(0, half)
    # Byte j of a group of 64 inputs holds input j below and input 32 + j above: both halves stay contiguous.
    low_at = (within // 32) * 64 + within % 32
    for first in range(0, depth, block_k):
        inside = first // 2 + within < depth // 2
        bytes_at = channel[:, None] * (depth // 2) + first // 2 + within[None, :]
        scales_at = channel[:, None] * (depth // 32) + first // 32 + (within // 32 * 2)[None, :]
        rows_at = row_at[:, None] + (first + low_at)[None, :]
        packed = _loaded(weight + bytes_at, channel_ok, inside, even)
        low_scale = _loaded(scale + scales_at, channel_ok, inside, even).to(tl.float32)
        high_scale = _loaded(scale + scales_at + 1, channel_ok, inside, even).to(tl.float32)
        rows_low = _loaded(source + rows_at, row_ok, inside, even)
        rows_high = _loaded(source + rows_at + 32, row_ok, inside, even)
        low = (((packed & 15).to(tl.float32) - 8.0) * low_scale).to(rows_low.dtype)
        high = (((packed >> 4).to(tl.float32) - 8.0) * high_scale).to(rows_low.dtype)
        acc = _product(acc, rows_low, low, swap)
        acc = _product(acc, rows_high, high, swap)
    return acc


@triton.jit
def _gated(gate, up):
    return gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)) * up


@triton.jit
def _filled(pairs, begin, count, rows: tl.constexpr):
    return tl.sum((tl.load(pairs + begin + tl.arange(0, rows)) < count).to(tl.int32), 0)


@triton.jit
def _up(
    hidden,
    hidden_scale,
    gate_up,
    scale,
    pairs,
    inner,
    inner_scale,
    count,
    expert,
    begin,
    tile,
    depth: tl.constexpr,
    width: tl.constexpr,
    top_k: tl.constexpr,
    rows: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    bits: tl.constexpr,
    swap: tl.constexpr,
):
    tiles: tl.constexpr = (width + block_n - 1) // block_n
    slot = begin + tl.arange(0, rows)
    pair = tl.load(pairs + slot)
    row_ok = pair < count
    token = pair // top_k
    row_at = token.to(tl.int64) * depth
    channel = tile * block_n + tl.arange(0, block_n)
    channel_ok = channel < width
    per: tl.constexpr = depth // 2 if bits == 4 else depth
    groups: tl.constexpr = depth // 32 if bits == 4 else 1
    gate_w = gate_up + expert * 2 * width * per
    gate_s = scale + expert * 2 * width * groups
    up_w = gate_w + width * per
    up_s = gate_s + width * groups
    gate = tl.zeros((block_n, rows) if swap else (rows, block_n), tl.float32)
    up = tl.zeros((block_n, rows) if swap else (rows, block_n), tl.float32)
    if bits == 4:
        gate = _four_bits_product(
            gate, hidden, row_at, row_ok, gate_w, gate_s, channel, channel_ok, depth, block_k, swap
        )
        up = _four_bits_product(up, hidden, row_at, row_ok, up_w, up_s, channel, channel_ok, depth, block_k, swap)
    else:
        # One loop for both, so that a block of rows is read once.
        even: tl.constexpr = depth % block_k == 0
        deep = tl.arange(0, block_k)
        weight_at = channel[:, None] * depth + deep[None, :]
        for first in range(0, depth, block_k):
            inside = first + deep < depth
            a = _loaded(hidden + row_at[:, None] + (first + deep)[None, :], row_ok, inside, even)
            g = _loaded(gate_w + weight_at + first, channel_ok, inside, even)
            u = _loaded(up_w + weight_at + first, channel_ok, inside, even)
            gate = _product(gate, a, g, swap)
            up = _product(up, a, u, swap)
    place = slot.to(tl.int64)[:, None] * width + channel[None, :]
    ok = channel_ok[None, :]
    if swap:
        gate = tl.trans(gate)
        up = tl.trans(up)
    if bits == 8:
        of_row = tl.load(hidden_scale + token, row_ok, 0.0)[:, None]
        gate *= of_row * tl.load(gate_s + channel, channel_ok, 0.0)[None, :]
        up *= of_row * tl.load(up_s + channel, channel_ok, 0.0)[None, :]
        made = _gated(gate, up)
        new_scale = tl.maximum(tl.max(tl.abs(made), 1) / _MOST, 1.0e-12)
        tl.store(inner + place, _rounded(made / new_scale[:, None]), ok)
        tl.store(inner_scale + slot.to(tl.int64) * tiles + tile, new_scale)
    else:
        kind = inner.dtype.element_ty
        gate = gate.to(kind).to(tl.float32)
        gate = _gated(gate, 1.0).to(kind).to(tl.float32)
        tl.store(inner + place, (gate * up.to(kind).to(tl.float32)).to(kind), ok)


@triton.jit
def experts_up_kernel(
    hidden,
    hidden_scale,
    gate_up,
    scale,
    pairs,
    block_expert,
    inner,
    inner_scale,
    count,
    depth: tl.constexpr,
    width: tl.constexpr,
    top_k: tl.constexpr,
    rows: tl.constexpr,
    rest: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    bits: tl.constexpr,
    swap: tl.constexpr,
):
    """Gate and up projection of one block of rows for `block_n` channels, gated at once; rows stay sorted by expert.

    A block with at most `rest` pairs, which is what an expert has beyond its full blocks, is computed as one of `rest`
    rows (0: as any other).
    """
    tiles: tl.constexpr = (width + block_n - 1) // block_n
    block = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    expert = tl.load(block_expert + block).to(tl.int64)
    if expert < 0:
        return
    begin = block * rows
    if rest > 0 and _filled(pairs, begin, count, rows) <= rest:
        _up(
            hidden, hidden_scale, gate_up, scale, pairs, inner, inner_scale, count, expert, begin, tile,
            depth, width, top_k, rest, block_n, block_k, bits, True,
        )  # fmt: skip
    else:
        _up(
            hidden, hidden_scale, gate_up, scale, pairs, inner, inner_scale, count, expert, begin, tile,
            depth, width, top_k, rows, block_n, block_k, bits, swap,
        )  # fmt: skip


@triton.jit
def _down(
    inner,
    inner_scale,
    down,
    scale,
    pairs,
    out,
    count,
    expert,
    begin,
    tile,
    depth: tl.constexpr,
    width: tl.constexpr,
    rows: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    bits: tl.constexpr,
    swap: tl.constexpr,
):
    slot = (begin + tl.arange(0, rows)).to(tl.int64)
    pair = tl.load(pairs + slot)
    row_ok = pair < count
    row_at = slot * depth
    channel = tile * block_n + tl.arange(0, block_n)
    channel_ok = channel < width
    per: tl.constexpr = depth // 2 if bits == 4 else depth
    groups: tl.constexpr = depth // 32 if bits == 4 else 1
    weight = down + expert * width * per
    scales = scale + expert * width * groups
    acc = tl.zeros((block_n, rows) if swap else (rows, block_n), tl.float32)
    even: tl.constexpr = depth % block_k == 0
    deep = tl.arange(0, block_k)
    weight_at = channel[:, None] * depth + deep[None, :]
    if bits == 4:
        acc = _four_bits_product(acc, inner, row_at, row_ok, weight, scales, channel, channel_ok, depth, block_k, swap)
    elif bits == 8:
        steps: tl.constexpr = (depth + block_k - 1) // block_k
        for step in range(steps):
            first = step * block_k
            inside = first + deep < depth
            a = _loaded(inner + row_at[:, None] + (first + deep)[None, :], row_ok, inside, even)
            w = _loaded(weight + weight_at + first, channel_ok, inside, even)
            of_step = tl.load(inner_scale + slot * steps + step, row_ok, 0.0)
            none = tl.zeros((block_n, rows) if swap else (rows, block_n), tl.float32)
            made = _product(none, a, w, swap)
            acc += made * (of_step[None, :] if swap else of_step[:, None])
        by_channel = tl.load(scales + channel, channel_ok, 0.0)
        acc *= by_channel[:, None] if swap else by_channel[None, :]
    else:
        for first in range(0, depth, block_k):
            inside = first + deep < depth
            a = _loaded(inner + row_at[:, None] + (first + deep)[None, :], row_ok, inside, even)
            w = _loaded(weight + weight_at + first, channel_ok, inside, even)
            acc = _product(acc, a, w, swap)
    made = acc.to(out.dtype.element_ty)
    target = pair.to(tl.int64) * width
    if swap:
        tl.store(out + target[None, :] + channel[:, None], made, channel_ok[:, None] & row_ok[None, :])
    else:
        tl.store(out + target[:, None] + channel[None, :], made, row_ok[:, None] & channel_ok[None, :])


@triton.jit
def experts_down_kernel(
    inner,
    inner_scale,
    down,
    scale,
    pairs,
    block_expert,
    out,
    count,
    depth: tl.constexpr,
    width: tl.constexpr,
    rows: tl.constexpr,
    rest: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    bits: tl.constexpr,
    swap: tl.constexpr,
):
    """Down projection of one block of rows for `block_n` channels, each row written to its token-expert pair.

    With 8 bits `block_k` is `packing.INNER_GROUP`: each step of the depth has a scale of its own in every row.
    `rest` is as in the first projection, and has to be the same.
    """
    tiles: tl.constexpr = (width + block_n - 1) // block_n
    block = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    expert = tl.load(block_expert + block).to(tl.int64)
    if expert < 0:
        return
    begin = block * rows
    if rest > 0 and _filled(pairs, begin, count, rows) <= rest:
        _down(
            inner, inner_scale, down, scale, pairs, out, count, expert, begin, tile,
            depth, width, rest, block_n, block_k, bits, True,
        )  # fmt: skip
    else:
        _down(
            inner, inner_scale, down, scale, pairs, out, count, expert, begin, tile,
            depth, width, rows, block_n, block_k, bits, swap,
        )  # fmt: skip
