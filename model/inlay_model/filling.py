"""Filling gaps in reading order: what was written before is locked, what comes after is open; the end like a draft."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import torch

from inlay_model.answer import open_ended
from inlay_model.calibration import probability
from inlay_model.call import Call
from inlay_model.canvas import Frame, Hole, Layout, encode_fragment, fill, header, sentences
from inlay_model.errors import CanvasOverflow
from inlay_model.gaps import Policy, Scored, Search, mean_log_probability, watched
from inlay_model.loading import Checkpoint
from inlay_model.passes import Passes
from inlay_model.request import Alternative, Gap, Lock
from inlay_model.second_look import DOUBTED_IN_A_GAP, sentence_parts
from inlay_model.transcript import (
    decode,
    ends_sentence,
    fill_text,
    is_short,
    parse_draft,
    until_end_of_turn,
    whole_sentences,
    within_section,
)

# How often the lengths are gone through for different texts: most of what there is to find comes in the first round.
_ROUNDS = 2
# How much worse (nats per token) the locked text may be foretold at a length that is still worth writing out. On
# phantoms of seed 1 a wrong length was 2 or more below the right one wherever text of the right length was garbled.
_FAR = 1.5
# The least that can follow the last lock of a request: a header, a word, the end of turn.
_TAIL = 8


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way of filling gaps: its layout, the tokens, the text of every gap, and how sure the model was of them.

    `short` is whether a text has fewer tokens than its gap asks for: the canvas had as many, but a text is cut after
    its last sentence, and control characters are no part of it. `doubt` is what the second look says of it
    (`second_look.regrets`; zero where there was none). `alternatives` has for every gap the texts that it might hold,
    best first; empty where one only was asked for.
    """

    layout: Layout
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    whole: bool
    score: float
    steps: int
    short: bool = False
    doubt: float = 0.0
    alternatives: tuple[tuple[Alternative, ...], ...] = ()

    @property
    def doubted(self) -> bool:
        """Whether the model would not write this again."""
        return self.doubt > DOUBTED_IN_A_GAP


