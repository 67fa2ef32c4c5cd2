"""Parts of the speed suite to be looked at, not compared: floor, parity, block shapes, the anatomy of a step."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from inlay_model.accelerator.accelerated import attach, detach
from inlay_model.accelerator.graphs import Capturer
from inlay_model.accelerator.memory import parameters_of
from inlay_model.accelerator.packing import INNER_GROUP, Experts, pack
from inlay_model.accelerator.passes import decode_pass, logits_pass
from inlay_model.accelerator.random_weights import diffusion_config
from inlay_model.accelerator.record import Record, timed
from inlay_model.accelerator.reference import Heads, Joint, Reference, Room
from inlay_model.accelerator.speed_case import Case, fast_runtime, forget
from inlay_model.accelerator.speed_ours import denoised
from inlay_model.prefix import Decoder

# A kernel may differ from its plain twin by roundings of bfloat16; the whole model by what they do to routers' choices,
# in the library too: so in bf16 we may be so many times as far from float32 as it is.
KERNEL_TOLERANCE = 1e-2
BF16_TOLERANCE = 1.25
# In float32 the middle position differs by the order of sums.
FLOAT32_TOLERANCE = 1e-4
# Block shapes that hold numbers of four bytes in a multiprocessor's shared memory.
_SMALL_TILE = {"block_n": 64, "block_k": 32, "stages": 2, "warps": 4, "swap": True}
FLOAT32_TUNING: dict[str, Any] = {
    "up.16.32": _SMALL_TILE,
    "down.16.32": _SMALL_TILE,
    "attention.256.few": (16, 16, 1, 4),
    "attention.512.few": (16, 16, 1, 4),
}
# One number that falls on the other side of a rounding to float8 differs by a sixteenth.
FLOAT8_TOLERANCE = 3e-2

# Block shapes to try: channels, depth of a step, stages, warps, and whether the weights are the first operand.
EXPERT_TILES: dict[int, tuple[tuple[int, int, int, int, bool], ...]] = {
    32: (
        (64, 64, 6, 4, True), (64, 128, 3, 4, True), (64, 128, 5, 4, True), (64, 256, 3, 4, True),
        (128, 64, 4, 4, True), (128, 64, 4, 8, True), (128, 64, 6, 4, True), (256, 64, 4, 8, True),
    ),
    64: (
        (64, 64, 4, 4, True), (64, 128, 3, 4, True), (128, 64, 4, 4, True), (128, 64, 4, 8, True),
        (64, 64, 4, 4, False), (64, 128, 4, 4, False), (128, 64, 4, 4, False), (256, 64, 3, 8, False),
    ),
    128: (
        (64, 64, 4, 8, False), (64, 64, 3, 4, False), (64, 128, 3, 8, False), (64, 128, 4, 8, False),
        (128, 64, 4, 8, False), (128, 64, 3, 8, False), (256, 64, 3, 8, False), (64, 64, 4, 4, True),
        (128, 64, 4, 8, True),
    ),
}  # fmt: skip
# Queries, keys, stages, warps, by head width.
ATTENTION_SHAPES: dict[int, tuple[tuple[int, int, int, int], ...]] = {
    256: ((32, 32, 3, 4), (32, 64, 2, 4), (64, 32, 2, 4), (64, 64, 2, 4), (64, 64, 2, 8), (128, 32, 2, 8),
          (128, 64, 2, 8), (16, 64, 2, 4)),
    512: ((16, 32, 2, 4), (16, 64, 2, 4), (32, 32, 2, 4), (32, 32, 2, 8), (64, 32, 2, 8), (16, 32, 3, 2)),
}  # fmt: skip
# Words of a chunk, warps.
VOCABULARY_SHAPES = ((4096, 4), (4096, 8), (8192, 4), (8192, 8), (16384, 8), (16384, 16), (32768, 32))

# Pairs of a chunk, warps.
GROUP_SHAPES = ((2048, 4), (2048, 8), (2048, 16), (4096, 8), (4096, 16), (8192, 16), (8192, 32))


def floor(case: Case, record: Record) -> None:
    """Copy bandwidth, and how long reading all weights that a step touches takes at it."""
    size = 2**22 if case.toy else 2**32
    source, target = (torch.empty(size, dtype=torch.uint8, device=case.device).random_(0, 255) for _ in range(2))
    copied = timed(partial(target.copy_, source), 20, warm=3)
    bandwidth = 2 * size / statistics.median(copied)
    record.put("floor", "copy_tb_per_s", round(bandwidth / 1e12, 3))
    del source, target
    config = diffusion_config(**case.changes())
    packed, rest = parameters_of(config)
    vision = _vision(config)
    # The embedding is read as the head and once more for self-conditioning.
    twice = config.text_config.vocab_size * config.text_config.hidden_size
    plain = rest - vision + twice
    for name, width in (("floor_step_ms", 2.0), ("floor_step_fp8_ms", 1.0)):
        touched = packed * width + plain * 2
        record.put("floor", name.replace("_ms", "_gb"), round(touched / 1e9, 2))
        record.put("", name, round(1000 * touched / bandwidth, 3))
    forget()


def parity(case: Case, record: Record) -> None:
    """Kernels against their twins, whole passes against the library's, the same seed twice."""
    kernels = case.kernels()
    for name, work in _kernel_cases(case).items():

        def compare(name: str = name, work: Callable[[Reference], Any] = work) -> None:
            ours, plain = work(kernels), work(Reference())
            error = max(_distance(a, b) for a, b in zip(_flat(ours), _flat(plain), strict=True))
            record.put("parity", f"kernel_{name}", float(f"{error:.2e}"))
            if not error < (FLOAT8_TOLERANCE if name == "experts_8" else KERNEL_TOLERANCE):
                raise RuntimeError(f"{name} differs by {error:.2e}")

        record.attempt("parity", f"kernel_{name}", compare)
    record.attempt("parity", "logits", partial(_logits_parity, case, record, kernels))


