"""A DiffusionGemma small enough for unit tests: the real transformers classes, random weights, a few words."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer
from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaConfig
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaForBlockDiffusion

from inlay_model.loading import make_image_processor

CANVAS = 64
# The blocks that all tiny models of the tests have in common.
TINY_TEXT: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 512,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 24,
    "use_bidirectional_attention": "vision",
    "max_position_embeddings": 1024,
}
TINY_VISION: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "position_embedding_size": 64,
}
SPECIAL = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<|turn>",
    "<turn|>",
    "<|image>",
    "<image|>",
    "<|image|>",
    "<|video|>",
]
CORPUS = [
    "Findings: The lungs are clear. The heart is normal in size. No pleural effusion. No pneumothorax.",
    "\nImpression: Right pleural effusion. Left lower lobe consolidation. No acute findings.",
    "Write the radiology report. Sections: Findings, Impression.",
]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<|image|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)


def tiny_tokenizer() -> Any:
    """Gemma-like BPE of about 400 tokens: metaspace, byte fallback, single digits."""
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[*SPECIAL, *byte_tokens], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    state = json.loads(backend.to_str())["model"]
    merges: Any = [tuple(merge) for merge in state["merges"]]
    tokenizer = GemmaTokenizer(
        vocab=state["vocab"],
        merges=merges,
        extra_special_tokens={
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "sot_token": "<|turn>",
            "eot_token": "<turn|>",
            "video_token": "<|video|>",
        },
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_config(tokenizer: Any) -> DiffusionGemmaConfig:
    """Two layers (one sliding, one full), four experts of which two are used, hidden size 32."""
    return DiffusionGemmaConfig(
        text_config={**TINY_TEXT, "vocab_size": len(tokenizer)},
        vision_config={**TINY_VISION, "model_type": "gemma4_vision", "global_head_dim": 16},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        boi_token_id=tokenizer.convert_tokens_to_ids("<|image>"),
        eoi_token_id=tokenizer.convert_tokens_to_ids("<image|>"),
        canvas_length=CANVAS,
    )


def tiny_model(tokenizer: Any, seed: int = 0) -> Any:
    """Random weights, the same for the same seed, sharp enough that logits differ between tokens."""
    torch.manual_seed(seed)
    model: Any = DiffusionGemmaForBlockDiffusion(tiny_config(tokenizer))
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight.normal_(0, 0.6)
    return model.eval()


def save_tiny(folder: Path, **note: Any) -> Path:
    """A checkpoint folder in the ordinary format, as the trainer writes it; `note` goes to inlay.json."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    model.generation_config.update(
        max_denoising_steps=16,
        eos_token_id=[1, tokenizer.convert_tokens_to_ids("<turn|>")],
        pad_token_id=0,
        bos_token_id=2,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_image_processor(max_soft_tokens=70).save_pretrained(folder)
    settings = {"demonstration": False, "name": "tiny", "locked_in_prompt": False, "styles": [], **note}
    (folder / "inlay.json").write_text(json.dumps(settings))
    return folder