@dataclass(frozen=True, slots=True)
class Filling:
    """How the gaps of one call are filled: the search's policy, and which tokens must not stand in a gap."""

    call: Call
    policy: Policy
    banned_V: torch.Tensor

    def fill(self, frame: Frame) -> Passes[Attempt]:
        """Fill the gaps in reading order, each with what was written before it as locked text.

        The gaps after it stand open, of a typical length. Were they closed, the model would see a report in which
        sentences are missing and only one place for them, and would write what belongs into the others there too.
        """
        holes = frame.blocks.holes
        unfinished = open_ended(self.call.sections)
        attempts: list[Attempt] = []
        written: list[list[int]] = []
        trailing = frame.blocks.trailing if not any(_is_bounded(hole.gap) for hole in holes) else 0
        if trailing != frame.blocks.trailing:
            frame = replace(frame, blocks=frame.blocks.closed())
        # A trailing part needs at least a header and the end of turn.
        frame = replace(frame, reserved=_TAIL * bool(trailing))
        # Of gaps side by side the first holds what there is to say.
        doubled = {hole for hole in range(1, len(holes)) if _side_by_side(holes[hole - 1], holes[hole])}
        for hole, place in enumerate(holes[: len(holes) - trailing]):
            if hole in doubled:
                attempts.append(replace(attempts[-1], texts=("",), steps=0, alternatives=((),)))
                written.append([])
                continue
            settled = dict.fromkeys(doubled, ()) | dict(enumerate(written))
            here = replace(frame, blocks=frame.blocks.filled(settled))
            said = self._said_beside(place, attempts)
            attempts.append((yield from self._fill_first(here, said, open_ended=unfinished[hole])))
            written.append(self._as_written(attempts[-1], place.gap))
        if trailing:
            return (yield from self._fill_trailing(frame, attempts, written))
        return attempts[0] if len(attempts) == 1 else _joint(frame, attempts, written)

    def _said_beside(self, place: Hole, attempts: Sequence[Attempt]) -> frozenset[str]:
        """The sentences that stand in this gap's section already: locked ones, and those of the gaps before it."""
        locked = (item.text for item in self.call.sections[place.section].items if isinstance(item, Lock))
        return frozenset(sentence for text in (*locked, *_texts(attempts)) for sentence in sentences(text))

    def _fill_first(self, frame: Frame, said: frozenset[str], *, open_ended: bool) -> Passes[Attempt]:
        """Fill the first of the frame's gaps; a text that repeats what is `said` is the last choice."""
        noise_L = torch.randint(
            self._checkpoint.vocabulary,
            (frame.canvas_length,),
            generator=self.call.generator,
            device=self._checkpoint.model.device,
        )
        self.call.check_cancelled()
        wanted = self.call.settings.alternatives
        ranking = yield from Search(frame, self.policy, noise_L).first()
        attempts: list[Attempt] = []
        good: dict[str, Attempt] = {}
        for candidate, others in tries(ranking, self.call.settings.fill_attempts, wanted):
            self.call.check_cancelled()
            lengths = [candidate.length, *others]
            # What came out badly from the previous version is begun from noise.
            attempt = yield from self._attempt(frame, lengths, open_ended=open_ended, warm=not attempts)
            if attempt.whole and not attempt.short and not _repeats(attempt, said):
                doubt = yield from self._doubt(attempt.ids, *attempt.layout.spans[0])
                attempt = replace(attempt, doubt=doubt)
                if not attempt.doubted:
                    good.setdefault(attempt.texts[0], attempt)
            attempts.append(attempt)
            if len(good) == wanted:
                break
        best = max(
            attempts,
            key=lambda one: (
                one.whole,
                not one.short,
                not _repeats(one, said),
                not one.doubted,
                -one.doubt,
                one.score,
            ),
        )
        if not open_ended and not frame.blocks.holes[0].gap.min_tokens and _repeats(best, said):
            # Nobody writes a sentence twice: what is left of the text without it is what the gap was for.
            best = replace(best, texts=(" ".join(one for one in sentences(best.texts[0]) if one not in said),))
        return best if wanted == 1 else (yield from self._chosen(list(good.values()) or [best]))

    def _chosen(self, found: Sequence[Attempt]) -> Passes[Attempt]:
        """The best of these ways to fill one gap, all of them as its alternatives.

        The score is the mean log-probability of the text and of the locked text after it, in one pass over the finished
        canvases.
        """
        device = self._checkpoint.model.device
        canvas_BL = torch.tensor([attempt.ids for attempt in found], device=device)
        spans = [range(*attempt.layout.spans[0]) for attempt in found]
        places = [[*span, *watched(attempt.layout, 0, self.policy)] for span, attempt in zip(spans, found, strict=True)]
        scores = yield from mean_log_probability(canvas_BL, places)
        order = sorted(range(len(found)), key=lambda at: -scores[at])
        alternatives = tuple(self._told(found[at].texts[0], scores[at]) for at in order)
        return replace(found[order[0]], alternatives=(alternatives,))

    def _told(self, text: str, score: float) -> Alternative:
        """A text with its score, and its probability where the checkpoint has a curve for texts of one gap.

        Texts that are written to the end of a report are scored by more than their gap, and those of a rewriting by how
        they say what stood there: no curve is known for these.
        """
        curve = () if self.call.context.rewrite else self._checkpoint.about.calibration
        return Alternative(text, score, probability(curve, score) if curve else None)

    def _doubt(self, ids: Sequence[int], begin: int, end: int) -> Passes[float]:
        """What a second look says of the text between these positions, at its worst; zero where none is taken."""
        if not self.call.settings.second_look:
            return 0.0
        parts = sentence_parts(self._checkpoint.tokenizer, ids[begin:end], begin)
        doubt = max((yield from self.call.looked_at(ids, parts)), default=0.0)
        self.call.looks.doubted += doubt > DOUBTED_IN_A_GAP
        return doubt

    def _attempt(self, frame: Frame, lengths: Sequence[int], *, open_ended: bool, warm: bool) -> Passes[Attempt]:
        layout = frame.layout(lengths)
        before = self._before(frame.blocks.holes, layout) if warm else None
        done = yield from self.call.denoised(layout, self.banned_V, before)
        ids = tuple(done.ids_BL[0].tolist())
        (begin, end), *_ = layout.spans
        tokenizer, hole = self._checkpoint.tokenizer, frame.blocks.holes[0]
        raw = fill_text(tokenizer, ids[begin:end])
        said = within_section(raw, self._names[hole.section], self._names)
        text = said if open_ended else (whole_sentences(said) or said)
        whole = text == raw and (open_ended or ends_sentence(raw))
        short = is_short(tokenizer, text, hole.gap)
        return Attempt(layout, ids, (text,), whole, -done.doubts[0], done.steps, short)

    def _before(self, holes: Sequence[Hole], layout: Layout) -> dict[int, int]:
        """Tokens of the previous version by their places, of gaps that are as long as what they replace."""
        found: dict[int, int] = {}
        for hole, (begin, end) in zip(holes, layout.spans, strict=True):
            ids = encode_fragment(self._checkpoint.tokenizer, hole.gap.replaces or "")
            if len(ids) == end - begin:
                found |= dict(zip(range(begin, end), ids, strict=True))
        return found

    def _before_trailing(self, frame: Frame, begin: int) -> dict[int, int]:
        """Tokens of the previous version's end, with its headers; none where a gap does not say what it replaces."""
        blocks, control = frame.blocks, self._checkpoint.control
        holes = blocks.holes[len(blocks.holes) - blocks.trailing :]
        if any(hole.gap.replaces is None for hole in holes):
            return {}
        ids: list[int] = []
        for part in blocks.parts[blocks.parts.index(holes[0]) :]:
            text = part.gap.replaces or "" if isinstance(part, Hole) else ""
            ids += encode_fragment(self._checkpoint.tokenizer, text) if isinstance(part, Hole) else part
        places = range(begin, frame.canvas_length)
        return dict(zip(places, fill(ids, len(places), control.eos), strict=False))

    def _fill_trailing(
        self, frame: Frame, attempts: Sequence[Attempt], written: Sequence[Sequence[int]]
    ) -> Passes[Attempt]:
        """Write everything after the last lock in one go, headers included, and cut it at them."""
        checkpoint, holes = self._checkpoint, frame.blocks.holes
        head = frame.blocks.before_trailing(written)
        size = frame.canvas_length - len(head)
        if size < _TAIL:
            raise CanvasOverflow(needed=len(head) + _TAIL, available=frame.canvas_length)
        span = (len(head), frame.canvas_length)
        layout = Layout((*head, *[checkpoint.control.eos] * size), (*[False] * len(head), *[True] * size), (span,))
        open_holes = holes[len(attempts) :]
        names = self._names[open_holes[0].section :]
        steps, wanted = 0, self.call.settings.alternatives
        good: dict[tuple[str, ...], tuple[int, ...]] = {}
        tried: list[tuple[bool, bool, tuple[str, ...], tuple[int, ...]]] = []
        # The generator has gone on, so another attempt is another text.
        for _ in range(self.call.settings.fill_attempts if wanted == 1 else _ROUNDS * wanted):
            self.call.check_cancelled()
            before = None if tried else self._before_trailing(frame, len(head))
            done = yield from self.call.denoised(layout, before=before)
            steps += done.steps
            written_ids = until_end_of_turn(done.ids_BL[0].tolist(), checkpoint.control)[len(head) :]
            texts, complete = parse_draft(header(0, names[0]) + decode(checkpoint.tokenizer, written_ids), names)
            said = [within_section(text, name, self._names) for text, name in zip(texts, names, strict=True)]
            found = {open_holes[0].section + at: text for at, text in enumerate(said)}
            # Of several gaps side by side the first holds the text.
            filled = tuple(found.pop(hole.section, "") for hole in open_holes)
            whole = complete and said == texts and all(ends_sentence(text) for text in filled if text)
            ids = tuple(done.ids_BL[0].tolist())
            # The end of turn is part of what was written.
            end = min(len(head) + len(written_ids) + 1, len(ids))
            stands = whole and (yield from self._doubt(ids, len(head), end)) <= DOUBTED_IN_A_GAP
            tried.append((whole, stands, filled, ids))
            if stands:
                good.setdefault(filled, ids)
            if len(good) == wanted:
                break
        # At worst something is said rather than nothing.
        whole, _, filled, ids = max(tried, key=lambda one: (*one[:2], any(one[2])))
        ranked = [(filled, 0.0)]
        if wanted > 1:
            ranked = yield from self._ranked_ends(good or {filled: ids}, len(head))
            filled = ranked[0][0]
            ids = good.get(filled, ids)
        return Attempt(
            layout=layout,
            ids=ids,
            texts=(*_texts(attempts), *filled),
            whole=whole and all(attempt.whole for attempt in attempts),
            score=min((attempt.score for attempt in attempts), default=0.0),
            steps=steps + sum(attempt.steps for attempt in attempts),
            alternatives=(*_alternatives(attempts), *_of_each(ranked)) if wanted > 1 else (),
        )

    def _ranked_ends(
        self, found: Mapping[tuple[str, ...], tuple[int, ...]], begin: int
    ) -> Passes[list[tuple[tuple[str, ...], float]]]:
        """Texts of the trailing gaps with their scores, best first: mean log-probabilities of all that was written."""
        canvas_BL = torch.tensor(list(found.values()), device=self._checkpoint.model.device)
        ends = [len(until_end_of_turn(ids[begin:], self._checkpoint.control)) + begin for ids in found.values()]
        last = self._checkpoint.canvas_length - 1
        places = [range(begin, min(end, last) + 1) for end in ends]
        scores = yield from mean_log_probability(canvas_BL, places)
        return sorted(zip(found, scores, strict=True), key=lambda pair: -pair[1])

    def _as_written(self, attempt: Attempt, gap: Gap) -> list[int]:
        """Token ids of a filled gap as later gaps see it: the returned text, or the raw tokens where bounds count."""
        text = encode_fragment(self._checkpoint.tokenizer, attempt.texts[0])
        (begin, end) = attempt.layout.spans[0]
        return text if len(text) >= gap.min_tokens and len(text) <= end - begin else list(attempt.ids[begin:end])

    @property
    def _checkpoint(self) -> Checkpoint:
        return self.call.checkpoint

    @property
    def _names(self) -> list[str]:
        return [section.name for section in self.call.sections]