def _logits_parity(case: Case, record: Record, kernels: Reference) -> None:
    """Logits of two layers against the library's in float32, of the same weights: ours in float32, and both in bf16.

    One of each kind: with more, a router's near tie falls otherwise somewhere, in float32 too, and random weights
    carry that everywhere.
    """
    layers = Case(case.device, toy=case.toy, layers=None if case.toy else 2)
    model = layers.diffusion()
    canvas_BL = torch.randint(0, model.config.text_config.vocab_size, (1, case.canvas), device=case.device)

    def logits() -> torch.Tensor:
        return Decoder(model, case.prefix(model))(canvas_BL, canvas_BL >= 0)

    theirs_NV = logits()
    path = attach(model, kernels)
    assert path is not None
    ours_NV = logits()
    fast = case.prefix(model)
    texts = [denoised(layers, model, fast, 8).ids_BL.tolist() for _ in range(2)]
    record.put("parity", "same_seed_same_text", texts[0] == texts[1])
    record.put("parity", "passes", {**path.counts, "fast": path.fast is not None})
    detach(model)
    model.float()
    exact_NV = logits()
    path = attach(model, case.kernels(FLOAT32_TUNING))
    assert path is not None
    exact_ours_NV = logits()
    fast_runtime(path)
    detach(model)
    far = {
        name: _apart(found_NV, exact_NV)
        for name, found_NV in (("library_bf16", theirs_NV), ("ours_bf16", ours_NV), ("ours_float32", exact_ours_NV))
    }
    for name, distances in far.items():
        record.put("parity", name, distances)
    bound = max(BF16_TOLERANCE * far["library_bf16"]["median"], FLOAT32_TOLERANCE)
    if not (far["ours_float32"]["median"] < FLOAT32_TOLERANCE and far["ours_bf16"]["median"] < bound):
        raise RuntimeError(f"logits are too far from the library's: {far}")


def tiles(case: Case, record: Record) -> None:
    """Try block shapes of the experts in bf16; keep the fastest by name."""
    _tiles(case, record, 16)


