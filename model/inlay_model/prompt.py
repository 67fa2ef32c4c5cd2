"""The prompt: chat template, image tokens and instruction, and (where a checkpoint wants them) the locked fragments.

It is tokenised in two pieces: one that every request about a study shares, whose encoding is cached, and the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from inlay_model.errors import CheckpointProblem
from inlay_model.tokens import Tokenizer, control_tokens, encode_markup, encode_plain, token_name


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised prompt of T tokens; the first `shared` of them do not depend on what is locked or wished.

    `mm_token_type_ids` are 1 on image tokens and 0 elsewhere, as Gemma4Processor makes them. Mind that
    DiffusionGemma's forward ignores them: attention inside an image is bidirectional only under the masks of
    `inlay_model.prefix.encoder_masks`, which `generate` and our engine pass, and a trainer must pass too.
    """

    ids: tuple[int, ...]
    mm_token_type_ids: tuple[int, ...]
    shared: int


def instruction(sections: Sequence[str], style: str | None = None) -> str:
    """The instruction of a report request, the same for drafts and infills."""
    names = ", ".join(title(name) for name in sections)
    text = f"Write the radiology report. Sections: {names}."
    return f"{text} Style: {style}." if style else text


def title(section_name: str) -> str:
    """A section's name as it stands in prompt and canvas: `findings` is `Findings`."""
    return section_name.strip().capitalize()


def build_prompt(
    tokenizer: Tokenizer,
    image_soft_tokens: int | Sequence[int],
    instruction: str,
    locked: Sequence[str] = (),
    wish: str = "",
    comparison: str = "",
) -> Prompt:
    """Prompt of one user turn: images, instruction, comparison, locked fragments, a wish, the model's turn opened.

    `image_soft_tokens` is the number of soft tokens of the image, or one number per image (none: text only), as the
    image processor reports in `num_soft_tokens_per_image`. Each image placeholder of the template is expanded into
    begin-of-image, that many image tokens, end-of-image: without locks the ids equal those of Gemma4Processor.
    """
    counts = [image_soft_tokens] if isinstance(image_soft_tokens, int) else list(image_soft_tokens)
    content = [{"type": "image"} for _ in counts] + [{"type": "text", "text": instruction}]
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    before, after = _split_at_end_of_user_turn(tokenizer, _expand_images(tokenizer, rendered, counts))
    shared = [*encode_markup(tokenizer, before), *(encode_plain(tokenizer, comparison) if comparison else [])]
    wished = encode_plain(tokenizer, wish) if wish else []
    ids = [*shared, *_locked_part(tokenizer, locked), *wished, *encode_markup(tokenizer, after)]
    image = control_tokens(tokenizer).image
    types = tuple(int(token == image) for token in ids)
    return Prompt(ids=tuple(ids), mm_token_type_ids=types, shared=len(shared))


def _expand_images(tokenizer: Tokenizer, rendered: str, counts: Sequence[int]) -> str:
    image, begin, end = (token_name(tokenizer, role) for role in ("image", "begin_image", "end_image"))
    pieces = rendered.split(image)
    if len(pieces) != len(counts) + 1:
        raise CheckpointProblem(f"The chat template shows {len(pieces) - 1} images where {len(counts)} were given.")
    expanded = pieces[0]
    for count, piece in zip(counts, pieces[1:], strict=True):
        expanded += f"{begin}{image * count}{end}{piece}"
    return expanded


def _split_at_end_of_user_turn(tokenizer: Tokenizer, rendered: str) -> tuple[str, str]:
    # A control token is a boundary for every tokenizer, so the two pieces give the ids of the whole.
    at = rendered.rfind(token_name(tokenizer, "end_of_turn"))
    if at < 0:
        raise CheckpointProblem("The chat template does not close the user's turn.")
    return rendered[:at], rendered[at:]


def _locked_part(tokenizer: Tokenizer, locked: Sequence[str]) -> list[int]:
    shown = [" ".join(text.split()) for text in locked]
    lines = "".join(f"\n- {text}" for text in shown if text)
    return encode_plain(tokenizer, f"\nKeep these statements word for word:{lines}") if lines else []
