"""Phantoms as training examples: drawn while training, in batches that follow from a seed alone.

For denoising a batch is made of corrupted canvases behind one prompt. For the next token the targets are the same, and
the share of examples that have gaps there are questions for the text of a gap here (`inlay_model.gap_prompt`).

Shape suffixes: B batch, L canvas length, T prompt tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inlay_model.canvas import encode_fragment, encode_header
from inlay_model.phantom.anatomy import draw_anatomy
from inlay_model.phantom.findings import Findings, draw_findings
from inlay_model.phantom.grammar import STYLES, PhantomReport, write_report
from inlay_model.phantom.remarks import REMARKS
from inlay_model.prompt import Prompt, build_prompt, instruction
from inlay_model.tokens import Tokenizer, control_tokens, encode_plain
from inlay_model.training.compiled import padded
from inlay_model.training.corruption import (
    BoolArray,
    Corruption,
    IntArray,
    TokenText,
    filled,
    gap_noise,
    opened,
    plain_noise,
    room,
    shifted,
)
from inlay_model.training.doubts import doubtful
from inlay_model.training.encoding import with_question
from inlay_model.training.gap_questions import gap_of
from inlay_model.training.wishes import rewritten, with_hints

SECTIONS = ("findings", "impression")
# The usual prompts of a run have one length, a multiple of this, for which layers are compiled. A request for a report
# has 86 or 90 tokens; the longest of a batch that asks for gaps, with the report around them, has 160 to 230. Wishes
# are longer, hints about 100 tokens and a report to be rewritten up to 230, and too few to be compiled for. Without the
# image a request has 20 or 24 and is padded to the length of the others.
PROMPT_STEPS = {"diffusion": 32, "autoregressive": 128}


@dataclass(slots=True)
class ReportEncoder:
    """Tokenises reports sentence by sentence and remembers sentences, of which there are few hundred."""

    tokenizer: Tokenizer
    _known: dict[str, list[int]] = field(default_factory=dict)

    def __call__(self, report: PhantomReport, insert: Mapping[tuple[str, int], str] | None = None) -> TokenText:
        """Encode a report; `insert` puts foreign sentences before the n-th sentence of a section."""
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        kinds: list[bool] = []

        def append(piece: list[int], *, is_sentence: bool) -> None:
            spans.append((len(ids), len(ids) + len(piece)))
            kinds.append(is_sentence)
            ids.extend(piece)

        for index, (name, sentences) in enumerate(report.sections):
            append(encode_header(self.tokenizer, index, name), is_sentence=False)
            for position, sentence in enumerate(sentences):
                if insert and (name, position) in insert:
                    append(self._fragment(insert[name, position]), is_sentence=False)
                append(self._fragment(sentence), is_sentence=True)
        ids.append(control_tokens(self.tokenizer).end_of_turn)
        return TokenText(np.array(ids, dtype=np.int64), tuple(spans), tuple(kinds))

    def sentences(self, written: Sequence[str]) -> TokenText:
        """Encode sentences without a header, as what is missing in a gap."""
        ids = [token for sentence in written for token in self._fragment(sentence)]
        return TokenText(np.array([*ids, control_tokens(self.tokenizer).end_of_turn], dtype=np.int64), (), ())

    def _fragment(self, sentence: str) -> list[int]:
        if sentence not in self._known:
            self._known[sentence] = encode_fragment(self.tokenizer, sentence)
        return self._known[sentence]


class Drawing:
    """How batches are drawn: for which kind of model, how many phantoms, and with what vocabulary and corruption."""

    def __init__(
        self, tokenizer: Tokenizer, kind: str, size: int, canvas: int, soft_tokens: int, corruption: Corruption
    ) -> None:
        self.kind, self.size, self.canvas, self.corruption = kind, size, canvas, corruption
        self.soft_tokens = soft_tokens
        self.encoder = ReportEncoder(tokenizer)
        control = control_tokens(tokenizer)
        self.eos, self.pad = control.eos, control.pad
        self.prompts = {
            style: build_prompt(tokenizer, soft_tokens, instruction(SECTIONS, style)) for style in (*STYLES, None)
        }
        self.without_image = {
            style: build_prompt(tokenizer, (), instruction(SECTIONS, style)) for style in (*STYLES, None)
        }

    def sized(self, size: int) -> Drawing:
        """The same with another number of phantoms per batch."""
        tokenizer = self.encoder.tokenizer
        return Drawing(tokenizer, self.kind, size, self.canvas, self.soft_tokens, self.corruption)

    def is_usual(self, drawn: Batch) -> bool:
        """Whether the prompts of a batch have the length for which layers are compiled."""
        plain = max(len(prompt.ids) for prompt in self.prompts.values())
        return self.kind == "autoregressive" or drawn.prompt_BT.shape[1] == padded(plain, PROMPT_STEPS[self.kind])

    def asking(self, question: str, style: str | None = None) -> Prompt:
        """The prompt of this style that ends with a question."""
        return with_question(self.prompts[style], encode_plain(self.encoder.tokenizer, question))


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch of phantoms.

    `prompt_BT` are the prompts, `types_BT` 1 on image tokens, `real_BT` false on padding (at the left). `target_BL` is
    the text, EOS-filled; `canvas_BL` what the model sees once `noise_BL` is replaced by random tokens; `anatomy` draws
    the images; `findings` (B, slots) are the labels of the auxiliary classifier.
    """

    findings: IntArray
    anatomy: dict[str, npt.NDArray[np.float32]]
    prompt_BT: IntArray
    types_BT: IntArray
    real_BT: BoolArray
    target_BL: IntArray
    canvas_BL: IntArray
    noise_BL: BoolArray

    @property
    def has_images(self) -> bool:
        """Whether the prompts have the images in them; the classifier sees them anyway."""
        return bool(self.types_BT.any())


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: Prompt
    target: IntArray
    canvas: IntArray
    noise: BoolArray