def tiles_fp8(case: Case, record: Record) -> None:
    """The same in fp8."""
    _tiles(case, record, 8)


def shapes(case: Case, record: Record) -> None:
    """Try block shapes of attention, over the vocabulary and of sorting; keep the fastest by name."""
    if _has_no_shapes(case, record):
        return
    record.attempt("tiles", "attention", partial(_attention_shapes, case, record))
    record.attempt("tiles", "vocabulary", partial(_vocabulary_shapes, case, record))
    record.attempt("tiles", "group", partial(_group_shapes, case, record))
    record.attempt("tiles", "rows between matmuls", partial(_row_shapes, case, record))


def _tiles(case: Case, record: Record, bits: int) -> None:
    if _has_no_shapes(case, record):
        return
    experts = _random_experts(case, bits)
    for rows in (32, 64, 128):
        record.attempt("tiles", f"rows {rows}.{bits}", partial(_expert_tiles, case, record, experts, rows))
    record.attempt("tiles", f"rows.{bits}", partial(_block_rows, case, record, experts))
    del experts
    forget()


def _has_no_shapes(case: Case, record: Record) -> bool:
    if case.device.type != "cuda":
        record.put("tiles", "skipped", "block shapes are those of a GPU")
    return case.device.type != "cuda"


def _fastest(record: Record, name: str, times: dict[str, float], values: dict[str, Any]) -> None:
    """Keep what was fastest under this name, and all times."""
    if not times:
        raise RuntimeError(f"no choice of {name} could be run")
    record.put("tiles", name, values[min(times, key=times.__getitem__)])
    record.put("tiles_ms", name, {shape: round(value, 4) for shape, value in sorted(times.items())})


def _tried(times: dict[str, float], name: str, work: Callable[[], float]) -> None:
    try:
        times[name] = work()
    except Exception as problem:  # noqa: BLE001 - a shape that does not fit is not an answer
        print(f"{name}: {type(problem).__name__}", flush=True)


# How many canvases have experts with about as many rows as a block.
_CANVASES = {32: 1, 64: 4, 128: 8}


def _expert_tiles(case: Case, record: Record, experts: Experts, rows: int) -> None:
    from inlay_model.accelerator.fused import Fused, Tile, tuning_of

    tokens = _CANVASES[rows] * case.canvas
    for side in ("up", "down"):
        name = f"{side}.{experts.bits}.{rows}"
        found = record.figures.get("tiles", {})
        candidates = [Tile(*shape) for shape in EXPERT_TILES[rows] if _fits(experts.bits, side, Tile(*shape))]
        shapes = {_shape(tile): asdict(tile) for tile in candidates}
        times: dict[str, float] = {}
        for shape, tile in shapes.items():
            # Blocks of just this size, whatever the choice between sizes would be.
            tuning = replace(tuning_of({**found, name: tile, f"rows.{experts.bits}": rows}), rows_from=((0, rows),))
            _tried(times, shape, partial(_expert_time, case, Fused(tuning), experts, tokens))
        _fastest(record, name, times, shapes)


def _shape(tile: Any) -> str:
    return str(tuple(asdict(tile).values()))


def _fits(bits: int, side: str, tile: Any) -> bool:
    """With float8, what a program of the first projection makes is what a step of the second one reads."""
    return bits != 8 or (tile.block_n if side == "up" else tile.block_k) == INNER_GROUP


def _block_rows(case: Case, record: Record, experts: Experts) -> None:
    """For eight canvases: whether blocks have 128 rows or 64, and how many those that hold little."""
    from inlay_model.accelerator.fused import Fused, tuning_of

    name, found = f"rows.{experts.bits}", record.figures.get("tiles", {})
    fastest: dict[str, float] = {}
    for rows in (64, 128):
        times: dict[str, float] = {}
        for rest in (rest for rest in (0, 16, 32, 64) if rest < rows):
            tuning = tuning_of({**found, name: rows, f"rest.{experts.bits}.{rows}": rest})
            _tried(times, str(rest), partial(_expert_time, case, Fused(tuning), experts, 8 * case.canvas))
        _fastest(record, f"rest.{experts.bits}.{rows}", times, {rest: int(rest) for rest in times})
        fastest[str(rows)] = min(times.values())
    _fastest(record, name, fastest, {"64": 64, "128": 128})


