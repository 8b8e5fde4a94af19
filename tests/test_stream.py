"""A model rearranged on disk, shard by shard, equals the model rearranged in memory."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_rearrange import SOURCE, TARGET, finish, identity, mixed_lexicon
from tiny import CONFIGS, tiny_model

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.catalog import load_vocabulary, model_folder
from tokalign_lab.errors import InputError
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.model.save import model_files, save_model
from tokalign_lab.model.shards import Shards, files_of_tensors
from tokalign_lab.model.stream import rearrange_files
from tokalign_lab.model.to_folder import rearrange_to_folder
from tokalign_lab.runs.kinds import rearrange_kind
from tokalign_lab.settings.kinds import RearrangeSettings

CARD = {"model": "tiny"}


def apart_lexicon() -> Lexicon:
    """Make a lexicon with separate output rows, so that tied matrices must be untied."""
    rows = LexiconRows(TARGET.size)
    for target_id in range(TARGET.size):
        rows.copy(target_id, target_id % SOURCE.size, "aligned")
    rows.mix(5, [7, 9], [0.5, 0.5], "pieces")
    rows.mix_output(5, [7], [0.25], mean_weight=0.5)
    return finish(rows, SOURCE, TARGET)


LEXICONS = {"same rows": mixed_lexicon(), "rows apart": apart_lexicon()}


def in_shards(kind: str, folder: Path, size: str = "20KB", dtype: torch.dtype = torch.bfloat16) -> Path:
    model = tiny_model(kind, SOURCE.size + 20, dtype=dtype)
    model.generation_config.eos_token_id = [SOURCE.roles["eos"], 12]
    model.save_pretrained(folder, max_shard_size=size)
    return folder


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


PAIRED = [(kind, *choice) for kind in sorted(CONFIGS) for choice in (("rows apart", None), ("same rows", 64))]


@pytest.mark.parametrize(
    ("kind", "rows", "multiple"),
    [
        *PAIRED,
        *((kind, *choice) for kind in ("gpt2", "llama_tied") for choice in (("rows apart", 64), ("same rows", None))),
    ],
)
def test_streaming_equals_memory_bit_for_bit(kind: str, rows: str, multiple: int | None, tmp_path: Path) -> None:
    folder = in_shards(kind, tmp_path / "source")
    assert (folder / "model.safetensors.index.json").is_file()
    size = rearrange_files(
        Shards.open(folder), LEXICONS[rows], SOURCE, TARGET, tmp_path / "out", 3, pad_to_multiple_of=multiple, card=CARD
    )
    whole = load_model(str(folder), device="cpu", dtype="auto")
    moved = rearrange(whole, LEXICONS[rows], SOURCE, TARGET, 3, pad_to_multiple_of=multiple)
    save_model(moved, TARGET, tmp_path / "memory" / "out", card=CARD, source=SOURCE)

    ours, theirs = read_all(tmp_path / "out"), read_all(tmp_path / "memory" / "out")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype
        assert torch.equal(tensor, ours[name]), name
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokalign.json", "README.md"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "memory" / "out" / name).read_text(), name
    loaded = load_model(str(tmp_path / "out"), device="cpu", dtype="auto")
    ids = torch.tensor([[3, 5, 7, 20, 11]])
    assert torch.equal(loaded(ids).logits, moved(ids).logits)
    assert loaded.get_input_embeddings().weight.shape[0] == size == loaded.config.vocab_size


def test_shards_without_a_matrix_are_copied_and_the_index_is_right(tmp_path: Path) -> None:
    folder = in_shards("llama", tmp_path / "source")
    rearrange_files(Shards.open(folder), LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")
    shards = files_of_tensors(folder)
    changed = {shards["model.embed_tokens.weight"], shards["lm_head.weight"]}
    others = set(shards.values()) - changed
    assert others
    for file in others:
        assert (tmp_path / "out" / file).read_bytes() == (folder / file).read_bytes()
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    tensors = read_all(tmp_path / "out")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "out" / file, "pt") as shard:
            assert name in set(shard.keys())


def test_shards_of_any_name_are_part_of_the_model(tmp_path: Path) -> None:
    """Qwen3.5's shards begin with `model.safetensors-`, and some models have a further file, `mtp.safetensors`."""
    folder = in_shards("llama", tmp_path / "source", size="40KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    *others, last = sorted(set(index["weight_map"].values()))
    names = {name: name.replace("model-", "model.safetensors-") for name in others} | {last: "mtp.safetensors"}
    for old, new in names.items():
        (folder / old).rename(folder / new)
    index["weight_map"] = {tensor: names[file] for tensor, file in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(names.values()) <= set(model_files(folder))
    for _ in range(2):  # our own folder is replaced
        rearrange_files(Shards.open(folder), LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(model_files(tmp_path / "out"))
    assert files_of_tensors(tmp_path / "out").keys() == index["weight_map"].keys()
    load_model(str(tmp_path / "out"), device="cpu")


def test_a_second_copy_of_tied_rows_is_removed(tmp_path: Path) -> None:
    folder = in_shards("llama_tied", tmp_path / "source", size="1GB")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    rearrange_files(Shards.open(folder), LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")
    assert "lm_head.weight" not in read_all(tmp_path / "out")
    assert load_model(str(tmp_path / "out"), device="cpu").config.tie_word_embeddings

    tensors["lm_head.weight"] += 1  # the configuration is wrong; like transformers, we rely on the files
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    rearrange_files(Shards.open(folder), LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")
    made = read_all(tmp_path / "out")
    assert torch.equal(made["lm_head.weight"][10:100], tensors["lm_head.weight"][10:100])
    assert torch.equal(made["model.embed_tokens.weight"][10:100], tensors["model.embed_tokens.weight"][10:100])
    assert not load_model(str(tmp_path / "out"), device="cpu").config.tie_word_embeddings


def test_tensors_of_another_dtype_stay_as_they_are(tmp_path: Path) -> None:
    folder = in_shards("llama", tmp_path / "source", size="1GB")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.randn(32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    rearrange_files(Shards.open(folder), LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")
    assert torch.equal(read_all(tmp_path / "out")["model.norm.weight"], tensors["model.norm.weight"])


def test_old_tensor_names_are_found_and_kept(tmp_path: Path) -> None:
    folder = in_shards("gpt2", tmp_path / "old", size="1GB")
    tensors = load_file(folder / "model.safetensors")  # GPT-2 is stored without the prefix of the whole model
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert Shards.open(folder).names == {"input": ["wte.weight"], "output": ["wte.weight"]}
    for rows, added in (("same rows", set()), ("rows apart", {"lm_head.weight"})):
        rearrange_files(Shards.open(folder), LEXICONS[rows], SOURCE, TARGET, tmp_path / "out")
        assert read_all(tmp_path / "out").keys() == tensors.keys() | added
        loaded = load_model(str(tmp_path / "out"), device="cpu", dtype="auto")
        moved = rearrange(load_model(str(folder), device="cpu", dtype="auto"), LEXICONS[rows], SOURCE, TARGET)
        assert torch.equal(loaded(torch.tensor([[3, 5, 20]])).logits, moved(torch.tensor([[3, 5, 20]])).logits)
    neox = Shards.open(in_shards("gpt_neox", tmp_path / "neox"))
    assert neox.names == {"input": ["gpt_neox.embed_in.weight"], "output": ["embed_out.weight"]}


def test_models_without_safetensors_are_rearranged_in_memory(tmp_path: Path) -> None:
    folder = in_shards("llama", tmp_path / "bin", size="1GB")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert Shards.open(folder) is None
    result = rearrange_to_folder(str(folder), LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")
    assert result.items() >= {"vocab_size": TARGET.size, "streamed": False}.items()
    new = load_model(str(tmp_path / "out"), device="cpu").get_input_embeddings().weight
    old = load_model(str(folder), device="cpu").get_input_embeddings().weight
    assert torch.equal(new[10:100], old[10:100])


def test_a_failed_stream_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = in_shards("llama", tmp_path / "source")
    with pytest.raises(InputError, match="lexicon was made for"):
        rearrange_files(Shards.open(folder), LEXICONS["same rows"], TARGET, TARGET, tmp_path / "out")
    full = OSError("disk full")
    monkeypatch.setattr("tokalign_lab.model.stream.save_other_files", lambda *a: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="disk full"):
        rearrange_files(Shards.open(folder), LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_shard_that_is_missing_is_refused(tmp_path: Path) -> None:
    folder = in_shards("llama", tmp_path / "source")
    next(iter(sorted(folder.glob("*.safetensors")))).unlink()
    with pytest.raises(InputError, match=r"not in its folder"):
        rearrange_files(Shards.open(folder), LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")


def test_a_hub_model_is_streamed_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub model is read from the hub cache (made by hand here, because no test contacts the hub)."""
    repository = tmp_path / "hub" / "models--some--model"
    in_shards("llama", repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    result = rearrange_to_folder("some/model", LEXICONS["same rows"], SOURCE, TARGET, tmp_path / "out")
    assert result.items() >= {"vocab_size": TARGET.size, "streamed": True}.items()
    assert np.isfinite(read_all(tmp_path / "out")["lm_head.weight"].float().numpy()).all()


def test_a_rearrange_run_gives_the_same_model(tmp_path: Path) -> None:
    folder = in_shards("llama", tmp_path / "source")
    named = {}
    for side, vocabulary in (("source", SOURCE), ("target", TARGET)):
        vocabulary.tokenizer.save_pretrained(tmp_path / side)
        named[side] = {**LEXICONS["same rows"].provenance[side], "name": str(tmp_path / side)}
    table, reverse = LEXICONS["same rows"].table, LEXICONS["same rows"].reverse
    Lexicon(table, reverse, {**LEXICONS["same rows"].provenance, **named}).save(tmp_path / "l.parquet")
    reported: list[str] = []
    events: list[dict[str, str]] = []
    context = SimpleNamespace(
        folder=SimpleNamespace(path=tmp_path / "run"),
        progress=lambda share, message: reported.append(message),
        emit=events.append,
    )
    settings = {"model": str(folder), "lexicon": str(tmp_path / "l.parquet"), "pad_to_multiple_of": 64}
    rearrange_kind(RearrangeSettings.from_dict(settings), context)
    assert load_model(str(tmp_path / "run" / "model"), device="cpu").config.vocab_size == 320
    assert reported[-1] == "saved"
    assert events == []
    calibrated = {**settings, "calibrate": ["default"], "out": str(tmp_path / "random states have no direction")}
    rearrange_kind(RearrangeSettings.from_dict(calibrated), context)
    assert events[0]["text"].startswith("The model is not calibrated: The states before this model's head have no")
    assert load_model(calibrated["out"], device="cpu").config.vocab_size == 320
    with pytest.raises(InputError, match="exclude each other"):
        rearrange_kind(RearrangeSettings.from_dict({**settings, "calibrate": ["default"], "keep_tied": True}), context)


# --- a real model


def test_gemma_streamed_to_its_own_vocabulary_is_the_same_model(tmp_path: Path) -> None:
    vocabulary = load_vocabulary("gemma-3-270m")  # 262,144 ids, tied, its embedding scaled by the model
    result = rearrange_to_folder("gemma-3-270m", identity(vocabulary), vocabulary, vocabulary, tmp_path / "out")
    assert result.items() >= {"vocab_size": vocabulary.size, "streamed": True}.items()
    before, after = Shards.open(Path(model_folder("gemma-3-270m"))), Shards.open(tmp_path / "out")
    assert before.file_of.keys() == after.file_of.keys()
    for name in before.file_of:
        assert torch.equal(before.read(name), after.read(name)), name
    assert after.outline.config.eos_token_id == vocabulary.roles["eos"]
