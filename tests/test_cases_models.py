"""Problems of real models, each reduced to a small input with its correct result."""

from __future__ import annotations

import copy
import json
import operator
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from test_rearrange import SOURCE, TARGET, finish, mixed_lexicon
from tiny import WORDS, renumbered, save_tiny, tiny_model, tiny_tokenizer, tiny_vocabulary
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CpmAntConfig,
    DeepseekV4Config,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    Gemma4TextConfig,
    LlamaConfig,
    ModernBertDecoderConfig,
    Olmo3Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    ReformerConfig,
    RobertaConfig,
    XLMConfig,
)
from typer.testing import CliRunner

from tokalign_lab import pipeline
from tokalign_lab.adaptation.events import continue_text
from tokalign_lab.adaptation.teacher_text import write_text
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.cli import app
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.drafting import Drafting
from tokalign_lab.evaluation.lexicon_scores import score_lexicon
from tokalign_lab.evaluation.row_gate import row_gate
from tokalign_lab.evaluation.step_time import time_step
from tokalign_lab.files import atomic_folder, write_json
from tokalign_lab.model.calibrate import calibrate
from tokalign_lab.model.card import card_data
from tokalign_lab.model.check import check_folder
from tokalign_lab.model.load import files_of, load_model
from tokalign_lab.model.quantised import keep_settings
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.model.save import load_source, save_model
from tokalign_lab.model.save_tokenizer import CODE_FILE
from tokalign_lab.model.shards import Shards
from tokalign_lab.model.special_ids import lost_ids, move_special_ids
from tokalign_lab.model.special_tokens import CONVERSATIONS, keep_special_tokens
from tokalign_lab.model.stream import rearrange_files
from tokalign_lab.model.to_folder import rearrange_to_folder
from tokalign_lab.model.vocabulary_tensors import further_tables
from tokalign_lab.settings.kinds import AlignSettings, WritingSettings
from tokalign_lab.vocabulary import Vocabulary

# --- files of other programs are not deleted


def own_files(folder: Path) -> dict[str, str]:
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (folder / "notes.md").write_text("mine")
    return tree(folder)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_with_other_files_is_refused_and_not_changed(tmp_path: Path) -> None:
    project = tmp_path / "project"
    before = own_files(project)
    with pytest.raises(InputError, match=r"project' exists already and holds files that are not"):
        save_model(tiny_model("llama", TARGET.size), TARGET, project)
    source = save_tiny(tmp_path / "source")
    with pytest.raises(InputError, match="exists already"):
        rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, project)
    assert tree(project) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project", "source"]


def test_a_model_saved_by_another_program_is_not_replaced(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source")
    before = sorted(path.name for path in source.iterdir())
    with pytest.raises(InputError, match="exists already"):
        rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, source)
    assert sorted(path.name for path in source.iterdir()) == before


def test_our_own_folder_is_replaced_unless_a_file_was_added(tmp_path: Path) -> None:
    model = tiny_model("llama", TARGET.size)
    save_model(model, TARGET, tmp_path / "m")
    save_model(model, TARGET, tmp_path / "m", card={"model": "second"})
    assert "second" in (tmp_path / "m" / "README.md").read_text()
    (tmp_path / "m" / "notes.md").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save_model(model, TARGET, tmp_path / "m")
    assert (tmp_path / "m" / "notes.md").read_text() == "mine"


def test_a_file_is_not_replaced_and_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    model = tiny_model("llama", TARGET.size)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save_model(model, TARGET, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    save_model(model, TARGET, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "tokalign.json").is_file()


def test_a_file_that_appears_while_a_folder_is_written_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with pytest.raises(InputError, match="exists already"), atomic_folder(place) as temporary:  # noqa: PT012
        (temporary / "ours").write_text("ours")
        place.mkdir()
        (place / "notes.md").write_text("mine")
    assert tree(place) == {"notes.md": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- a saved folder loads as the model that was saved


def trained_tokenizer(size: int = 320, specials: tuple[str, ...] = ("<s>", "</s>", "<pad>")) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with special tokens in its vocabulary, so that their ids can be changed."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*specials], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([WORDS, "user assistant 1 2 3 time"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def sentencepiece_target(tmp_path: Path) -> Path:
    import sentencepiece

    (tmp_path / "text.txt").write_text(WORDS * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "sp"), model_type="bpe", vocab_size=330,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    return tmp_path / "sp.model"


@pytest.mark.parametrize("kind", ["qwen2", "phi3", "llama", "gpt2"])
def test_a_saved_folder_gives_the_ids_of_a_target_of_another_kind(kind: str, tmp_path: Path) -> None:
    target = load_vocabulary(str(sentencepiece_target(tmp_path)))
    save_model(tiny_model(kind, target.size), target, tmp_path / "m")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "m")
    text = "It was 12,345 in total,  the fox"
    assert loaded.encode(text, add_special_tokens=False) == target.encode([text])[0].tolist()
    assert loaded.decode(loaded.encode(text), skip_special_tokens=True) == text
    assert set(loaded(text)) == {"input_ids", "attention_mask"}
    assert (tmp_path / "m" / "tokenizer.model").read_bytes() == (tmp_path / "sp.model").read_bytes()
    settings = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert ("auto_map" in settings) == (tmp_path / "m" / CODE_FILE).exists() == (kind == "qwen2")


def test_a_folder_that_would_give_other_ids_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_vocabulary(str(sentencepiece_target(tmp_path)))
    monkeypatch.setattr("tokalign_lab.model.save_tokenizer._CODE", "raise SystemExit")
    monkeypatch.setattr("tokalign_lab.model.save_tokenizer.CODE_FILE", "auto_map")
    real = write_json

    def without_the_map(path: Path, value: dict) -> None:
        real(path, {name: held for name, held in value.items() if name != "auto_map"})

    monkeypatch.setattr("tokalign_lab.model.save_tokenizer.write_json", without_the_map)
    with pytest.raises(InputError, match=r"another tokenizer of the folder, because its model is of type 'qwen2'"):
        save_model(tiny_model("qwen2", target.size), target, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_model_that_would_load_differently_is_not_saved(tmp_path: Path) -> None:
    model = tiny_model("llama", TARGET.size)
    model.config.rms_norm_eps = 0.5  # the layers in memory have another value
    with pytest.raises(InputError, match="is not the one in memory"):
        save_model(model, TARGET, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_model_with_fewer_rows_than_ids_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"has {TARGET.size - 1} rows, but its tokenizer .* up to {TARGET.size - 1}"):
        save_model(tiny_model("llama", TARGET.size - 1), TARGET, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_settings_are_also_saved_under_the_names_of_older_transformers(tmp_path: Path) -> None:
    gemma3 = Gemma3TextConfig(
        vocab_size=TARGET.size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, layer_types=["sliding_attention", "full_attention"], sliding_window=16,
        rope_parameters={
            "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"},
            "full_attention": {"rope_theta": 3e5, "rope_type": "linear", "factor": 8.0},
        },
    )  # fmt: skip
    llama = LlamaConfig(
        vocab_size=TARGET.size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        rope_parameters={"rope_theta": 1e5, "rope_type": "default"},
    )  # fmt: skip
    wanted = {
        "gemma3": {
            "rope_theta": 3e5,
            "rope_local_base_freq": 2e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        "llama": {"rope_theta": 1e5},
        "phi3": {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}},
        "olmo3": {"rope_theta": 4e5},
        "qwen3_moe": {"num_experts": 4},
    }
    sizes = small(vocab_size=TARGET.size, bos_token_id=None, eos_token_id=0, pad_token_id=None)
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 16}
    phi3 = Phi3Config(**sizes, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **factors})
    bases = {kind: {"rope_type": "default", "rope_theta": 4e5} for kind in _LAYERS}
    olmo3 = Olmo3Config(**sizes, layer_types=_LAYERS, sliding_window=16, rope_parameters=bases)
    moe = Qwen3MoeConfig(**sizes, head_dim=8, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2)
    given = {"gemma3": gemma3, "llama": llama, "phi3": phi3, "olmo3": olmo3, "qwen3_moe": moe}
    for name, config in given.items():
        save_model(AutoModelForCausalLM.from_config(config).eval(), TARGET, tmp_path / name)
        written = json.loads((tmp_path / name / "config.json").read_text())
        assert {key: written.get(key) for key in wanted[name]} == wanted[name]