def _attention_shapes(case: Case, record: Record) -> None:
    from inlay_model.accelerator.fused import Fused, Tuning

    text = diffusion_config(**case.changes()).text_config
    for kind in ("sliding_attention", "full_attention"):
        own = text.per_layer_config[text.layer_types.index(kind)]
        width, kv_heads = own.head_dim, own.num_key_value_heads
        for canvases, many in ((1, "few"), (8, "many")):
            shape = (canvases, kv_heads, 512 + case.canvas, width)
            keys, values = (torch.randn(shape, device=case.device).to(case.dtype) for _ in range(2))
            q_TAW = torch.randn(canvases * case.canvas, text.num_attention_heads, width, device=case.device)
            q_TAW = q_TAW.to(case.dtype)
            lengths_B = torch.full((canvases,), case.prompt, dtype=torch.int32, device=case.device)
            times: dict[str, float] = {}
            for blocks in ATTENTION_SHAPES[width]:
                kernels = Fused(Tuning(attention={(width, which): blocks for which in (False, True)}))

                work = partial(kernels.attend, q_TAW, Room(keys, values, 512), lengths_B)
                _tried(times, str(blocks), partial(_captured_time, case, work))
            shapes = {str(blocks): blocks for blocks in ATTENTION_SHAPES[width]}
            _fastest(record, f"attention.{width}.{many}", times, shapes)


def _vocabulary_shapes(case: Case, record: Record) -> None:
    """How the vocabulary is best cut: where tokens are drawn, and in the product of probabilities and embedding."""
    from inlay_model.accelerator.fused import Fused, Tuning

    text = diffusion_config(**case.changes()).text_config
    embedding_VH = torch.randn(text.vocab_size, text.hidden_size, device=case.device, dtype=case.dtype)
    none_V = torch.zeros(text.vocab_size, dtype=torch.uint8, device=case.device)
    for canvases, many in ((1, "few"), (8, "many")):
        count = canvases * case.canvas
        logits_NV = torch.randn(count, text.vocab_size, device=case.device, dtype=case.dtype)
        ones_N, uniform_N = torch.ones(count, device=case.device), torch.rand(count, device=case.device)
        given = (logits_NV, ones_N, uniform_N, 30.0, none_V, torch.zeros_like(ones_N, dtype=torch.uint8))
        chunks = {str(shape): shape for shape in VOCABULARY_SHAPES}
        times: dict[str, float] = {}
        for name, shape in chunks.items():
            kernels = Fused(Tuning(vocabulary=dict.fromkeys((False, True), shape)))

            def work(kernels: Fused = kernels, given: Any = given) -> torch.Tensor:
                return kernels.expected(kernels.draw(*given), embedding_VH)

            _tried(times, name, partial(_captured_time, case, work))
        _fastest(record, f"vocabulary.{many}", times, chunks)


def _group_shapes(case: Case, record: Record) -> None:
    from inlay_model.accelerator.fused import Fused, Tuning

    text = diffusion_config(**case.changes()).text_config
    shapes = {str(shape): shape for shape in GROUP_SHAPES}
    for canvases, rows, many in ((1, 32, "few"), (8, 128, "many")):
        chosen_TK = _even_choice(case, text.num_experts, canvases * case.canvas, text.top_k_experts)
        fitting = {name: shape for name, shape in shapes.items() if many == "many" or shape[0] == chosen_TK.numel()}
        times: dict[str, float] = {}
        for name, shape in fitting.items():
            kernels = Fused(Tuning(group=dict.fromkeys((False, True), shape)))
            work = partial(kernels.grouped, chosen_TK, text.num_experts, rows)
            _tried(times, name, partial(_captured_time, case, work))
        _fastest(record, f"group.{many}", times, fitting)


