"""Temperature over the denoising steps, and when a canvas is done. Pure numbers; parity with transformers is tested."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampler:
    """The numbers of one run, none left open: steps at most, temperatures, entropy bound (nats), stopping."""

    steps: int
    t_min: float
    t_max: float
    entropy_bound: float
    stability_threshold: int
    confidence_threshold: float
    early_stop: bool
    # Shares of the step budget after which a canvas that has not settled begins its tail again; none: never.
    begin_again: tuple[float, ...] = ()
    # Whether a step that accepts every free position is the last one: nothing is left to denoise.
    stop_when_accepted: bool = False


# Where accepted tokens contradict each other, acceptance by entropy alone never mends them: on phantom drafts one in
# ten was stuck so, and half of those were garbled. Beginning the tail again mended six in ten of the garbled.
BEGIN_AGAIN = (0.45, 0.75)


def begins_again(taken: int, sampler: Sampler) -> bool:
    """Whether an unsettled canvas begins its tail again after this many steps."""
    return taken in {round(share * sampler.steps) for share in sampler.begin_again} and taken < sampler.steps


def temperature(steps_left: int, sampler: Sampler) -> float:
    """Linear from t_max at the first step towards t_min: `steps_left` counts down from `steps` to 1."""
    return sampler.t_min + (sampler.t_max - sampler.t_min) * (steps_left / sampler.steps)


def is_done(same_for: int, mean_entropy: float, sampler: Sampler) -> bool:
    """Whether a row may stop: its argmax unchanged for enough steps, its free positions confident on average.

    `mean_entropy` is over free positions only. Over the whole canvas, locked positions (entropy zero) would dilute it:
    with 20 free of 256 the criterion would be 13 times laxer.
    """
    if not sampler.early_stop:
        return False
    return same_for >= sampler.stability_threshold and mean_entropy < sampler.confidence_threshold
