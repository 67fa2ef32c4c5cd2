"""The demonstration checkpoint's vocabulary: a small byte-pair encoding laid out like Gemma's.

Blanks are part of the word that follows them, every digit stands alone, and what no merge knows falls back to
bytes, so that any text can be encoded. Special tokens carry Gemma 4's names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS: tuple[str, ...] = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<|turn>",
    "<turn|>",
    "<|image>",
    "<image|>",
    "<|image|>",
    # Gemma4Processor adds this one to a vocabulary that lacks it, which would enlarge the embedding.
    "<|video|>",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)

_WORD_START = "▁"


def build_vocabulary(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a byte-pair encoding of `size` tokens: special tokens, 256 bytes, characters, merges."""
    learner = _pipeline(models.BPE(unk_token="<unk>"))
    room = size - len(SPECIAL_TOKENS) - 256 + 1  # the learner counts <unk> too
    trainer = trainers.BpeTrainer(vocab_size=room, special_tokens=["<unk>"], show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = [piece for piece in sorted(learned["vocab"], key=learned["vocab"].get) if piece != "<unk>"]
    names = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {name: index for index, name in enumerate(names)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = _pipeline(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_WORD_START, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    return tokenizer


def as_pretrained(tokenizer: Tokenizer) -> Any:
    """The tokenizer as transformers loads and saves it, with Gemma 4's names for its special tokens."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "sot_token": "<|turn>",
            "eot_token": "<turn|>",
        },
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _pipeline(model: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", _WORD_START)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORD_START, behavior="merged_with_next"),
            pre_tokenizers.Split(Regex(r"[0-9.,:;!?\n-]"), behavior="isolated"),
        ]
    )
    return tokenizer