def banned_in_gaps(checkpoint: Checkpoint) -> torch.Tensor:
    """True for tokens that must not stand inside a gap: control tokens, and everything that breaks the line."""
    tokenizer: Any = checkpoint.tokenizer
    banned_V = torch.zeros(checkpoint.vocabulary, dtype=torch.bool)
    for token, index in tokenizer.get_vocab().items():
        if index < checkpoint.vocabulary and ("\n" in token or "\r" in token or token in {"<0x0A>", "<0x0D>"}):
            banned_V[index] = True
    banned_V[[index for index in tokenizer.all_special_ids if index < checkpoint.vocabulary]] = True
    return banned_V.to(checkpoint.model.device)


def tries(
    ranking: Sequence[tuple[Scored, list[int]]], attempts: int, wanted: int
) -> Sequence[tuple[Scored, list[int]]]:
    """The lengths to be written out at most: those nearly as good as the best, in turns, for noise differs.

    What came out badly at the one length that fits is no reason to write something of a length that does not; nor is it
    one to write the same length beside others of the later gaps while another length is as good. Where several texts
    are wanted all of the best lengths are, again and again: what they hold is ranked afterwards.
    """
    if wanted > 1:
        return [*ranking[: max(attempts, wanted)]] * _ROUNDS
    near = [pair for pair in ranking if pair[0].score > ranking[0][0].score - _FAR]
    first: dict[int, tuple[Scored, list[int]]] = {}
    for pair in near:
        first.setdefault(pair[0].length, pair)
    again = [pair for pair in near if first[pair[0].length] is not pair]
    return list(islice(cycle([*first.values(), *again][:attempts]), attempts))


