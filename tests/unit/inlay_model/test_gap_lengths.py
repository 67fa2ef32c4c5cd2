import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inlay_model import NotANumber
from inlay_model.canvas import Blocks, Frame, Hole
from inlay_model.filling import tries
from inlay_model.gaps import Policy, Scored, Search, as_fixed, bounds, mean_log_probability, ranked, watched
from inlay_model.passes import driven
from inlay_model.request import Gap
from inlay_model.tokens import Control

V = 40
CONTROL = Control(pad=0, eos=1, bos=2, end_of_turn=3, image=4, begin_image=5, end_image=6)
LEFT, SENTENCE, RIGHT = (10, 11, 12), (20, 21, 22, 23, 24), (30, 31, 32, 33, 34, 35)


def frame_of(gap: Gap, right: tuple[int, ...] = RIGHT, length: int = 32) -> Frame:
    """A canvas with one gap between two runs of locked tokens."""
    return Frame(Blocks((LEFT, Hole(0, 1, gap), (*right, CONTROL.end_of_turn))), length, CONTROL)


class Knowing:
    """A model that knows the report: at every position it foretells what belongs there, whatever stands there."""

    def __init__(self, right: tuple[int, ...] = RIGHT) -> None:
        self.report = [*LEFT, *SENTENCE, *right, CONTROL.end_of_turn]
        self.batches: list[int] = []

    def __call__(
        self,
        canvas_BL: torch.Tensor,
        wanted_BL: torch.Tensor,
        conditioning_BLV: torch.Tensor | None = None,  # noqa: ARG002 - the signature of a reader
    ) -> torch.Tensor:
        """Sharp logits for the report, EOS after its end."""
        self.batches.append(canvas_BL.shape[0])
        tokens = [*self.report, *[CONTROL.eos] * canvas_BL.shape[1]][: canvas_BL.shape[1]]
        logits_LV = torch.nn.functional.one_hot(torch.tensor(tokens), V).float() * 9
        return logits_LV.expand(canvas_BL.shape[0], -1, -1)[wanted_BL]


def ranking_of(frame: Frame, policy: Policy, model: Knowing) -> list[Scored]:
    """What a search finds that reads this model, over noise of a fixed seed."""
    noise_L = torch.randint(V, (frame.canvas_length,), generator=torch.Generator().manual_seed(0))
    ranking = driven(Search(frame, policy, noise_L).first(), model)
    assert all(others == [] for _, others in ranking)
    return [scored for scored, _ in ranking]


@pytest.mark.parametrize("shortlist", [None, 4])
def test_the_length_at_which_the_locked_text_fits_is_found(shortlist: int | None) -> None:
    """Looking at every length, or only at a shortlist from one anchored pass, the true length is ranked first."""
    model = Knowing()
    best, *_ = ranking_of(frame_of(Gap()), Policy(shortlist=shortlist), model)
    assert best.length == len(SENTENCE)
    assert sum(model.batches) == (2 + 4 if shortlist else 32 - len(LEFT) - len(RIGHT) - 1 + 1)


def test_a_gap_at_the_end_is_judged_by_the_end_of_turn() -> None:
    """With nothing but the end of turn after it, the gap's length is still found."""
    model = Knowing(right=())
    best, *_ = ranking_of(frame_of(Gap(), right=()), Policy(shortlist=4), model)
    assert best.length == len(SENTENCE)


def test_bounds_of_the_gap_are_kept_although_another_length_fits() -> None:
    """A minimum above and a maximum below the true length are obeyed; one admissible length needs no pass."""
    model = Knowing()
    for gap in (Gap(min_tokens=8), Gap(max_tokens=3)):
        order = ranking_of(frame_of(gap), Policy(), model)
        assert all(bounds(gap, 22, Policy())[0] <= c.length <= bounds(gap, 22, Policy())[1] for c in order)
    model.batches.clear()
    assert ranking_of(frame_of(Gap(6, 6)), Policy(), model) == [Scored(6, 0.0)]
    assert model.batches == []