def _row_shapes(case: Case, record: Record) -> None:
    """Warps of the kernels that take row by row what stands between the matmuls of a layer; heads of a program."""
    from inlay_model.accelerator.fused import Fused, tuning_of

    for canvases, many in ((1, "few"), (8, "many")):
        works = _kernel_cases(case, canvases)
        for name, work, choices in (
            ("warps.after_attention", works["after_attention"], (1, 2, 4, 8, 16)),
            ("warps.combine", works["combine"], (1, 2, 4, 8, 16)),
            ("heads", works["heads_sliding_attention"], (1, 2, 4, 8)),
        ):
            times: dict[str, float] = {}
            for choice in choices:
                kernels = Fused(tuning_of({f"{name}.{many}": choice}))
                _tried(times, str(choice), partial(_captured_time, case, partial(work, kernels)))
            _fastest(record, f"{name}.{many}", times, {choice: int(choice) for choice in times})


def _captured_time(case: Case, work: Callable[[], Any]) -> float:
    """Milliseconds of this work in a graph, of ten in a row."""
    replay = Capturer(case.device)(work)
    return 100 * statistics.median(timed(lambda: [replay() for _ in range(10)], 3))


def anatomy(case: Case, record: Record, canvases: int = 1) -> None:
    """Milliseconds of the parts of a step, each alone in a graph: experts, decoder, head, sampling, expectation."""
    group, tokens = ("anatomy_ms" if canvases == 1 else f"anatomy{canvases}_ms"), canvases * case.canvas
    model = case.diffusion()
    path = case.attached(model, record.figures.get("tiles"))
    denoised(case, model, case.prefix(model), 2, canvases)
    runtime = fast_runtime(path)
    machine, weights = runtime.machine, runtime.weights
    slate = next(slate for slate in runtime._slates.values() if slate.rows == canvases)  # noqa: SLF001
    free, rule = slate.narrowed(tokens)
    normed_TH = torch.randn(tokens, weights.hidden, device=case.device).to(weights.dtype)
    logits_NV = logits_pass(machine, normed_TH, free)
    no_bans_N = torch.zeros_like(free.read_N, dtype=torch.uint8)
    layer, room = weights.layers[0], slate.rooms[0]
    uniform_N = torch.rand(tokens, device=case.device)
    ones_N = torch.ones(tokens, device=case.device)
    chosen_TK = _even_choice(case, weights.layers[0].experts.count, tokens, machine.weights.top_k)
    linear = torch.nn.functional.linear
    q_TAW = torch.randn(tokens, layer.heads.q_heads, layer.heads.width, device=case.device).to(weights.dtype)
    wide = next(number for number, one in enumerate(weights.layers) if not one.sliding)
    wide_q_TAW = torch.randn(tokens, layer.heads.q_heads, weights.layers[wide].heads.width, device=case.device)
    wide_q_TAW = wide_q_TAW.to(weights.dtype)
    given = (logits_NV, ones_N, uniform_N, weights.cap, rule.banned_V, no_bans_N)
    drawn = machine.kernels.draw(*given)
    parts: dict[str, Callable[[], Any]] = {
        "decoder": lambda: decode_pass(machine, slate.canvas_BL, slate.told_BLH, slate.rooms, slate.places),
        "head": lambda: logits_pass(machine, normed_TH, free),
        "draw": lambda: machine.kernels.draw(*given),
        "expectation": lambda: machine.kernels.expected(drawn, weights.embedding),
        "layer_experts": lambda: machine.kernels.experts(normed_TH, chosen_TK, layer.experts),
        "layer_projection": lambda: linear(normed_TH, layer.projection),
        "layer_attention": lambda: machine.kernels.attend(q_TAW, room, slate.lengths_B),
        "full_attention_projection": lambda: linear(normed_TH, weights.layers[wide].projection),
        "full_attention": lambda: machine.kernels.attend(wide_q_TAW, slate.rooms[wide], slate.lengths_B),
        "layer_mlp": lambda: linear(machine.kernels.gate(linear(normed_TH, layer.mlp_up)), layer.mlp_down),
        "layer_router": lambda: machine.kernels.route(
            linear(normed_TH, layer.router), layer.expert_scale, weights.top_k
        ),
        "layer_out": lambda: linear(q_TAW.flatten(1), layer.out),
    }
    if case.device.type == "cuda":
        parts["layer_group"] = partial(_grouped, machine.kernels, chosen_TK, layer.experts)
    for name, work in parts.items():

        def measure(name: str = name, work: Callable[[], Any] = work) -> None:
            replay = runtime.capture(work)
            rounds = timed(lambda: [replay() for _ in range(10)], case.rounds)
            record.measure(group, name, [100 * seconds for seconds in rounds], 4)

        record.attempt(group, name, measure)
    detach(model)
    del model
    forget()


