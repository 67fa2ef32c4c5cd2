import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay_core.domain.errors import Invalid
from inlay_core.domain.job import JobKind
from inlay_core.domain.switch import GENERATION, Allowance, Scope, Writer

words = st.none() | st.text(min_size=1, max_size=12).filter(lambda text: text.strip() and "\x00" not in text)


@given(st.none() | st.sampled_from(JobKind), words, words, words)
def test_a_name_says_what_is_covered(
    use: JobKind | None, site: str | None, modality: str | None, model: str | None
) -> None:
    """The scope is read back from the name, whatever stands in it: two scopes never share a switch."""
    scope = Scope(use, site, modality, model)
    assert Scope.named(scope.name) == scope


def test_the_kill_switch_has_the_plain_name() -> None:
    """What covers everything is called as it always was."""
    assert Scope().name == GENERATION
    assert Scope(JobKind.DRAFT, "NORTH").name == "generation?use=draft&site=NORTH"


@pytest.mark.parametrize("name", ["", "other", "generation?color=red", "generation?use=signing", "generation?site="])
def test_other_names_are_no_switches(name: str) -> None:
    """What names no scope is refused."""
    with pytest.raises(Invalid):
        Scope.named(name)


@pytest.mark.parametrize("value", ["", " ", "x" * 121, "a\x00b"])
def test_values_have_a_length(value: str) -> None:
    """Empty and endless values are refused, naming the part."""
    with pytest.raises(Invalid) as refused:
        Scope.of(site=value)
    assert refused.value.place == "site"


def test_stops_for_a_writer_name_no_model() -> None:
    """What stops all that a worker could do leaves it no kinds; stops of other models are no matter of its."""
    stops = (Scope(model="a"), Scope(JobKind.INFILL), Scope(site="N", model="b"), Scope(modality="CT", model="d"))
    allowed = Allowance(frozenset(JobKind), stops)
    assert allowed.for_writer(Writer("a", "x")).kinds == frozenset()
    mine = allowed.for_writer(Writer("c", "d"))
    assert mine == Allowance(frozenset({JobKind.DRAFT}), (Scope(modality="CT"),))