def test_settings_of_the_target_do_not_reach_prompts(tmp_path: Path) -> None:
    tokenizer = trained_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["post_processor"]["special_tokens"]["<s>"]["ids"] = [40]  # stale, as after its tokens were renumbered
    tokenizer.backend_tokenizer.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.model.dropout = 0.9
    target = Vocabulary.from_tokenizer(tokenizer, "target")
    save_model(tiny_model("llama", target.size), target, tmp_path / "m")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "m")
    ids = loaded("The quick brown fox jumps")["input_ids"]
    assert ids[0] == loaded.bos_token_id
    assert ids[-1] != loaded.eos_token_id
    assert loaded.decode(ids, skip_special_tokens=True) == "The quick brown fox jumps"
    assert loaded.backend_tokenizer.model.dropout is None
    assert target.tokenizer("a")["input_ids"][-1] == target.roles["eos"], (
        "the vocabulary's own tokenizer does not change"
    )


# --- all tensors and ids that depend on the vocabulary

BIG = Vocabulary.from_tokenizer(trained_tokenizer(), "source")
ORDER = np.random.default_rng(3).permutation(BIG.size)
RENUMBERED = renumbered(BIG, ORDER)


def renumbering(source: Vocabulary = BIG, target: Vocabulary = RENUMBERED) -> Lexicon:
    rows = LexiconRows(target.size)
    for old, new in enumerate(ORDER):
        rows.copy(int(new), old, "identical")
    return finish(rows, source, target)


def small(**more: object) -> dict:
    return {
        "vocab_size": BIG.size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": BIG.roles["bos"], "eos_token_id": BIG.roles["eos"], "pad_token_id": BIG.roles["pad"], **more,
    }  # fmt: skip


_SLIDING = {"head_dim": 8, "sliding_window": 16, "hidden_size_per_layer_input": 16, "num_kv_shared_layers": 0}
_LAYERS = ["sliding_attention", "full_attention"]
FURTHER = {
    "gemma4": lambda: Gemma4TextConfig(
        **small(vocab_size_per_layer_input=BIG.size, global_head_dim=8, layer_types=_LAYERS, **_SLIDING)
    ),
    "gemma3n": lambda: Gemma3nTextConfig(
        **small(
            vocab_size_per_layer_input=BIG.size - 8, laurel_rank=4, altup_num_inputs=2,
            activation_sparsity_pattern=[0.0] * 2, layer_types=_LAYERS, **_SLIDING,
        )
    ),
    "deepseek_v4": lambda: DeepseekV4Config(
        **small(
            head_dim=16, moe_intermediate_size=16, n_routed_experts=4, num_experts_per_tok=2, q_lora_rank=16,
            o_lora_rank=8, o_groups=2, index_n_heads=2, index_head_dim=8, mlp_layer_types=["hash_moe", "moe"],
        )
    ),
}  # fmt: skip


def randomised(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
        for name, table in model.named_buffers():
            if "tid2eid" in name:
                table.random_(4)
    return model


def same_logits(old: PreTrainedModel, new: PreTrainedModel) -> bool:
    ids = torch.from_numpy(np.random.default_rng(1).integers(3, BIG.size, (1, 30)))
    order = torch.from_numpy(ORDER)
    with torch.inference_mode():
        before, after = old(ids, use_cache=False).logits[0], new(order[ids], use_cache=False).logits[0][:, order]
    return torch.allclose(before, after, atol=1e-5 * float(before.abs().max()))


@pytest.mark.parametrize("kind", sorted(FURTHER))
def test_additional_embedding_tables_are_converted_in_memory_and_on_disk(kind: str, tmp_path: Path) -> None:
    model = randomised(FURTHER[kind]())
    assert further_tables(model)
    moved = rearrange(model, renumbering(), BIG, RENUMBERED)
    assert same_logits(model, moved)
    save_model(moved, RENUMBERED, tmp_path / "memory")
    assert same_logits(model, load_model(str(tmp_path / "memory"), device="cpu"))
    model.save_pretrained(tmp_path / "source")
    rearrange_files(Shards.open(tmp_path / "source"), renumbering(), BIG, RENUMBERED, tmp_path / "files")
    assert same_logits(model, load_model(str(tmp_path / "files"), device="cpu"))


def test_an_output_bias_outside_of_the_head_is_converted(tmp_path: Path) -> None:
    config = ReformerConfig(
        **small(), is_decoder=True, axial_pos_embds_dim=[16, 16], axial_pos_shape=[8, 8], attention_head_size=8,
        attn_layers=["local", "local"], feed_forward_size=64, local_attn_chunk_length=8,
    )  # fmt: skip
    model = randomised(config)
    assert list(further_tables(model)) == ["lm_head.bias"]
    moved = rearrange(model, renumbering(), BIG, RENUMBERED)
    assert same_logits(model, moved)
    model.save_pretrained(tmp_path / "source")
    rearrange_files(Shards.open(tmp_path / "source"), renumbering(), BIG, RENUMBERED, tmp_path / "files")
    assert same_logits(model, load_model(str(tmp_path / "files"), device="cpu"))


def test_additional_embedding_tables_get_the_size_of_the_target(tmp_path: Path) -> None:
    model = randomised(FURTHER["gemma4"]())
    model.config.n_vocab = BIG.size  # transformers does not declare it
    model.save_pretrained(tmp_path / "source")
    rows = LexiconRows(SOURCE.size)
    for new in range(SOURCE.size):
        rows.mix(new, [new, new + 1], [0.5, 0.5], "pieces")
    rearrange_files(Shards.open(tmp_path / "source"), finish(rows, BIG, SOURCE), BIG, SOURCE, tmp_path / "out")
    old, new = (load_model(str(tmp_path / name), device="cpu") for name in ("source", "out"))
    table, made = (model.model.embed_tokens_per_layer.weight for model in (old, new))
    assert new.config.n_vocab == new.config.vocab_size_per_layer_input == len(made) == SOURCE.size
    torch.testing.assert_close(made, (table[: SOURCE.size] + table[1 : SOURCE.size + 1]) / 2)


def test_multi_token_prediction_heads_are_converted_or_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tiny_model("llama", SOURCE.size).save_pretrained(source)
    tensors = load_file(source / "model.safetensors")
    rows, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    tensors |= {"model.layers.2.embed_tokens.weight": rows.clone(), "model.layers.2.eh_proj.weight": torch.ones(32, 64)}
    tensors |= {"model.layers.2.shared_head.head.weight": head.clone()}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    rearrange_files(Shards.open(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(made["model.layers.2.embed_tokens.weight"], made["model.embed_tokens.weight"])
    assert torch.equal(made["model.layers.2.shared_head.head.weight"], made["lm_head.weight"])
    assert torch.equal(made["model.layers.2.eh_proj.weight"], tensors["model.layers.2.eh_proj.weight"])

    with pytest.raises(InputError, match=r"has 3 tensors that predict further .*\(the first is model.layers.2.e"):
        rearrange_to_folder(
            str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "calibrated", calibrate=["default"],
            special_tokens="target",
        )  # fmt: skip

    tensors["mtp.of_each_token"] = torch.ones(SOURCE.size, 4)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"hold mtp.of_each_token, of shape \(300, 4\)"):
        Shards.open(source)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("logit_bias", (300,)), ("lm_head.bias", (300,)), ("final_logits_bias", (1, 300)), ("t2d", (300,)),
        ("mtp.proj.weight", (32, 300)), ("mtp.heads.weight", (2, 300, 32)),
    ],
)  # fmt: skip
def test_an_unused_tensor_of_the_vocabularys_size_is_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    save_tiny(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, name: torch.ones(shape)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"files hold {name}, of shape \({shape[0]}"):
        Shards.open(tmp_path)


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_heads_in_a_file_that_pytorch_wrote_are_not_lost(as_zip: bool, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    tensors["medusa_head.0.1.weight"] = torch.ones(300, 32)
    torch.save(tensors, source / "pytorch_model.bin", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(InputError, match=r"has 1 tensors that predict further .*medusa_head.0.1.*from safetensors"):
        rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "out")


def test_a_shape_that_the_configuration_does_not_have_is_named(tmp_path: Path) -> None:
    source = save_tiny(tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = torch.ones(320, 32)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"has lm_head.weight of shape \(320, 32\) in its files and \(300, 32\) by"):
        load_model(str(source), device="cpu")


def multimodal(**ids: int) -> PreTrainedModel:
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 16}
    text = small(head_dim=8, sliding_window=16)
    return AutoModelForCausalLM.from_config(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    ).eval()