def batch_at(drawing: Drawing, seed: Sequence[int]) -> Batch:
    """The batch of a seed."""
    return batch(drawing, np.random.default_rng(seed))


def batches(drawing: Drawing, seed: Sequence[int]) -> Iterator[Batch]:
    """Endless batches; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    while True:
        yield batch(drawing, rng)


def batch(drawing: Drawing, rng: np.random.Generator, findings: IntArray | None = None) -> Batch:
    """Draw one batch of phantoms, or of those with these findings (size, slots), with their reports."""
    # One style for a whole batch keeps all prompts of it equally long; one in five names no style.
    named = rng.random() < 0.8
    style = STYLES[rng.integers(len(STYLES))]
    findings = draw_findings(drawing.size, rng) if findings is None else findings
    make = _asked if drawing.kind == "autoregressive" else _denoised
    corruption = drawing.corruption
    if drawing.kind == "diffusion" and corruption.whole_batches:
        kind = rng.random()
        if kind < corruption.hints:
            make = _hinted
        elif kind < corruption.hints + corruption.rewriting:
            # A report is rewritten in a style that is named.
            make, named = _rewritten, True
        elif kind < corruption.hints + corruption.rewriting + corruption.text_alone:
            make = _concluded
    rows = [
        make(drawing, Findings.from_indices(row), style if named else _any_style(rng), style if named else None, rng)
        for row in findings
    ]
    prompt, types, real = _side_by_side([row.prompt for row in rows], drawing)
    return Batch(
        findings,
        draw_anatomy(findings, rng),
        prompt,
        types,
        real,
        np.stack([row.target for row in rows]),
        np.stack([row.canvas for row in rows]),
        np.stack([row.noise for row in rows]),
    )


def _any_style(rng: np.random.Generator) -> str:
    return STYLES[rng.integers(len(STYLES))]


def _side_by_side(prompts: Sequence[Prompt], drawing: Drawing) -> tuple[IntArray, IntArray, BoolArray]:
    longest = max(len(prompt.ids) for prompt in (*prompts, *drawing.prompts.values()))
    most = padded(longest, PROMPT_STEPS[drawing.kind])
    ids = np.full((len(prompts), most), drawing.pad, dtype=np.int64)
    types, real = np.zeros_like(ids), np.zeros(ids.shape, dtype=np.bool_)
    for row, prompt in enumerate(prompts):
        begin = most - len(prompt.ids)
        ids[row, begin:], types[row, begin:], real[row, begin:] = prompt.ids, prompt.mm_token_type_ids, True
    return ids, types, real


def _denoised(drawing: Drawing, findings: Findings, style: str, named: str | None, rng: np.random.Generator) -> _Row:
    prompt = drawing.prompts[named]
    return _Row(prompt, *corrupted(drawing.encoder, findings, style, drawing.canvas, drawing.corruption, rng))


def _hinted(drawing: Drawing, findings: Findings, style: str, named: str | None, rng: np.random.Generator) -> _Row:
    wish = with_hints(drawing.encoder, findings, style, drawing.canvas, drawing.eos, drawing.corruption, rng)
    return _Row(drawing.asking(wish.question, named), wish.target, wish.shown, wish.noise)


def _rewritten(drawing: Drawing, findings: Findings, style: str, named: str | None, rng: np.random.Generator) -> _Row:
    wish = rewritten(drawing.encoder, findings, style, drawing.canvas, drawing.eos, drawing.corruption, rng)
    return _Row(drawing.asking(wish.question, named), wish.target, wish.shown, wish.noise)


def _concluded(drawing: Drawing, findings: Findings, style: str, named: str | None, rng: np.random.Generator) -> _Row:
    """Of a report only Impression follows from the rest: from other gaps a model that sees nothing learns to guess."""
    report, corruption = write_report(findings, style, rng), drawing.corruption
    # What a clinician added to Findings is locked as they are.
    insert = _foreign(report.sections[:1], rng) if rng.random() < corruption.foreign_lock else None
    text, body = drawing.encoder(report, insert), len(report.sections[0][1])
    # All after Findings.
    span = (text.sentences[body][0], text.sentences[-1][1])
    return _Row(drawing.without_image[named], *opened(text, [span], drawing.canvas, corruption, drawing.eos, rng))


def _asked(drawing: Drawing, findings: Findings, style: str, named: str | None, rng: np.random.Generator) -> _Row:
    prompt, text = drawing.prompts[named], None
    report = write_report(findings, style, rng)
    if rng.random() < drawing.corruption.infill:
        insert = _foreign(report.sections, rng) if rng.random() < drawing.corruption.foreign_lock else {}
        question, missing = gap_of(report.sections, insert, rng)
        prompt, text = drawing.asking(question), drawing.encoder.sentences(missing)
    target = filled(text or drawing.encoder(report), drawing.canvas, drawing.eos)
    return _Row(prompt, target, target, np.zeros(drawing.canvas, dtype=np.bool_))


def corrupted(
    encoder: ReportEncoder,
    findings: Findings,
    style: str,
    canvas: int,
    corruption: Corruption,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray, BoolArray]:
    """Target, canvas and noise mask of one phantom, each of shape (canvas,)."""
    control = control_tokens(encoder.tokenizer)
    eos = control.eos
    report = write_report(findings, style, rng)
    kind = rng.random()
    if kind >= 1 - corruption.doubt:
        return doubtful(encoder, findings, style, canvas, (eos, control.pad), rng)
    if kind >= corruption.infill + corruption.shift:
        target = filled(encoder(report), canvas, eos)
        return target, target, plain_noise(len(target), corruption, rng)
    # Nothing is drawn where there is no such share, so that batches of earlier recipes stay what they were.
    if corruption.sparse and rng.random() < corruption.sparse:
        return _sparse(encoder, report, canvas, corruption, eos, rng)
    insert = _foreign(report.sections, rng) if rng.random() < corruption.foreign_lock else None
    tokens = encoder(report, insert)
    if kind < corruption.shift:
        return shifted(tokens, canvas, corruption, eos, rng)
    target = filled(tokens, canvas, eos)
    return target, target, gap_noise(tokens, canvas, rng)


def _sparse(
    encoder: ReportEncoder,
    report: PhantomReport,
    canvas: int,
    corruption: Corruption,
    eos: int,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray, BoolArray]:
    """Findings of which a clinician has written a part: taken for all there is to say, or completed around it.

    Nothing is asked to be written as sparsely: a model learns to leave out from that.
    """
    (name, body), *others = report.sections
    if rng.random() < 0.5:
        share = rng.random()
        body = tuple(one for one in body if rng.random() < share) or (body[int(rng.integers(len(body)))],)
        sections = ((name, body), *others)
        insert = _foreign(sections[:1], rng) if rng.random() < corruption.foreign_lock else None
        text, standing = encoder(PhantomReport(report.style, sections), insert), list(range(len(body)))
    else:
        text = encoder(report)
        standing = sorted(rng.choice(len(body), min(len(body), int(rng.integers(1, 3))), replace=False).tolist())
    return opened(text, gaps_around(text, standing, len(body), canvas), canvas, corruption, eos, rng)


def gaps_around(text: TokenText, standing: Sequence[int], body: int, canvas: int) -> list[tuple[int, int]]:
    """The gaps around sentences that stand among the `body` ones of Findings, as a request has them.

    Impression is open. Where the end of Findings is too, all that follows the last lock is written as a draft is, its
    header and the end of turn included.
    """
    sentences, spans = text.sentences, []
    begin = sentences[0][0]
    for at in standing:
        if begin < sentences[at][0]:
            spans.append((begin, sentences[at][0]))
        begin = sentences[at][1]
    last = (sentences[body][0], sentences[-1][1]) if standing[-1] == body - 1 else (begin, room(text, canvas))
    return [*spans, last]


def _foreign(sections: Sequence[tuple[str, Sequence[str]]], rng: np.random.Generator) -> dict[tuple[str, int], str]:
    """A remark before some sentence of one of these sections."""
    name, sentences = sections[int(rng.integers(len(sections)))]
    remark = REMARKS[rng.integers(len(REMARKS))]
    if rng.random() < 0.2:
        # Text of another script or garbage: the bytes of a small vocabulary.
        remark = "".join(chr(int(code)) for code in rng.integers(0x20, 0x2FF, rng.integers(3, 12)))
    return {(name, int(rng.integers(len(sentences)))): remark}