def _grouped(kernels: Any, chosen_TK: torch.Tensor, experts: Experts) -> Any:
    rows = kernels.tuning.rows(experts.bits, chosen_TK.numel(), experts.count)
    return kernels.grouped(chosen_TK, experts.count, rows)


def _expert_time(case: Case, kernels: Reference, experts: Experts, tokens: int) -> float:
    x_TH = torch.randn(tokens, experts.hidden, device=case.device).to(case.dtype)
    chosen_TK = _even_choice(case, experts.count, tokens, 8)
    return _captured_time(case, partial(kernels.experts, x_TH, chosen_TK, experts))


def _even_choice(case: Case, experts: int, tokens: int, top_k: int) -> torch.Tensor:
    """Experts as a random router chooses them."""
    return torch.rand(tokens, experts, device=case.device).topk(min(top_k, experts), -1).indices.int()


def _random_experts(case: Case, bits: int) -> Experts:
    text = diffusion_config(**case.changes()).text_config
    experts, inner, hidden = text.num_experts, text.moe_intermediate_size, text.hidden_size
    gate_up = torch.empty(experts, 2 * inner, hidden, dtype=case.dtype, device=case.device).normal_(0, 0.02)
    down = torch.empty(experts, hidden, inner, dtype=case.dtype, device=case.device).normal_(0, 0.02)
    return pack(gate_up, down, bits)