def test_image_token_ids_are_converted_or_the_model_is_refused() -> None:
    model = multimodal(boi_token_index=10, eoi_token_index=11, image_token_index=12)
    moved = rearrange(model, renumbering(), BIG, RENUMBERED)
    named = [moved.config.boi_token_index, moved.config.eoi_token_index, moved.config.image_token_index]
    assert named == ORDER[[10, 11, 12]].tolist()
    tokenizer = trained_tokenizer(specials=("<s>", "</s>", "<pad>", "<image>"))
    source = Vocabulary.from_tokenizer(tokenizer, "with-image")
    rows = LexiconRows(TARGET.size)
    rows.fill(np.arange(TARGET.size), "mean")
    with pytest.raises(InputError, match=r"config.image_token_index is 3 \(<image>\), which tiny-280 has no token for"):
        rearrange(multimodal(image_token_index=3), finish(rows, source, TARGET), source, TARGET)


NAMED = {
    "image_start_id": 20, "im_start_id": 21, "newline_id": 22, "image_patch_id": 23, "eod_id": 2, "bos_idx": 0,
    "eos_index": 1, "think_end_id": 45, "image_start_token": 47, "stop_token_ids": [3, 4], "forced_eos_token_id": 1,
    "visual": {"image_start_id": 30, "depth": 2}, "nested": {"image_token_ids": [40, 41]}, "mask_token": True,
    "moe_layer_start_index": 1, "max_atoms_per_token": 23,
}  # fmt: skip


def test_ids_are_found_by_name_in_every_part_of_a_configuration() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**small()))
    for name, value in NAMED.items():
        setattr(model.config, name, value)
    moved = rearrange(model, renumbering(), BIG, RENUMBERED).config
    assert {name: getattr(moved, name) for name in NAMED} == {
        **{name: int(ORDER[old]) for name, old in NAMED.items() if type(old) is int},
        "stop_token_ids": ORDER[[3, 4]].tolist(),
        "visual": {"image_start_id": int(ORDER[30]), "depth": 2},
        "nested": {"image_token_ids": ORDER[[40, 41]].tolist()},
        **{name: NAMED[name] for name in ("mask_token", "moe_layer_start_index", "max_atoms_per_token")},
    }
    model.config.vocabulary_map = {"<image>": 12}
    with pytest.raises(InputError, match=r"config.vocabulary_map gives ids to tokens of images"):
        rearrange(model, renumbering(), BIG, RENUMBERED)


def test_a_second_copy_of_the_vocabulary_size_does_not_stop_the_ids() -> None:
    model = multimodal(image_token_index=12)
    model.config.vocab_size = BIG.size
    rows = LexiconRows(BIG.size + 5)
    rows.fill(np.arange(BIG.size + 5), "mean")
    larger = trained_tokenizer()
    larger.add_tokens([f"<{n}>" for n in range(5)])
    target = Vocabulary.from_tokenizer(larger, "larger")
    moved = rearrange(model, finish(rows, BIG, target), BIG, target)
    assert moved.config.vocab_size == moved.config.text_config.vocab_size == target.size
    model.config.vocab_size = 7  # as of a vocabulary of sounds
    model.config.text_config.stop_token_ids = [12]
    moved = rearrange(model, renumbering(), BIG, RENUMBERED)
    assert moved.config.vocab_size == 7
    assert moved.config.text_config.stop_token_ids == [ORDER[12]]


def test_ids_of_the_generation_config_are_converted() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**small()))
    given = {"suppress_tokens": [50, 51], "begin_suppress_tokens": [52], "bad_words_ids": [[53], [54, 999]]}
    for name, value in {**given, "sequence_bias": [[[50], 1.0]], "force_words_ids": [[50]]}.items():
        setattr(model.generation_config, name, value)
    model.generation_config.eos_token_id = [float(BIG.roles["eos"])]  # a whole number only by its value
    moved = rearrange(model, renumbering(), BIG, RENUMBERED).generation_config
    assert moved.eos_token_id == RENUMBERED.roles["eos"]
    assert moved.suppress_tokens == ORDER[[50, 51]].tolist()
    assert moved.begin_suppress_tokens == ORDER[[52]].tolist()
    assert moved.bad_words_ids == [ORDER[[53]].tolist()], "the other one names an id without a token"
    assert moved.sequence_bias == [[ORDER[[50]].tolist(), 1.0]]
    assert moved.force_words_ids == [ORDER[[50]].tolist()]


A, B, C = (int(new) for new in ORDER[[12, 13, 14]])
# configuration entries that transformers does not declare, and the right value of each
FREE = {
    "vision_pad": (12, A), "image_newline_idx": (13, B), "imageTokenId": (12, A), "boi": (14, C),
    "draft_vocab_map": ([12, 13], [A, B]), "decoder_start_ids": ([[12, 13], [14]], [[A, B], [C]]),
    "lang_to_id": ({"<|en|>": 12, "<|fr|>": 13}, {"<|en|>": A, "<|fr|>": B}), "stop_tokens": ((12, 13), [A, B]),
    "id_to_name": ({"12": "<image>"}, {str(A): "<image>"}), "parts": ([{"kind": "x", "pad_token_id": 2}], None),
    "image_marks": ({BIG.raw_token(12): 12, "rows": 12}, {BIG.raw_token(12): A, "rows": 12}),
    "image_ignore_id": (-200, -200), "audio_token_id": (9_000, 9_000), "task_labels": ({"a": 12}, {"a": 12}),
    **{name: (12, 12) for name in ("context_tokens", "image_token_size", "attn_idx", "max_index", "early_stop",
                                  "num_image_token")},
    **{name: ([12, 13], [12, 13]) for name in ("layer_ids", "mrope_section", "head_idxs", "image_size",
                                        "deepstack_visual_indexes", "out_indices")},
    "logit_bias": ({"12": -100.0}, {str(A): -100.0}), "token_bias": ({12: 7}, {A: 7}),
    "lang2id": ({"en": 0, "fr": 1}, {"en": 0, "fr": 1}), "multi_token": (True, True), "token_rate": (0.5, 0.5),
}  # fmt: skip
FREE["parts"] = (FREE["parts"][0], [{"kind": "x", "pad_token_id": RENUMBERED.roles["pad"]}])


