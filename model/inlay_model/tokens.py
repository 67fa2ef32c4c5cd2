"""What the package asks of a tokenizer, and the control tokens: read from the tokenizer, never hard-coded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inlay_model.errors import CheckpointProblem


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    def __call__(self, text: str, **kwargs: Any) -> Any:
        """Token ids and masks of a text."""

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> Any:
        """Text of token ids."""

    def convert_tokens_to_ids(self, tokens: str) -> Any:
        """Id of one token."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """A conversation in the model's own format."""


@dataclass(frozen=True, slots=True)
class Control:
    """Ids of the control tokens that canvas and prompt are built from."""

    pad: int
    eos: int
    bos: int
    end_of_turn: int
    image: int
    begin_image: int
    end_image: int


# Names of Gemma 4, used where the tokenizer does not name the token by an attribute of its own.
_NAMES = {
    "pad": ("pad_token", "<pad>"),
    "eos": ("eos_token", "<eos>"),
    "bos": ("bos_token", "<bos>"),
    "end_of_turn": ("eot_token", "<turn|>"),
    "image": ("image_token", "<|image|>"),
    "begin_image": ("boi_token", "<|image>"),
    "end_image": ("eoi_token", "<image|>"),
}


def token_name(tokenizer: Tokenizer, role: str) -> str:
    """Text of the control token in this role (a field of `Control`)."""
    attribute, default = _NAMES[role]
    return str(getattr(tokenizer, attribute, None) or default)


def control_tokens(tokenizer: Tokenizer) -> Control:
    """Ids of all control tokens; raises `CheckpointProblem` naming the first one that the vocabulary lacks."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids: dict[str, int] = {}
    for role in _NAMES:
        name = token_name(tokenizer, role)
        found = tokenizer.convert_tokens_to_ids(name)
        if found is None or found == unknown:
            raise CheckpointProblem(f"The tokenizer has no token {name} ({role}); is this a DiffusionGemma checkpoint?")
        ids[role] = int(found)
    return Control(**ids)


def encode_markup(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of our own text, in which names of control tokens mean the control tokens."""
    return _encode(tokenizer, text, plain=False)


def encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of somebody's text: a control token spelled out in it is ordinary text.

    Without this a lock reading `<turn|>` would end the turn, in the canvas as in the prompt.
    """
    return _encode(tokenizer, text, plain=True)


def encode_plain_with_spans(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """As `encode_plain`, with the characters [start, end) of the text that each token is made of."""
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return [int(token) for token in encoded["input_ids"]], [(int(a), int(b)) for a, b in encoded["offset_mapping"]]


def _encode(tokenizer: Tokenizer, text: str, *, plain: bool) -> list[int]:
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=plain)
    return [int(token) for token in encoded["input_ids"]]