def test_the_first_of_two_gaps_is_found_with_lengths_of_the_other() -> None:
    """Each typical length of the second gap is tried within its bounds, the one that fits best comes first."""
    later = (36, 37, 38, CONTROL.end_of_turn)
    for second, best, tried in ((Gap(), 4, {2, 4, 9}), (Gap(max_tokens=4), 4, {2, 4}), (Gap(min_tokens=5), 5, {5, 9})):
        parts = (LEFT, Hole(0, 1, Gap()), RIGHT, Hole(0, 3, second), later)
        model = Knowing(right=(*RIGHT, *[39] * best, *later[:-1]))
        noise_L = torch.randint(V, (48,), generator=torch.Generator().manual_seed(0))
        policy = Policy(shortlist=4, typical=(9, 4, 2))
        ranking = driven(Search(Frame(Blocks(parts), 48, CONTROL), policy, noise_L).first(), model)
        assert (ranking[0][0].length, ranking[0][1]) == (len(SENTENCE), [best])
        assert {others[0] for _, others in ranking} == tried


@given(least=st.integers(0, 30), more=st.one_of(st.none(), st.integers(0, 30)), room=st.integers(0, 60))
def test_bounds_lie_within_gap_and_room(least: int, more: int | None, room: int) -> None:
    """The longest length is within gap, room and the search's own limit, and never below the gap's minimum."""
    gap = Gap(least, None if more is None else least + more)
    shortest, longest = bounds(gap, room, Policy())
    assert shortest == least <= longest
    assert longest <= max(least, min(room, Policy().longest if gap.max_tokens is None else gap.max_tokens))


def test_each_length_that_fits_is_written_out_before_one_is_again() -> None:
    """Nearly as good ones only, also where the best stands first with several lengths of the gap after it."""
    found = [(14, 8), (14, 16), (8, 12), (7, 12)]
    ranking = [(Scored(length, -0.1 * at), [other]) for at, (length, other) in enumerate(found)]
    far = (Scored(3, -9.0), [12])
    assert [pair[0].length for pair in tries([*ranking, far], 3, 1)] == [14, 8, 7]
    assert [(pair[0].length, *pair[1]) for pair in tries([*ranking[:2], far], 3, 1)] == [(14, 8), (14, 16), (14, 8)]
    assert [pair[0].length for pair in tries([ranking[0], far], 3, 1)] == [14, 14, 14]


def test_of_equal_scores_the_shorter_length_wins() -> None:
    """A gap that is too long invents a finding, so ties go to the shorter."""
    assert ranked([Scored(9, -1.0), Scored(4, -1.0), Scored(2, -3.0)])[0].length == 4


def test_only_locked_tokens_judge_and_the_nearest_ones() -> None:
    """The positions watched are the locked ones right after and right before the gap."""
    layout = frame_of(Gap()).layout([5])
    begin, end = layout.spans[0]
    assert watched(layout, 0, Policy(right=4, left=2)) == [begin - 1, begin - 2, end, end + 1, end + 2, end + 3]
    assert not any(layout.free[at] for at in watched(layout, 0, Policy(right=12, left=12)))


def test_a_mean_log_probability_is_that_of_the_tokens_on_the_canvas() -> None:
    """Each row's mean is over its own positions; a row without positions has none and scores zero."""
    layouts = [frame_of(Gap()).layout([len(SENTENCE)])] * 2
    canvas_BL = as_fixed(layouts, torch.device("cpu")).ids_BL
    right = list(range(len(LEFT) + len(SENTENCE), len(LEFT) + len(SENTENCE) + 3))
    sure = float(torch.log_softmax(torch.nn.functional.one_hot(torch.tensor(1), V).float() * 9, -1)[1])
    first, second = driven(mean_log_probability(canvas_BL, [right, []]), Knowing())
    assert abs(first - sure) < 1e-5
    assert second == 0.0


def damaged(
    canvas_BL: torch.Tensor,
    wanted_BL: torch.Tensor,
    conditioning_BLV: torch.Tensor | None = None,
) -> torch.Tensor:
    """A model whose logits are no numbers."""
    return torch.full((int(wanted_BL.sum()), V), torch.nan)


def test_scores_made_of_nan_are_refused_by_name() -> None:
    """No length is better than another then: neither looking at each nor the anchored pass ranks them."""
    frame = frame_of(Gap())
    search = Search(frame, Policy(), torch.zeros(frame.canvas_length, dtype=torch.long))
    for scores in (search.score(0, [5], [4, 5]), search.anchored(0, [5], 0, 10)):
        with pytest.raises(NotANumber):
            driven(scores, damaged)
