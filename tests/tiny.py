"""Tiny random models and tokenizers, for the mechanics only: they cannot check quality."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from tokalign_lab.adaptation.recovery.likelihood import opens_word
from tokalign_lab.vocabulary import Vocabulary

WORDS = (
    "The quick brown fox jumps over the lazy dog while seventeen small birds sing about rain, bread and quiet rivers. "
    "def add(left, right):\n    return left + right\n"
)


def tiny_tokenizer(
    size: int, *, bos: str | None = None, eos: str = "</s>", template: str | None = None
) -> PreTrainedTokenizerFast:
    """Make a byte-level BPE with about `size` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in (bos, eos) if token]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
    fast.chat_template = template
    return fast


def tiny_vocabulary(size: int = 300, **options: str | None) -> Vocabulary:
    return Vocabulary.from_tokenizer(tiny_tokenizer(size, **options), f"tiny-{size}")


def vocabulary_of_unknowns() -> Vocabulary:
    """Make a vocabulary that reads each word but one as unknown."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "<s>": 1, "the": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", bos_token="<s>")
    return Vocabulary.from_tokenizer(fast, "unknowns")


def renumbered(vocabulary: Vocabulary, new_id: Sequence[int], name: str = "renumbered") -> Vocabulary:
    """Return the same tokenizer with other ids; ids without a token are holes."""
    state = json.loads(vocabulary.tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] = {token: int(new_id[i]) for token, i in state["model"]["vocab"].items()}
    for token in state["added_tokens"]:
        token["id"] = int(new_id[token["id"]])
    state["post_processor"] = None
    roles = {f"{role}_token": vocabulary.raw_token(i) for role, i in vocabulary.roles.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **roles)
    return Vocabulary.from_tokenizer(tokenizer, name)


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
_GATED = {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
_HEADS = {**_GATED, "head_dim": 8}
CONFIGS = {
    "gpt_neox": lambda rows: GPTNeoXConfig(vocab_size=rows, intermediate_size=64, tie_word_embeddings=False, **_SMALL),
    "gpt2": lambda rows: GPT2Config(vocab_size=rows, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "llama": lambda rows: LlamaConfig(vocab_size=rows, intermediate_size=64, tie_word_embeddings=False, **_SMALL),
    "llama_tied": lambda rows: LlamaConfig(vocab_size=rows, intermediate_size=64, tie_word_embeddings=True, **_SMALL),
    "mistral": lambda rows: MistralConfig(vocab_size=rows, sliding_window=16, **_GATED),
    "qwen2": lambda rows: Qwen2Config(vocab_size=rows, tie_word_embeddings=False, **_GATED),
    "qwen3": lambda rows: Qwen3Config(vocab_size=rows, tie_word_embeddings=True, **_HEADS),
    "gemma": lambda rows: GemmaConfig(vocab_size=rows, **_HEADS),  # embedding times the root of hidden_size
    "gemma2": lambda rows: Gemma2Config(vocab_size=rows, final_logit_softcapping=5.0, **_HEADS),
    "gemma3": lambda rows: Gemma3TextConfig(vocab_size=rows, final_logit_softcapping=5.0, **_HEADS),
    "opt": lambda rows: OPTConfig(vocab_size=rows, word_embed_proj_dim=16, ffn_dim=64, pad_token_id=1, **_SMALL),
    "phi": lambda rows: PhiConfig(vocab_size=rows, intermediate_size=64, tie_word_embeddings=False, **_SMALL),
    "phi3": lambda rows: Phi3Config(vocab_size=rows, pad_token_id=0, **_GATED),
    "olmo": lambda rows: OlmoConfig(vocab_size=rows, **_GATED),
    "olmo2": lambda rows: Olmo2Config(vocab_size=rows, **_GATED),
    "bloom": lambda rows: BloomConfig(vocab_size=rows, hidden_size=32, n_layer=2, n_head=4),  # norm after the embedding
}  # phi's head has a bias


def tiny_model(kind: str, rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Make a random model of an architecture, with weights large enough that logits differ."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](rows)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model.to(dtype)


@torch.no_grad()
def expect_words(model: PreTrainedModel, vocabulary: Vocabulary) -> PreTrainedModel:
    """Make a new word likely in some contexts; a random model finds it unlikely everywhere, so ALM uses no chunk."""
    rows = model.get_output_embeddings().weight
    rows[opens_word(vocabulary, len(rows))] *= 4.0
    return model


def save_tiny(folder: Path, kind: str = "llama", size: int = 300, seed: int = 0) -> Path:
    """Save a tiny model with its tokenizer; return the folder."""
    tokenizer = tiny_tokenizer(size)
    tiny_model(kind, Vocabulary.from_tokenizer(tokenizer, "tiny").size, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