@pytest.mark.parametrize("place", ["config", "generation_config", "config.visual"])
def test_ids_under_names_that_transformers_does_not_know_are_converted(place: str) -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**small()))
    model.config.visual = {name: copy.deepcopy(value) for name, (value, _) in FREE.items()}
    for name, (value, _) in FREE.items():
        setattr(model.config, name, value)
        setattr(model.generation_config, name, value)
    assert lost_ids(model, BIG, RENUMBERED) == []
    moved = rearrange(model, renumbering(), BIG, RENUMBERED)
    held = operator.attrgetter(place)(moved)
    held = held if isinstance(held, dict) else vars(held)
    assert {name: held[name] for name in FREE} == {name: right for name, (_, right) in FREE.items()}


def test_banned_words_are_written_as_the_target_writes_them(tmp_path: Path) -> None:
    source, target = tiny_vocabulary(280), tiny_vocabulary(600)
    words = [" brown fox", " fox", "left", " rain"]
    model = tiny_model("llama", source.size)
    model.generation_config.bad_words_ids = [source.encode([word])[0].tolist() for word in words]
    apart = [source.id_of_bytes(bytes([byte])) for byte in b"left"]  # not as the source writes it
    model.generation_config.bad_words_ids.append(apart)
    model.generation_config.sequence_bias = {tuple(source.encode([word])[0].tolist()): -5.0 for word in words}
    move_special_ids(model.config, model.generation_config, source, target, source.size)
    right = [target.encode([word])[0].tolist() for word in words]
    assert right[1] == [target.id_of_bytes(b" fox")]
    kept = [target.id_of_bytes(bytes([byte])) for byte in b"left"]
    assert model.generation_config.bad_words_ids == [*right, kept]
    assert list(model.generation_config.sequence_bias) == [tuple(ids) for ids in right]


def test_ids_that_the_target_has_no_token_for_are_reported(tmp_path: Path) -> None:
    tokenizer = trained_tokenizer(specials=("<s>", "</s>", "<pad>", "<a>", "<b>"))
    model = tiny_model("llama", 320)
    model.config.stop_list = {"<a>": 3}
    model.config.lang_map_ids, model.config.draft_map_ids = {"7": 8}, [0, 3]
    model.config.bias_ids = list(range(320))
    model.generation_config.stop_token_ids, model.generation_config.lang_to_id = [0, 3], {"a": 3, "<s>": 0}
    model.generation_config.forced_decoder_ids = [[1, None], [2, 0], [3, 4]]
    model.generation_config.eos_token_id = [1, 4]
    tokenizer.save_pretrained(tmp_path / "source")
    model.save_pretrained(tmp_path / "source")
    source = load_vocabulary(str(tmp_path / "source"))
    rows = LexiconRows(TARGET.size)
    rows.fill(np.arange(TARGET.size), "mean")
    result = rearrange_to_folder(
        str(tmp_path / "source"), finish(rows, source, TARGET), source, TARGET, tmp_path / "out"
    )
    (message,) = (sentence for sentence in result["lost"] if "ids of the configuration" in sentence)
    assert message.startswith(
        "tiny-280 has no token for these ids of the configuration, so they are left out (or replaced by "
        "eos where one is required): "
    )
    for named in (
        "generation_config.stop_token_ids (<a>)", "generation_config.lang_to_id (<a>)", "config.stop_list (<a>)",
        "generation_config.forced_decoder_ids (<b>)", "config.draft_map_ids (<a>)",
        "generation_config.eos_token_id (<b>)",
        "config.bias_ids (in a form that cannot be moved)", "config.lang_map_ids (",
    ):  # fmt: skip
        assert named in message
    made = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    start = TARGET.roles["bos"]
    assert made["stop_token_ids"] == [start]
    assert made["lang_to_id"] == {"<s>": start}
    assert made["forced_decoder_ids"] == [[1, None], [2, start]]
    assert config.get("draft_map_ids") is config.get("bias_ids") is None


def test_padding_that_is_suppressed_is_not_reported_as_lost() -> None:
    model = tiny_model("llama", SOURCE.size + 2)
    for more, lost in (([], 0), ([SOURCE.roles["eos"], 5], 0), ([SOURCE.size - 1], 1)):
        model.generation_config.suppress_tokens = [*more, SOURCE.size, SOURCE.size + 1]
        assert len(lost_ids(model, SOURCE, TARGET)) == lost
        config, generation = copy.deepcopy((model.config, model.generation_config))
        move_special_ids(config, generation, SOURCE, TARGET, SOURCE.size + 2)
        kept = None if lost or not more else [TARGET.roles["eos"], TARGET.id_of_token(SOURCE, 5)]
        assert generation.suppress_tokens == kept


def test_a_forced_token_is_kept_or_named() -> None:
    model = tiny_model("llama", BIG.size)
    given = model.generation_config
    given.forced_bos_token_id, given.suppress_tokens = 12, [int(ORDER[12])]  # suppressed in the source only
    moved = rearrange(model, renumbering(), BIG, RENUMBERED).generation_config
    assert (moved.forced_bos_token_id, moved.suppress_tokens) == (A, [int(ORDER[ORDER[12]])])
    given.forced_bos_token_id, given.suppress_tokens = BIG.roles["bos"], [BIG.roles["eos"]]
    both = tiny_vocabulary(280, eos="<s>")  # one token is bos and eos
    both.roles["bos"] = both.roles["eos"]
    (message,) = lost_ids(model, BIG, both)
    assert "generation_config.forced_bos_token_id (it is also suppressed)" in message
    given.forced_bos_token_id, model.config.pad_token_id = BIG.size + 4, BIG.size + 5  # rows that no token has
    (message,) = lost_ids(model, tiny_vocabulary(300), TARGET)
    for name in ("generation_config.forced_bos_token_id", "config.pad_token_id"):
        assert f"{name} (a row without a token)" in message


def test_a_role_that_only_the_configuration_names_is_kept_or_named() -> None:
    tokenizer = trained_tokenizer(specials=("<s>", "</s>", "<pad>", "<fill>"))
    tokenizer.pad_token = None
    source = Vocabulary.from_tokenizer(tokenizer, "source")
    model = tiny_model("llama", source.size)
    model.config.pad_token_id = model.generation_config.pad_token_id = 3
    (message,) = lost_ids(model, source, TARGET)
    assert "generation_config.pad_token_id (<fill>); config.pad_token_id (<fill>)" in message
    _, kept = keep_special_tokens(aligned(source, TARGET), source, TARGET)
    assert lost_ids(model, source, kept) == []
    move_special_ids(model.config, model.generation_config, source, kept, source.size)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == kept.id_of_raw("<fill>")


