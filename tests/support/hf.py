"""Tiny configurations of Hugging Face models, built without downloads, with what pruning finds.

Every model is 32 wide and has two layers of four heads unless its entry says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Batch = Callable[[int], Tensors]

# What the libraries of model families call the same four numbers.
_BERT = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    vocab_size=50,
    max_position_embeddings=40,
)
_GROUPED = _BERT | dict(num_key_value_heads=2, head_dim=8)
_GPT = dict(n_embd=32, n_layer=2, n_head=4, n_inner=48, vocab_size=50, n_positions=40)
_SEQ2SEQ = dict(
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=48,
    decoder_ffn_dim=40,
    vocab_size=50,
    max_position_embeddings=40,
)
_VIT = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    image_size=16,
    patch_size=4,
)
_WAVE = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    conv_dim=(16, 16),
    conv_kernel=(10, 3),
    conv_stride=(5, 2),
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
)
_TWO_TOWERS = dict(
    text_config=_BERT | dict(projection_dim=24, eos_token_id=49),
    vision_config=_VIT | dict(projection_dim=24),
    projection_dim=24,
)


def _tokens(rows: int, length: int = 12) -> Tensor:
    made = torch.Generator().manual_seed(rows)
    return torch.randint(3, 49, (rows, length), generator=made)


def text(rows: int) -> Tensors:
    return {"input_ids": _tokens(rows)}


def masked_text(rows: int) -> Tensors:
    mask = torch.ones(rows, 12, dtype=torch.long)
    mask[0, 9:] = 0
    return {"input_ids": _tokens(rows), "attention_mask": mask}


def pairs(rows: int) -> Tensors:
    return {"input_ids": _tokens(rows), "decoder_input_ids": _tokens(rows, 7)}


def images(side: int = 16) -> Batch:
    return lambda rows: {"pixel_values": _normal(rows, 3, side, side)}


def captioned(rows: int) -> Tensors:
    return {"input_ids": _tokens(rows), "pixel_values": _normal(rows, 3, 16, 16)}


def sound(rows: int) -> Tensors:
    return {"input_values": _normal(rows, 400)}


def spectrum(rows: int) -> Tensors:
    return {"input_features": _normal(rows, 8, 40), "decoder_input_ids": _tokens(rows, 7)}


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


@dataclass(frozen=True)
class Entry:
    """A model type with its options and its inputs."""

    type: str
    options: Mapping[str, Any]
    batch: Batch = text
    auto: str = "AutoModel"
    attention: str = "sdpa"

    def model(self) -> nn.Module:
        """In eval mode, with weights large enough that every unit counts."""
        import transformers

        config = transformers.AutoConfig.for_model(self.type, **self.options)
        config.use_cache = False
        torch.manual_seed(0)
        auto = getattr(transformers, self.auto)
        made = auto.from_config(config, attn_implementation=self.attention).eval()
        for parameter in made.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        return made


ENTRIES: dict[str, Entry] = {
    "bert": Entry("bert", _BERT, masked_text),
    "bert-eager": Entry("bert", _BERT, masked_text, attention="eager"),
    "roberta": Entry("roberta", _BERT, masked_text),
    "xlm-roberta": Entry("xlm-roberta", _BERT),
    "camembert": Entry("camembert", _BERT),
    "electra": Entry("electra", _BERT | dict(embedding_size=24), masked_text),
    "mpnet": Entry("mpnet", _BERT, masked_text, attention="eager"),
    "albert": Entry("albert", _BERT | dict(embedding_size=24), masked_text),
    "distilbert": Entry(
        "distilbert",
        dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=50),
        masked_text,
    ),
    "deberta-v2": Entry(
        "deberta-v2",
        _BERT
        | dict(
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
        ),
        masked_text,
        attention="eager",
    ),
    "modernbert": Entry("modernbert", _BERT | dict(pad_token_id=0, local_attention=8), masked_text),
    "gpt2": Entry("gpt2", _GPT, masked_text, auto="AutoModelForCausalLM"),
    "gpt2-eager": Entry("gpt2", _GPT, attention="eager"),
    "gpt-neo": Entry(
        "gpt_neo",
        dict(
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            intermediate_size=48,
            vocab_size=50,
            max_position_embeddings=40,
            window_size=8,
            attention_types=[[["global", "local"], 1]],
        ),
        attention="eager",
    ),
    "gpt-neox": Entry("gpt_neox", _BERT),
    "gptj": Entry("gptj", _GPT | dict(rotary_dim=4), attention="eager"),
    "opt": Entry(
        "opt",
        dict(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=48,
            vocab_size=50,
            max_position_embeddings=40,
            word_embed_proj_dim=32,
        ),
        masked_text,
    ),
    "bloom": Entry(
        "bloom",
        dict(hidden_size=32, n_layer=2, n_head=4, vocab_size=50),
        masked_text,
        attention="eager",
    ),
    "llama": Entry("llama", _GROUPED, masked_text, auto="AutoModelForCausalLM"),
    "llama-eager": Entry("llama", _GROUPED, attention="eager"),
    "mistral": Entry("mistral", _GROUPED | dict(sliding_window=8)),
    "qwen2": Entry("qwen2", _GROUPED),
    "qwen3": Entry("qwen3", _GROUPED),
    "gemma": Entry("gemma", _GROUPED | dict(head_dim=6)),
    "gemma2": Entry("gemma2", _GROUPED, attention="eager"),
    "gemma3": Entry("gemma3_text", _GROUPED),
    "phi": Entry("phi", _BERT),
    "phi3": Entry("phi3", _BERT | dict(num_key_value_heads=2, pad_token_id=0)),
    "falcon": Entry(
        "falcon", _BERT | dict(ffn_hidden_size=48, new_decoder_architecture=True, num_kv_heads=2)
    ),
    "falcon-mq": Entry("falcon", _BERT | dict(ffn_hidden_size=48, multi_query=True)),
    "mixtral": Entry("mixtral", _GROUPED | dict(num_local_experts=3)),
    "qwen2-moe": Entry(
        "qwen2_moe",
        _GROUPED
        | dict(
            num_experts=3,
            num_experts_per_tok=2,
            moe_intermediate_size=20,
            shared_expert_intermediate_size=28,
        ),
    ),
    "olmo2": Entry("olmo2", _GROUPED),
    "stablelm": Entry("stablelm", _GROUPED),
    "starcoder2": Entry("starcoder2", _GROUPED),
    "cohere": Entry("cohere", _GROUPED),
    "smollm3": Entry("smollm3", _GROUPED | dict(pad_token_id=0)),
    "t5": Entry(
        "t5", dict(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=50), pairs
    ),
    "t5-gated": Entry(
        "t5",
        dict(
            d_model=32,
            d_kv=6,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            vocab_size=50,
            feed_forward_proj="gated-gelu",
        ),
        pairs,
    ),
    "bart": Entry("bart", _SEQ2SEQ, pairs),
    "bart-eager": Entry("bart", _SEQ2SEQ, pairs, attention="eager"),
    "pegasus": Entry("pegasus", _SEQ2SEQ, pairs),
    "marian": Entry("marian", _SEQ2SEQ | dict(pad_token_id=0), pairs),
    "vit": Entry("vit", _VIT, images(), auto="AutoModelForImageClassification"),
    "vit-eager": Entry("vit", _VIT, images(), attention="eager"),
    "deit": Entry("deit", _VIT, images()),
    "beit": Entry("beit", _VIT | dict(use_relative_position_bias=True), images()),
    "dinov2": Entry("dinov2", _VIT | dict(mlp_ratio=2), images()),
    "dinov2-swiglu": Entry("dinov2", _VIT | dict(mlp_ratio=2, use_swiglu_ffn=True), images()),
    "swin": Entry(
        "swin",
        dict(
            image_size=16,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            mlp_ratio=3.0,
        ),
        images(),
    ),
    "swinv2": Entry(
        "swinv2",
        dict(
            image_size=16,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            mlp_ratio=3.0,
        ),
        images(),
        attention="eager",
    ),
    "convnext": Entry(
        "convnext",
        dict(hidden_sizes=[8, 12], depths=[2, 2], num_stages=2, patch_size=2),
        images(),
        attention="eager",
    ),
    "convnextv2": Entry(
        "convnextv2",
        dict(hidden_sizes=[8, 12], depths=[2, 2], num_stages=2, patch_size=2),
        images(),
        attention="eager",
    ),
    "segformer": Entry(
        "segformer",
        dict(
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[16, 32],
            patch_sizes=[3, 3],
            strides=[2, 2],
            num_attention_heads=[2, 4],
            mlp_ratios=[3, 3],
            decoder_hidden_size=20,
        ),
        images(),
        auto="AutoModelForSemanticSegmentation",
    ),
    "resnet": Entry(
        "resnet",
        dict(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2]),
        images(),
        attention="eager",
    ),
    "regnet": Entry(
        "regnet",
        dict(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2], groups_width=8),
        images(),
        attention="eager",
    ),
    "mobilenet-v2": Entry(
        "mobilenet_v2", dict(image_size=32, depth_multiplier=0.25), images(32), attention="eager"
    ),
    "mobilevit": Entry(
        "mobilevit",
        dict(
            image_size=32,
            patch_size=2,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 8, 12, 16, 20, 24, 32],
            expand_ratio=2.0,
        ),
        images(64),
        attention="eager",
    ),
    "yolos": Entry(
        "yolos",
        _VIT | dict(image_size=[16, 16], num_detection_tokens=5),
        images(),
        auto="AutoModelForObjectDetection",
    ),
    "clip": Entry("clip", _TWO_TOWERS, captioned),
    "siglip": Entry("siglip", _TWO_TOWERS, captioned),
    "wav2vec2": Entry("wav2vec2", _WAVE | dict(vocab_size=20), sound, auto="AutoModelForCTC"),
    "hubert": Entry("hubert", _WAVE, sound),
    "whisper": Entry(
        "whisper",
        _SEQ2SEQ
        | dict(num_mel_bins=8, max_source_positions=20, max_target_positions=20, pad_token_id=0),
        spectrum,
    ),
}

# How many prunable groups of which size the analysis finds: heads (whole key heads where queries
# share them), feed-forward neurons, and what else a family has.
FOUND: dict[str, dict[int, int]] = {
    "bert": {4: 2, 48: 2},
    "bert-eager": {4: 2, 48: 2},
    "roberta": {4: 2, 48: 2},
    "xlm-roberta": {4: 2, 48: 2},
    "camembert": {4: 2, 48: 2},
    "electra": {4: 2, 48: 2},
    "mpnet": {4: 1, 48: 2},
    "albert": {4: 1, 48: 1},
    "distilbert": {4: 2, 48: 2},
    "deberta-v2": {8: 4, 48: 2},
    "modernbert": {4: 2, 48: 2},
    "gpt2": {4: 2, 48: 2},
    "gpt2-eager": {4: 2, 48: 2},
    "gpt-neo": {4: 2, 48: 2},
    "gpt-neox": {4: 2, 48: 2},
    "gptj": {4: 2, 48: 2},
    "opt": {4: 2, 48: 2},
    "bloom": {8: 2, 128: 2},
    "llama": {2: 2, 48: 2},
    "llama-eager": {2: 2, 48: 2},
    "mistral": {2: 2, 48: 2},
    "qwen2": {2: 2, 48: 2},
    "qwen3": {2: 2, 48: 2},
    "gemma": {2: 2, 48: 2},
    "gemma2": {2: 2, 48: 2},
    "gemma3": {2: 2, 48: 2},
    "phi": {4: 2, 48: 2},
    "phi3": {2: 2, 48: 2},
    "falcon": {2: 2, 48: 2},
    "falcon-mq": {48: 2},
    "mixtral": {2: 2},
    "qwen2-moe": {2: 2, 28: 2},
    "olmo2": {8: 2, 48: 2},
    "stablelm": {2: 2, 48: 2},
    "starcoder2": {2: 2, 48: 2},
    "cohere": {2: 2, 48: 2},
    "smollm3": {2: 2, 48: 2},
    "t5": {4: 2, 8: 2, 48: 4},
    "t5-gated": {4: 2, 6: 2, 48: 4},
    "bart": {4: 6, 40: 2, 48: 2},
    "bart-eager": {4: 6, 40: 2, 48: 2},
    "pegasus": {4: 6, 40: 2, 48: 2},
    "marian": {4: 6, 40: 2, 48: 2},
    "vit": {4: 2, 48: 2},
    "vit-eager": {4: 2, 48: 2},
    "deit": {4: 2, 48: 2},
    "beit": {4: 2, 48: 2},
    "dinov2": {4: 2, 64: 2},
    "dinov2-swiglu": {4: 2, 48: 2},
    "swin": {2: 2, 4: 2, 48: 2, 96: 2},
    "swinv2": {2: 6, 4: 2, 48: 2, 96: 2, 512: 4},
    "convnext": {32: 2, 48: 2},
    "convnextv2": {32: 2, 48: 2},
    "segformer": {2: 1, 4: 1, 20: 3, 48: 1, 96: 1},
    "resnet": {4: 4, 8: 5, 16: 1},
    "regnet": {2: 1, 4: 2, 8: 10, 16: 1},
    "mobilenet-v2": {8: 4, 16: 1, 24: 1, 40: 1, 48: 6, 80: 1, 96: 4, 144: 3, 240: 3},
    "mobilevit": {4: 9, 8: 1, 12: 1, 16: 6, 20: 4, 24: 7, 32: 3, 40: 1, 48: 4, 64: 3},
    "yolos": {4: 2, 32: 4, 48: 2},
    "clip": {4: 4, 48: 4},
    "siglip": {4: 4, 8: 1, 48: 5},
    "wav2vec2": {4: 2, 16: 1, 48: 2},
    "hubert": {4: 2, 16: 1, 48: 2},
    "whisper": {4: 6, 32: 1, 40: 2, 48: 2},
}