def _side_by_side(one: Hole, other: Hole) -> bool:
    free = not _is_bounded(one.gap) and not _is_bounded(other.gap)
    return free and one.section == other.section and one.item + 1 == other.item


def _texts(attempts: Sequence[Attempt]) -> tuple[str, ...]:
    return tuple(text for attempt in attempts for text in attempt.texts)


def _alternatives(attempts: Sequence[Attempt]) -> tuple[tuple[Alternative, ...], ...]:
    return tuple(texts for attempt in attempts for texts in attempt.alternatives)


def _of_each(ranked: Sequence[tuple[tuple[str, ...], float]]) -> tuple[tuple[Alternative, ...], ...]:
    """Per gap its different texts in the order of their reports; a text has the score of its best report."""
    gaps: list[dict[str, float]] = [{} for _ in ranked[0][0]]
    for texts, score in ranked:
        for gap, text in zip(gaps, texts, strict=True):
            gap.setdefault(text, score)
    return tuple(tuple(Alternative(text, score) for text, score in gap.items()) for gap in gaps)


def _repeats(attempt: Attempt, said: frozenset[str]) -> bool:
    return any(sentence in said for sentence in sentences(attempt.texts[0]))


def _is_bounded(gap: Gap) -> bool:
    return gap.min_tokens > 0 or gap.max_tokens is not None


def _joint(frame: Frame, attempts: Sequence[Attempt], written: Sequence[Sequence[int]]) -> Attempt:
    """The gaps filled one after the other as one answer; the score is that of the worst of them."""
    layout = frame.layout([len(ids) for ids in written])
    ids = list(layout.ids)
    for (begin, end), tokens in zip(layout.spans, written, strict=True):
        ids[begin:end] = tokens
    return Attempt(
        layout=layout,
        ids=tuple(ids),
        texts=_texts(attempts),
        whole=all(attempt.whole for attempt in attempts),
        score=min((attempt.score for attempt in attempts), default=0.0),
        steps=sum(attempt.steps for attempt in attempts),
        short=any(attempt.short for attempt in attempts),
        alternatives=_alternatives(attempts),
    )