@pytest.mark.parametrize("hub", [False, True])
def test_an_adapter_next_to_the_weights_is_refused(hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "models--some--adapter" / "snapshots" / "abc")
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "other/model"})
    (tmp_path / "models--some--adapter" / "refs").mkdir()
    (tmp_path / "models--some--adapter" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # no test contacts the hub
    with pytest.raises(InputError, match=r"has a PEFT adapter \(adapter_config.json\), which is not applied here"):
        load_model("some/adapter" if hub else str(folder), device="cpu")


@pytest.mark.parametrize(
    "weights",
    [
        ["model.safetensors"],
        ["model-00001-of-00002.safetensors", "mtp.safetensors"],
        ["layers-0.safetensors", "layers-1.safetensors"],
        ["pytorch_model.bin"],
        ["part-1.bin", "part-2.bin"],
    ],
)
def test_all_weights_of_a_hub_model_are_fetched_and_no_second_copy(
    weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, cache = tmp_path / "repository", tmp_path / "cache"
    repository.mkdir()
    stem = "pytorch_model.bin" if weights[0].endswith(".bin") else "model.safetensors"
    for name in (*weights, "config.json", "consolidated.safetensors", "flax_model.msgpack"):
        (repository / name).write_text("{}")
    if len(weights) > 1:
        write_json(repository / f"{stem}.index.json", {"weight_map": dict(enumerate(weights))})

    def fetch(name: str, allow_patterns: list[str]) -> str:
        cache.mkdir(exist_ok=True)
        for file in filter_repo_objects([path.name for path in repository.iterdir()], allow_patterns=allow_patterns):
            shutil.copy(repository / file, cache)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    index = [f"{stem}.index.json"] if len(weights) > 1 else []
    assert {path.name for path in files_of("some/model").iterdir()} == {"config.json", *index, *weights}


def test_a_hub_model_that_does_not_exist_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: str, **options: bool) -> None:
        raise OSError("no/model is not a valid model identifier")

    monkeypatch.setattr("transformers.utils.cached_file", refuse)
    with pytest.raises(InputError, match="The model 'no/model' cannot be loaded: no/model is not a valid"):
        load_model("no/model", device="cpu")


def test_files_of_the_source_that_the_new_folder_lacks(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source")
    write_json(source / "preprocessor_config.json", {"image_token_id": 12})
    config = json.loads((source / "config.json").read_text())
    write_json(source / "config.json", {**config, "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}})
    result = rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "out")
    assert any("lacks preprocessor_config.json and so reads text only" in sentence for sentence in result["lost"])
    assert any(
        "names code of its own (auto_map), which is never run: it was read as 'llama'" in s for s in result["lost"]
    )
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text()), "its code is missing"


def test_a_number_that_may_be_an_id_is_named() -> None:
    order = ORDER.copy()
    place = int((order == 300).nonzero()[0][0])
    order[[2, place]] = order[[place, 2]]  # pad is 300
    source = renumbered(BIG, order, "source")
    model = AutoModelForCausalLM.from_config(LlamaConfig(**small()))
    model.config.thing, model.config.hidden_window = 300, 300
    (message,) = lost_ids(model, source, BIG)
    assert message.startswith("config.thing has 300, the id of <pad>, which was kept, ")
    assert message.endswith("set it to 2.")


def test_a_vocabulary_that_reaches_the_image_ids_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**small()))
    model.config.vision = {"vocab_offset": 310, "vocab_size": 8}
    with pytest.raises(InputError, match=r"config.vision.vocab_offset is 310, .* renumbered has 320 ids"):
        rearrange(model, renumbering(), BIG, RENUMBERED)
    assert lost_ids(model, BIG, BIG) == []


def test_ids_stored_in_modules_are_converted_too() -> None:
    """XLM finds padding by an id that its module copied from the configuration."""
    config = XLMConfig(
        n_words=BIG.size, emb_dim=32, n_layers=2, n_heads=4, max_position_embeddings=64, causal=True,
        bos_index=BIG.roles["bos"], eos_index=BIG.roles["eos"], pad_index=BIG.roles["pad"],
    )  # fmt: skip
    model = randomised(config)
    moved, ids = rearrange(model, renumbering(), BIG, RENUMBERED), torch.tensor([[5, BIG.roles["pad"], 9, 30]])
    order = torch.from_numpy(ORDER)
    assert torch.allclose(model(ids).logits, moved(order[ids]).logits[..., order], atol=1e-4)


def test_positions_counted_from_pad_need_the_same_pad() -> None:
    model = randomised(RobertaConfig(**{**small(), "is_decoder": True, "num_key_value_heads": None}))
    with pytest.raises(InputError, match=r"counts positions from its pad id 2 \(roberta.embeddings.position"):
        rearrange(model, renumbering(), BIG, RENUMBERED)
    same = rearrange(model, finish_identity(BIG), BIG, BIG)
    ids = torch.tensor([[5, 9, 30]])
    assert torch.equal(same(ids).logits, model(ids).logits)


def finish_identity(vocabulary: Vocabulary) -> Lexicon:
    rows = LexiconRows(vocabulary.size)
    for token_id in range(vocabulary.size):
        rows.copy(token_id, token_id, "identical")
    return finish(rows, vocabulary, vocabulary)


def test_a_configuration_that_refuses_none_gets_an_id_that_exists(tmp_path: Path) -> None:
    config = ModernBertDecoderConfig(
        **{**small(), "num_key_value_heads": None}, local_attention=16, cls_token_id=50281, sep_token_id=50282
    )
    model = randomised(config)
    rows = LexiconRows(TARGET.size)
    rows.fill(np.arange(TARGET.size), "mean")
    moved = rearrange(model, finish(rows, BIG, TARGET), BIG, TARGET)
    for name in ("pad_token_id", "cls_token_id", "sep_token_id"):
        assert getattr(moved.config, name) == TARGET.roles["eos"]
    assert not any("cls_token_id" in sentence for sentence in lost_ids(model, BIG, TARGET)), "no token had it"
    save_model(moved, TARGET, tmp_path / "m", source=BIG)


def test_rows_beyond_the_vocabulary_are_refused() -> None:
    config = CpmAntConfig(
        vocab_size=BIG.size, hidden_size=32, num_attention_heads=4, dim_head=8, dim_ff=64, num_hidden_layers=1,
        prompt_types=2, prompt_length=4,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"embedding has 328 rows and its configuration a vocab_size of 320"):
        rearrange(AutoModelForCausalLM.from_config(config), renumbering(), BIG, RENUMBERED)


# --- quantised sources


def quantised(folder: Path, method: str, rows: int = SOURCE.size, **more: object) -> Path:
    """Save a Llama with layers stored in the format of this quantisation; the values are meaningful only for FP8."""
    config = LlamaConfig(
        vocab_size=rows, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, tie_word_embeddings=False, dtype=torch.bfloat16,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        place = name.removesuffix(".weight")
        if "layers" not in name or weight.dim() != 2:
            tensors[name] = weight
        elif method == "fp8":
            out, into = weight.shape
            blocks = weight.float().reshape(out // 128, 128, into // 128, 128)
            scale = blocks.abs().amax((1, 3)) / 448
            tensors[name] = (blocks / scale[:, None, :, None]).reshape(out, into).to(torch.float8_e4m3fn)
            tensors[f"{place}.weight_scale_inv"] = scale
        elif method == "bitsandbytes":
            tensors[name] = torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8)
            tensors[f"{place}.weight.absmax"] = torch.zeros(weight.numel() // 64)
        else:
            tensors[f"{place}.qweight"] = torch.zeros(weight.shape[1] // 8, weight.shape[0], dtype=torch.int32)
            tensors[f"{place}.scales"] = torch.zeros(1, weight.shape[0], dtype=torch.float16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] = {"quant_method": method, **more}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


QUANTISED = {
    "fp8": {"activation_scheme": "dynamic", "weight_block_size": [128, 128], "fmt": "e4m3"},
    "gptq": {"bits": 4, "group_size": 128},
    "awq": {"bits": 4, "group_size": 128, "version": "gemm"},
    "bitsandbytes": {"load_in_4bit": True},
    "compressed-tensors": {"config_groups": {}},
    "mxfp4": {},
}


@pytest.mark.parametrize("method", sorted(QUANTISED))
def test_a_quantised_body_is_not_changed(method: str, tmp_path: Path) -> None:
    source = quantised(tmp_path / "source", method, **QUANTISED[method])
    result = rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "out")
    assert result["streamed"]
    old, new = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    assert old.keys() == new.keys()
    for name, tensor in old.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(new[name][10:100], tensor[10:100])
            assert len(new[name]) == TARGET.size
        else:
            assert tensor.dtype == new[name].dtype
            assert tensor.view(torch.uint8).equal(new[name].view(torch.uint8)), name
    values = [json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "out")]
    assert values[0]["quantization_config"] == values[1]["quantization_config"]
    assert values[1]["vocab_size"] == TARGET.size
    with pytest.raises(InputError, match=f"is quantised .{method}.; to calibrate it, also dequantize it"):
        rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "c", calibrate=["default"])