def _kernel_cases(case: Case, canvases: int = 1) -> dict[str, Callable[[Reference], Any]]:
    """Every kernel on random inputs of the real shapes, for so many canvases."""
    text = diffusion_config(**case.changes()).text_config
    tokens, hidden, eps = canvases * case.canvas, text.hidden_size, 1e-6

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, device=case.device) * scale).to(case.dtype)

    x_TH, y_TH = normal(tokens, hidden), normal(tokens, hidden)
    norms = [normal(hidden) for _ in range(5)]
    joint = Joint(norms[0], norms[1], norms[2], normal(1), norms[4])
    chosen_TK = _even_choice(case, text.num_experts, tokens, text.top_k_experts)
    pairs_SH, weights_TK = normal(chosen_TK.numel(), hidden), torch.rand(chosen_TK.shape, device=case.device)
    logits_NV = normal(tokens, text.vocab_size, scale=6.0)
    banned_V = (torch.rand(text.vocab_size, device=case.device) < 0.1).to(torch.uint8)
    uniform_N, warmth_N = torch.rand(tokens, device=case.device), torch.rand(tokens, device=case.device) * 0.4 + 0.4
    bans_N = (torch.arange(tokens, device=case.device) % 2).to(torch.uint8)
    lengths_B = torch.full((canvases,), case.prompt, dtype=torch.int32, device=case.device)
    # No two scores of a token are equal: which of equals is chosen is not defined, and their scales differ.
    ranks_TE = torch.rand(tokens, text.num_experts, device=case.device).argsort(-1)
    scores_TE = (ranks_TE * (8 / text.num_experts)).to(case.dtype)
    cases: dict[str, Callable[[Reference], Any]] = {
        "rms_norm": lambda kernels: kernels.rms_norm(x_TH, norms[0], eps),
        "add_norm": lambda kernels: kernels.add_norm(x_TH, y_TH, eps),
        "gate": lambda kernels: kernels.gate(x_TH),
        "after_attention": lambda kernels: kernels.after_attention(
            x_TH, y_TH, (norms[0], norms[1], norms[2]), norms[3], eps
        ),
        "combine": lambda kernels: kernels.combine(pairs_SH, weights_TK, x_TH, y_TH, joint, eps),
        "route": lambda kernels: kernels.route(scores_TE, norms[0][: text.num_experts], text.top_k_experts)[0],
        "draw": lambda kernels: _drawn(kernels, logits_NV, warmth_N, uniform_N, banned_V, bans_N),
    }  # fmt: skip
    for number, kind in enumerate(text.layer_types):
        if kind in text.layer_types[:number]:
            continue
        own = text.per_layer_config[number]
        heads = Heads(normal(own.head_dim), normal(own.head_dim), text.num_attention_heads, own.num_key_value_heads,
                      own.head_dim, kind == "sliding_attention")  # fmt: skip
        kept = [normal(canvases, heads.kv_heads, 512 + case.canvas, heads.width) for _ in range(2)]
        room = Room(kept[0], kept[1], 512)
        q_TAW = normal(tokens, heads.q_heads, heads.width, scale=0.2)
        columns = (heads.q_heads + heads.kv_heads * (2 if heads.own_values else 1)) * heads.width
        projected = normal(tokens, columns)
        turn = (normal(tokens, heads.width), normal(tokens, heads.width))
        slots_T = torch.arange(512, 512 + case.canvas, dtype=torch.int32, device=case.device).repeat(canvases)
        cases[f"attend_{kind}"] = partial(_attended, (q_TAW, room, lengths_B))
        cases[f"heads_{kind}"] = partial(_headed, (projected, heads, turn, slots_T, room, eps))
    for bits in (16, 8, 4):
        cases[f"experts_{bits}"] = partial(_experted, case, bits, x_TH, chosen_TK)
    return cases


def _attended(given: tuple[Any, ...], kernels: Reference) -> Any:
    return kernels.attend(*given)


def _headed(given: tuple[Any, ...], kernels: Reference) -> Any:
    return kernels.heads(*given)


def _experted(case: Case, bits: int, x_TH: torch.Tensor, chosen_TK: torch.Tensor, kernels: Reference) -> Any:
    return kernels.experts(x_TH, chosen_TK, _seeded_experts(case, bits))


def _seeded_experts(case: Case, bits: int) -> Experts:
    torch.manual_seed(5)
    return _random_experts(case, bits)


def _drawn(kernels: Reference, logits_NV: torch.Tensor, warmth_N: torch.Tensor, uniform_N: torch.Tensor,
           banned_V: torch.Tensor, bans_N: torch.Tensor) -> tuple[torch.Tensor, ...]:  # fmt: skip
    drawn = kernels.draw(logits_NV, warmth_N, uniform_N, 30.0, banned_V, bans_N)
    return drawn.entropy_N, drawn.probabilities(), (drawn.argmax_N + 1).float(), (drawn.token_N + 1).float()


def _apart(found_NV: torch.Tensor, expected_NV: torch.Tensor) -> dict[str, float]:
    """Relative distance of logits: of all of them, and of the middle one of the positions."""
    each_N = (found_NV - expected_NV).norm(dim=-1) / expected_NV.norm(dim=-1)
    return {
        "distance": float(f"{_distance(found_NV, expected_NV):.2e}"),
        "median": float(f"{float(each_N.median()):.2e}"),
    }


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _flat(found: Any) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _vision(config: Any) -> int:
    from transformers import AutoModel

    with torch.device("meta"):
        tower: Any = AutoModel.from_config(config.vision_config)
    projection = int(config.vision_config.hidden_size * config.text_config.hidden_size)
    return projection + sum(int(weight.numel()) for weight in tower.parameters())