def test_fp8_is_dequantized_on_request_and_others_are_refused(tmp_path: Path) -> None:
    source = quantised(tmp_path / "fp8", "fp8", **QUANTISED["fp8"])
    result = rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "out", dequantize=True)
    assert not result["streamed"]
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert abs(float(made["model.layers.0.self_attn.q_proj.weight"].float().std()) - 0.2) < 0.01
    assert not [name for name in made if "scale" in name]
    other = quantised(tmp_path / "gptq", "gptq", **QUANTISED["gptq"])
    with pytest.raises(InputError, match="quantised by gptq cannot be dequantized here"):
        rearrange_to_folder(str(other), mixed_lexicon(), SOURCE, TARGET, tmp_path / "no", dequantize=True)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(other), device="cpu")


@pytest.mark.parametrize("name", ["lm_head.qweight", "lm_head.weight"])
def test_a_quantised_head_is_refused(name: str, tmp_path: Path) -> None:
    source = quantised(tmp_path / "source", "gptq", **QUANTISED["gptq"])
    tensors = load_file(source / "model.safetensors")
    rows = tensors.pop("lm_head.weight")
    tensors[name] = torch.zeros(16, SOURCE.size, dtype=torch.int32) if name != "lm_head.weight" else rows.int()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"quantised \(gptq\) and its output too"):
        rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "out")
    assert not (tmp_path / "out").exists()


SETTINGS = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}


@pytest.mark.parametrize("place", ["hf_quant_config.json", "quantize_config.json", "compression_config"])
def test_quantisation_settings_stay_in_their_place(place: str, tmp_path: Path) -> None:
    source = quantised(tmp_path / "source", "fp8")
    config = json.loads((source / "config.json").read_text())
    del config["quantization_config"]
    if place.endswith(".json"):
        write_json(source / place, SETTINGS)
    else:
        config[place] = SETTINGS
    write_json(source / "config.json", config)
    out = tmp_path / "out"
    assert rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, out)["streamed"]
    made = json.loads((out / "config.json").read_text())
    if place.endswith(".json"):
        assert json.loads((out / place).read_text()) == SETTINGS
    else:
        assert made[place] == config[place]
    assert "quantization_config" not in made
    assert "model.layers.0.self_attn.q_proj.weight_scale_inv" in load_file(out / "model.safetensors")
    finding = check_folder(str(out)).finding("loads")
    assert finding.severity == "warn"
    assert "quantised (modelopt), and transformers does not read it here: it leaves out 7 scales" in finding.evidence
    rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, out)
    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert check_folder(str(out)).finding("loads").severity == "fail"


def test_scales_without_a_method_are_refused(tmp_path: Path) -> None:
    source = quantised(tmp_path / "source", "fp8")
    tiny_tokenizer(300).save_pretrained(source)
    config = json.loads((source / "config.json").read_text())
    del config["quantization_config"]
    write_json(source / "config.json", config)
    with pytest.raises(
        InputError, match=r"by a method that transformers does not apply, .* 7 scales \(the first is mod"
    ):
        load_model(str(source), device="cpu")
    checked = check_folder(str(source))
    assert checked.finding("loads").severity == "fail"
    assert checked.left_out["generation"] == "loads"


def test_a_head_that_was_tied_stays_unquantised(tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "compressed-tensors", "ignore": [], "targets": ["Linear"]}}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "config.json", {"text_config": config} if name == "old" else {})
    write_json(tmp_path / "old" / "hf_quant_config.json", {"quantization": {"exclude_modules": []}})
    keep_settings(tmp_path / "old", tmp_path / "new", "lm_head")
    settings = json.loads((tmp_path / "new" / "hf_quant_config.json").read_text())
    assert settings == {"quantization": {"exclude_modules": ["lm_head"]}}
    made = json.loads((tmp_path / "new" / "config.json").read_text())["text_config"]["quantization_config"]
    assert made == {**config["quantization_config"], "ignore": ["lm_head"]}


# --- a chat model stays a chat model

CHAT = (
    "{% if tools %}<|im_start|>tools{{ tools | tojson }}<|im_end|>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_model(folder: Path) -> Path:
    tokenizer = tiny_tokenizer(300, eos="<|im_end|>", template=CHAT)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "pad_token": "<|pad|>"})
    tokenizer.add_tokens(["<tool_call>"])
    source = Vocabulary.from_tokenizer(tokenizer, str(folder))
    model = tiny_model("llama", source.size)
    model.generation_config.eos_token_id = [source.roles["eos"], source.id_of_raw("<|pad|>")]
    model.generation_config.temperature = 0.7
    model.generation_config.do_sample = True
    model.generation_config.pad_token_id = source.roles["pad"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def aligned(source: Vocabulary, target: Vocabulary) -> Lexicon:
    rows = LexiconRows(target.size)
    for new in range(target.size):
        rows.copy(new, new % source.size, "aligned")
    return finish(rows, source, target)


def test_a_chat_model_keeps_its_template_and_its_turn_tokens(tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "chat")
    source, target = load_vocabulary(str(folder)), tiny_vocabulary(280, bos="<s>", eos="<end>")
    result = rearrange_to_folder(str(folder), aligned(source, target), source, target, tmp_path / "out")
    assert result["special_tokens"] == "keep"
    assert result["added_tokens"] == 3
    assert result["lost"] == []
    before, after = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(tmp_path / "out")
    for conversation in CONVERSATIONS.values():
        texts = [tokenizer.apply_chat_template(**conversation, tokenize=False) for tokenizer in (before, after)]
        assert texts[0] == texts[1]
    assert after.eos_token == "<|im_end|>"
    assert after.pad_token == "<|pad|>"
    assert after(["a", "a b c"], padding=True)["input_ids"][0][-1] == after.pad_token_id
    assert after("a")["input_ids"] == target.encode(["a"])[0].tolist(), "a text begins as with the source"
    assert after.get_vocab().items() >= target.tokenizer.get_vocab().items()
    old, new = (load_model(str(place), device="cpu") for place in (folder, tmp_path / "out"))
    for mark in ("<|im_start|>", "<|im_end|>", "<|pad|>"):
        there, here = (tokenizer.convert_tokens_to_ids(mark) for tokenizer in (before, after))
        assert torch.equal(old.model.embed_tokens.weight[there], new.model.embed_tokens.weight[here])
        assert torch.equal(old.lm_head.weight[there], new.lm_head.weight[here])
    assert new.generation_config.eos_token_id == [after.eos_token_id, after.pad_token_id]
    assert new.generation_config.temperature == old.generation_config.temperature
    assert new.generation_config.pad_token_id == after.pad_token_id
    assert check_folder(str(tmp_path / "out")).finding("carried over").severity == "ok"


def converted_chat(
    tokenizer: PreTrainedTokenizerFast, place: Path, special_tokens: str = "keep", **generation: object
) -> tuple[dict, Path]:
    """Convert a model with this tokenizer to one with another bos and length; the source's turn tokens are kept."""
    model = tiny_model("llama", len(tokenizer))
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(place / "source")
    tokenizer.save_pretrained(place / "source")
    other = tiny_tokenizer(280, bos="<s>", eos="<end>")
    other.model_max_length, other.padding_side = 5, "right"
    source, target = load_vocabulary(str(place / "source")), Vocabulary.from_tokenizer(other, "other")
    lexicon, folder = aligned(source, target), str(place / "source")
    return rearrange_to_folder(folder, lexicon, source, target, place / "out", special_tokens=special_tokens), place


def test_a_template_in_the_file_of_a_processor_is_kept(tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "chat")
    (folder / "chat_template.jinja").unlink()
    write_json(folder / "chat_template.json", {"chat_template": CHAT})
    source, target = load_vocabulary(str(folder)), tiny_vocabulary(280)
    result = rearrange_to_folder(str(folder), aligned(source, target), source, target, tmp_path / "out")
    assert result["special_tokens"] == "keep"
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == CHAT


def test_a_template_in_the_file_of_a_processor_is_read_for_a_hub_id(tmp_path: Path, monkeypatch) -> None:
    folder = chat_model(tmp_path / "models--some--chat" / "snapshots" / "abc")
    (folder / "chat_template.jinja").unlink()
    write_json(folder / "chat_template.json", {"chat_template": CHAT})
    (tmp_path / "models--some--chat" / "refs").mkdir()
    (tmp_path / "models--some--chat" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # no test asks a hub
    assert load_vocabulary("some/chat").tokenizer.chat_template == CHAT


def test_an_old_list_of_added_tokens_next_to_a_tokenizer_json_is_ignored_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = chat_model(tmp_path / "models--some--chat" / "snapshots" / "abc")
    write_json(folder / "added_tokens.json", {"<old>": 7})
    (tmp_path / "models--some--chat" / "refs").mkdir()
    (tmp_path / "models--some--chat" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # no test asks a hub
    assert load_vocabulary("some/chat").fingerprint == load_vocabulary(str(folder)).fingerprint


def test_a_target_that_splits_special_tokens_does_not_split_turn_tokens(tmp_path: Path) -> None:
    folder, other = chat_model(tmp_path / "chat"), tiny_tokenizer(280)
    other.split_special_tokens = True
    source, target = load_vocabulary(str(folder)), Vocabulary.from_tokenizer(other, "other")
    rearrange_to_folder(str(folder), aligned(source, target), source, target, tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = loaded.apply_chat_template([{"role": "user", "content": "a"}], return_dict=False)
    assert ids[0] == loaded.convert_tokens_to_ids("<|im_start|>")


def test_turn_tokens_that_a_template_concatenates_or_that_are_not_special(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ m['content'] }}<stop>{% endfor %}"
    tokenizer = tiny_tokenizer(300, template=template)
    tokenizer.add_tokens(["<|user|>", "<|assistant|>", "<stop>"])
    tokenizer.model_max_length = 2048
    stop = tokenizer.convert_tokens_to_ids("<stop>")
    result, place = converted_chat(tokenizer, tmp_path, eos_token_id=[0, stop, 3], stop_strings=["###"])
    assert result["lost"] == []
    old, new = (AutoTokenizer.from_pretrained(place / name) for name in ("source", "out"))
    text = old.apply_chat_template(**CONVERSATIONS["several turns"], tokenize=False)
    assert new.apply_chat_template(**CONVERSATIONS["several turns"], tokenize=False) == text, "no bos before it"
    marks = [[t for t in made.tokenize(text) if t.startswith("<")] for made in (old, new)]
    assert marks[0] == marks[1]
    ends = load_model(str(place / "out"), device="cpu").generation_config.eos_token_id
    assert new.convert_ids_to_tokens(ends) == ["</s>", "<stop>"], "a text does not end at an ordinary token, 3"
    assert new.model_max_length == 2048
    checked = check_folder(str(place / "out"))
    assert {checked.finding(name).severity for name in ("chat template", "generation", "special ids")} == {"ok"}


def test_a_chat_model_whose_pad_and_end_are_tokens_of_the_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(
        300, template="{% for m in messages %}<|user|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    )
    tokenizer.add_tokens(["<|user|>"])
    tokenizer.pad_token, tokenizer.eos_token = "!", "Ċ"
    result, place = converted_chat(tokenizer, tmp_path)
    assert result["lost"] == []
    new = load_vocabulary(str(place / "out"))
    assert (new.tokenizer.pad_token, new.tokenizer.eos_token) == ("!", "Ċ")
    assert new.decode(new.encode(["a!\nb"])[0]) == "a!\nb"
    assert check_folder(str(place / "out")).finding("round trips").severity == "ok"


@pytest.mark.parametrize("special_tokens", ["keep", "target"])
def test_a_template_that_names_other_special_tokens(special_tokens: str, tmp_path: Path) -> None:
    marks = "<|user|>{{ m['content'] }}{{ sep_token }}"
    template = (
        "{% for m in messages %}" + marks + "{% endfor %}{% if add_generation_prompt %}{{ turn_token }}{% endif %}"
    )
    tokenizer = tiny_tokenizer(300, template=template)
    tokenizer.add_tokens(["<|user|>"])
    tokenizer.add_special_tokens({"sep_token": "<sep>"})
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, extra_special_tokens={"turn_token": "<turn>"})
    result, place = converted_chat(tokenizer, tmp_path, special_tokens)
    new = AutoTokenizer.from_pretrained(place / "out")
    if special_tokens == "target":  # without these tokens it would render nothing in their places
        assert new.chat_template is None
        assert "chat template is lost" in result["lost"][0]
        return
    assert result["lost"] == []
    conversation = CONVERSATIONS["several turns"]
    assert new.apply_chat_template(**conversation, tokenize=False).endswith("<|user|>Hello<sep><turn>")
    settings = json.loads((place / "out" / "tokenizer_config.json").read_text())
    assert settings["extra_special_tokens"] == {"turn_token": "<turn>"}, "where transformers 4.57 looks for it"


def test_several_chat_templates_are_kept(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = {"default": CHAT, "tool_use": CHAT + "!", "broken": "{{ raise_exception('no') }}"}
    result, place = converted_chat(tokenizer, tmp_path)
    kept = AutoTokenizer.from_pretrained(place / "out").chat_template
    assert kept == {"default": CHAT, "tool_use": CHAT + "!"}
    assert "The chat templates broken are lost" in result["lost"][0]
    converted_chat(tokenizer, tmp_path)  # our own unchanged folder is replaced


def test_what_a_chat_model_loses_is_reported(tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "chat")
    source, target = load_vocabulary(str(folder)), tiny_vocabulary(280, bos="<s>", eos="<end>")
    lexicon = aligned(source, target)
    result = rearrange_to_folder(str(folder), lexicon, source, target, tmp_path / "out", special_tokens="target")
    assert result["vocab_size"] == target.size
    assert [sentence.split(":")[0].split(",")[0] for sentence in result["lost"]] == [
        "tiny-280 has no token for these ids of the configuration",
        "The chat template is lost",
        "There is no pad token any more",
    ]
    assert "generation_config.eos_token_id (<|pad|>)" in result["lost"][0]
    assert "<|im_end|>" in result["lost"][1]
    finding = check_folder(str(tmp_path / "out")).finding("carried over")
    assert finding.severity == "warn"
    assert "chat template is lost" in finding.evidence
    assert "chat template is lost" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(InputError, match="choose 'keep'"):
        rearrange_to_folder(str(folder), lexicon, source, target, tmp_path / "no", special_tokens="both")


def test_a_target_without_a_chat_model_gets_nothing_added(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source")
    result = rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "out")
    assert result["special_tokens"] == "target"
    assert result["added_tokens"] == 0
    kept = rearrange_to_folder(
        str(source), mixed_lexicon(), SOURCE, TARGET, tmp_path / "kept", special_tokens="keep", pad_to_multiple_of=64
    )
    assert kept["added_tokens"] == 1, "eos of the source"
    assert load_model(str(tmp_path / "kept"), device="cpu").generation_config.eos_token_id == TARGET.size


def test_the_card_has_the_fields_that_a_hub_requires(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source")
    (source / "README.md").write_text("---\nlicense: gemma\nlanguage: [en, de]\nbase_model: org/base\n---\n# Source")
    lexicon = mixed_lexicon()
    rearrange_to_folder(str(source), lexicon, SOURCE, TARGET, tmp_path / "out")
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.license, data.language, data.base_model) == ("gemma", ["en", "de"], "org/base")
    assert data.pipeline_tag == "text-generation"
    named = {"smollm2-135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"), "org/name": ("org/name", None)}
    for name, wanted in named.items():
        data = card_data({"model": name})
        assert (data.base_model, data.license) == wanted


def test_the_cards_text_row_is_the_lexicons(tmp_path: Path) -> None:
    lexicon = mixed_lexicon().provenance | {"text_bytes": 12345, "text_hash": "abc"}
    card = {"lexicon": lexicon, "calibration": {"text": ["other.txt"], "tokens": 5}}
    save_model(tiny_model("llama", TARGET.size), TARGET, tmp_path / "m", card=card)
    text = (tmp_path / "m" / "README.md").read_text()
    assert "| text | 12,345 bytes, SHA-256 abc |" in text
    assert "| calibration text | ['other.txt'] |" in text


# --- settings of a generation_config that choose another way to generate


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"guidance_scale": 1.5},
        {"prompt_lookup_num_tokens": 3},
        {"return_dict_in_generate": True},
        {"min_p": 0.9},
        {"repetition_penalty": 9.0},
    ],
)
def test_a_models_own_generation_settings_do_not_change_a_measurement(settings: dict, tmp_path: Path) -> None:
    vocabulary = tiny_vocabulary(300)
    texts = [Document(WORDS, str(number), str(number)) for number in range(8)]
    writing = WritingSettings(documents=8, prompt_tokens=6, new_tokens=6)
    found = []
    for place, changed in enumerate([{}, settings]):
        large, draft = (tiny_model("llama", vocabulary.size, seed) for seed in (0, 1))
        for model in (large, draft):
            model.generation_config.update(**changed)
        own = copy.deepcopy(large.generation_config)
        scores = Drafting(large, vocabulary, texts, 2, 9, seed=0, longest=40).score(draft)
        write_text(large, vocabulary, texts, [], writing, tmp_path / f"{place}.jsonl")
        counts = [(one.decoding, one.tokens, one.steps, one.proposed) for one in scores]
        found.append((counts, continue_text(large, vocabulary, "The", 9), (tmp_path / f"{place}.jsonl").read_text()))
        assert large.generation_config == own
    assert found[0] == found[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_without_numbers_is_refused_before_it_writes_or_is_read(value: float, tmp_path: Path) -> None:
    """A greedy choice was an arbitrary token, a drawn one a RuntimeError, and a head "of another kind"."""
    vocabulary = tiny_vocabulary(300)
    sound, broken = (tiny_model("llama", vocabulary.size) for _ in range(2))
    broken.model.layers[0].mlp.down_proj.weight.data[0, 0] = value
    texts = [Document(WORDS, str(number), str(number)) for number in range(8)]
    asked, sizes = (vocabulary, texts, 2, 9, 0, 40), {"documents": 2, "prompt_tokens": 6, "new_tokens": 6}
    attempts = [
        *(
            lambda t=t: write_text(
                broken, vocabulary, texts, [], WritingSettings(**sizes, temperature=t), tmp_path / "made.jsonl"
            )
            for t in (0.0, 1.0)
        ),
        lambda: continue_text(broken, vocabulary, "The", 9),
        lambda: Drafting(broken, *asked),
        lambda: Drafting(sound, *asked).score(broken),
        lambda: calibrate(broken, vocabulary, texts, 50),
        lambda: row_gate(broken, vocabulary, texts),
        lambda: time_step(broken, 300),
    ]
    for attempt in attempts:
        with pytest.raises(InputError, match="predictions are no numbers"):
            attempt()
    assert not (tmp_path / "made.jsonl").exists()


@pytest.mark.parametrize("temperature", [1e-40, 1e-46, 0.001])
def test_a_temperature_that_makes_logits_infinite_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match=r"must be 0 \(greedy\) or at least 0.01"):
        WritingSettings(documents=1, temperature=temperature)
    assert WritingSettings(documents=1, temperature=0).temperature == 0


@pytest.mark.parametrize("most", [0, -1])
def test_calibration_and_scores_of_nothing_are_refused(most: int) -> None:
    """Calibration read one window in spite of it, and scores ended in a ZeroDivisionError."""
    texts = [Document(WORDS, str(number), str(number)) for number in range(8)]
    with pytest.raises(InputError, match=f"max_tokens is {most}"):
        calibrate(tiny_model("llama", TARGET.size), TARGET, texts, most)
    with pytest.raises(InputError, match=f"max_documents is {most}"):
        score_lexicon(mixed_lexicon(), tokenize_pair(SOURCE, TARGET, texts), None, most)


# --- a source that is not the one of the conversion


def test_another_model_at_the_sources_place_is_not_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, converted = str(tmp_path / "source"), str(tmp_path / "converted")
    model = tiny_model("llama", SOURCE.size).bfloat16()
    model.save_pretrained(source)
    tiny_tokenizer(SOURCE.size).save_pretrained(source)
    rearrange_to_folder(source, mixed_lexicon(), load_vocabulary(source), TARGET, Path(converted))
    model.float().save_pretrained(source, max_shard_size="50KB")  # the same weights in other files
    (tmp_path / "source" / "model.safetensors").unlink()
    assert load_source(converted)[1].fingerprint == SOURCE.fingerprint
    tuned = copy.deepcopy(model)
    tuned.model.layers[-1].mlp.down_proj.weight.data[0, 0] += 0.01
    tuned.save_pretrained(source)
    with pytest.raises(InputError, match="has other weights than the model that was converted"):
        load_source(converted)
    tiny_model("llama", SOURCE.size - 10).save_pretrained(source)
    tiny_tokenizer(SOURCE.size - 10).save_pretrained(source)
    with pytest.raises(InputError, match="has another tokenizer than the model that was converted"):
        load_source(converted)
    record = json.loads((tmp_path / "converted" / "tokalign.json").read_text())
    del record["source_weights"], record["lexicon"]
    write_json(tmp_path / "converted" / "tokalign.json", record)
    monkeypatch.setattr("tokalign_lab.model.save.weights_hash", lambda folder: pytest.fail("nothing to compare with"))
    assert load_source(converted)[1].size == SOURCE.size - 10


@pytest.mark.parametrize("recipe", ["tokalign++-hidden", "omp"])
def test_a_lexicon_is_not_made_with_another_model_than_the_source(recipe: str, tmp_path: Path) -> None:
    for name, tokenizer in (("source", SOURCE), ("target", TARGET), ("other", tiny_vocabulary(290))):
        tiny_model("llama", SOURCE.size).save_pretrained(tmp_path / name)
        tokenizer.tokenizer.save_pretrained(tmp_path / name)
    names = {name: str(tmp_path / name) for name in ("source", "target", "other")}
    (tmp_path / "text.txt").write_text(WORDS * 20)
    values = {"recipe": recipe, "model": names["other"], "donor": names["target"] if recipe == "omp" else None}
    settings = AlignSettings(
        source=names["source"], target=names["target"], text=(str(tmp_path / "text.txt"),), **values
    )
    text = pipeline.read_pair(settings)
    with pytest.raises(InputError, match="has another tokenizer than the source"):
        pipeline.align_text(text, settings)
    with pytest.raises(InputError, match="has another tokenizer than the source"):
        pipeline.measure_held_out(text, "tokalign++-hidden", 0, names["other"])


def test_a_lexicon_is_not_checked_on_the_rows_of_another_model(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("source", "target", "other")]
    for name, tokenizer in zip(names, (SOURCE, TARGET, renumbered(SOURCE, np.arange(SOURCE.size)[::-1])), strict=True):
        tiny_model("llama", tokenizer.size).save_pretrained(name)
        tokenizer.tokenizer.save_pretrained(name)
    lexicon = mixed_lexicon()
    for side, name in zip(("source", "target"), names, strict=False):
        lexicon.provenance[side]["name"] = name
    lexicon.save(tmp_path / "l.parquet")
    codes = []
    for name in (names[0], names[2]):
        done = CliRunner().invoke(app, ["diagnose", str(tmp_path / "l.parquet"), "--model", name])
        codes.append(done.exit_code)
    assert codes == [0, 2]
    assert "was made for the source tokenizer" in done.stderr
