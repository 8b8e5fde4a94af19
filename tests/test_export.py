"""Export to GGUF: the converter is found, its result is compared, and `tokenizer.model` gives the tokenizer's ids."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import tarfile
from pathlib import Path
from unicodedata import normalize

import pytest
from gguf import GGUFReader
from test_cases_models import sentencepiece_target
from test_cli import run
from tiny import save_tiny, tiny_tokenizer
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.errors import InputError
from tokalign_lab.model import export, llama_cpp
from tokalign_lab.model.hard_texts import hard_texts
from tokalign_lab.model.load import load_model
from tokalign_lab.model.save import save_model
from tokalign_lab.model.sentencepiece_model import built_model

WRITES = "import sys\nopen(sys.argv[3], 'w').write('gguf')\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("export") / "model")


def a_converter(tmp_path: Path, program: str = WRITES) -> str:
    (tmp_path / export.CONVERTER).write_text(program, encoding="utf-8")
    return str(tmp_path)


def answer_of(folder: Path, texts: list[str], sequences: list[tuple[list[int], list[int]]]) -> llama_cpp.Answer:
    """Return the results that llama.cpp should give, computed by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    return llama_cpp.Answer("a runtime", ids, [following for _, following in sequences])


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, change: object = None) -> None:
    """Replace llama.cpp by a runtime with the right results, which `change` may alter."""

    def ask(gguf: Path, texts: list[str], sequences: list[tuple[list[int], list[int]]]) -> llama_cpp.Answer:
        answer = answer_of(folder, texts, sequences)
        if callable(change):
            change(answer)
        return answer

    monkeypatch.setattr(llama_cpp, "is_installed", lambda: True)
    monkeypatch.setattr(llama_cpp, "ask", ask)


def test_equal_ids_and_continuations_are_verified(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    pretend(monkeypatch, folder, lambda answer: asked.append(len(answer.ids)))
    made = export.export_gguf(str(folder), tmp_path / "m.gguf", a_converter(tmp_path))
    assert (made["verdict"], asked) == ("ok", [300]), made["evidence"]
    assert (made["texts"], made["continuations"], made["other_ids"]) == (300, 8, 0)
    assert (tmp_path / "m.gguf").read_text() == "gguf"


def test_the_first_difference_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_ids(answer: llama_cpp.Answer) -> None:
        answer.ids[3].insert(0, 1)

    pretend(monkeypatch, folder, other_ids)
    found = export.verify_gguf(load_vocabulary(str(folder)), Path("m.gguf"))
    assert found.severity == "fail"
    assert f"1 of 300 texts have other ids; the first is {hard_texts(['</s>'])[3]!r}" in found.evidence

    def other_continuation(answer: llama_cpp.Answer) -> None:
        answer.chosen[2][5] = (answer.chosen[2][5] + 1) % 300

    pretend(monkeypatch, folder, other_continuation)
    found = export.verify_gguf(load_vocabulary(str(folder)), Path("m.gguf"))
    assert found.severity == "fail"
    assert "1 of 8 continuations differ" in found.evidence
    assert "as token 6 after" in found.evidence


def test_texts_that_only_a_normalizer_changes_are_a_warning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "nfc")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    tokenizer.save_pretrained(tmp_path / "nfc")
    pretend(monkeypatch, folder)  # as llama.cpp, without the normalizer
    found = export.verify_gguf(load_vocabulary(str(tmp_path / "nfc")), Path("m.gguf"))
    assert (found.severity, found.values["other_ids_normalized"]) == ("warn", 0), found.evidence
    assert found.values["other_ids"] == sum(text != normalize("NFC", text) for text in hard_texts(["</s>"])) + 4
    assert "normalized by the tokenizer's own normalizer, all have the same" in found.evidence
    assert "NFC" in found.advice

    def other_ids(answer: llama_cpp.Answer) -> None:
        answer.ids[3].insert(0, 1)

    pretend(monkeypatch, folder, other_ids)
    assert export.verify_gguf(load_vocabulary(str(tmp_path / "nfc")), Path("m.gguf")).severity == "fail"


def test_names_that_llama_cpp_takes_for_control_tokens_are_reversed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "m")
    state = json.loads(tiny_tokenizer(280, eos="<end>").backend_tokenizer.to_str())
    tokens = state["model"]["vocab"]
    for left, right in (("<", "/"), ("</", "s"), ("</s", ">"), ("[", ":"), ("[:", "]")):  # ByteLevel cuts `</` off `s`
        state["model"]["merges"].append([left, right])
        tokens[left + right] = len(tokens)
    backend = Tokenizer.from_str(json.dumps(state))
    backend.add_tokens(["<tool>"])
    backend.save(str(tmp_path / "m" / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    names = AutoTokenizer.from_pretrained(tmp_path / "m").convert_ids_to_tokens(range(len(tokens) + 1))
    program = (
        f"import sys\nfrom gguf import GGUFWriter\nwriter = GGUFWriter(sys.argv[3], 'llama')\n"
        f"writer.add_token_list({names})\nwriter.write_header_to_file()\nwriter.write_kv_data_to_file()\nwriter.close()"
    )
    monkeypatch.setattr(llama_cpp, "is_installed", lambda: False)
    export.export_gguf(str(tmp_path / "m"), tmp_path / "m.gguf", a_converter(tmp_path, program))
    written = GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.tokens"].contents()
    assert {(old, new) for old, new in zip(names, written, strict=True) if old != new} == {("</s>", ">s/<")}


def test_a_runtime_that_fails_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(answer: llama_cpp.Answer) -> None:
        raise llama_cpp.LlamaCppError("GGML_ASSERT failed\nmore")

    pretend(monkeypatch, folder, fail)
    found = export.verify_gguf(load_vocabulary(str(folder)), Path("m.gguf"))
    assert (found.severity, "GGML_ASSERT failed." in found.evidence) == ("fail", True)


def test_without_a_runtime_nothing_is_verified(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "is_installed", lambda: False)
    made = export.export_gguf(str(folder), tmp_path / "m.gguf", a_converter(tmp_path))
    assert made["verdict"] == "not verified"
    assert (tmp_path / "m.gguf").is_file()


def test_a_converter_is_extracted_from_a_source_archive(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "is_installed", lambda: False)
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as archive:
        for name, content in ((export.CONVERTER, f"import conversion\n{WRITES}"), ("conversion/__init__.py", "")):
            member = tarfile.TarInfo(f"llama_cpp_python-1/vendor/llama.cpp/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    export.export_gguf(str(folder), tmp_path / "m.gguf", str(tmp_path / "source.tar.gz"))
    assert (tmp_path / "m.gguf").read_text() == "gguf"


def test_a_missing_or_failing_converter_ends_in_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"no convert_hf_to_gguf.py at"):
        export.export_gguf(str(folder), tmp_path / "m.gguf", str(tmp_path / "nothing"))
    failing = a_converter(tmp_path, "raise ValueError('no such architecture')")
    with pytest.raises(InputError, match=r"cannot convert .*: ValueError: no such architecture\.$"):
        export.export_gguf(str(folder), tmp_path / "m.gguf", failing)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="give --converter"):
        export.export_gguf(str(folder), tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
    assert run("export", folder, "--gguf", tmp_path / "m.gguf", "--converter", tmp_path / "nothing").returncode == 2


def test_a_sentencepiece_model_is_copied_or_built_and_gives_the_same_ids(tmp_path: Path) -> None:
    import sentencepiece

    target = load_vocabulary(str(sentencepiece_target(tmp_path)))
    built = built_model(target)
    assert built is not None
    pieces = sentencepiece.SentencePieceProcessor(model_proto=built)
    texts = hard_texts(())
    assert pieces.encode(texts) == [ids.tolist() for ids in target.encode(texts)]

    target.tokenizer.save_pretrained(tmp_path / "json")  # without the .model file
    bare = load_vocabulary(str(tmp_path / "json"))
    assert not (tmp_path / "json" / "tokenizer.model").exists()
    model = load_model(str(save_tiny(tmp_path / "tiny", size=300)))
    model.resize_token_embeddings(bare.size)
    save_model(model, bare, tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.model").read_bytes() == built_model(bare)
    values = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (values["add_bos_token"], values["add_eos_token"]) == (True, False), "the converter would guess"


def test_other_tokenizers_have_no_sentencepiece_model(folder: Path, tmp_path: Path) -> None:
    assert built_model(load_vocabulary(str(folder))) is None
    target = load_vocabulary(str(sentencepiece_target(tmp_path)))
    target.tokenizer.save_pretrained(tmp_path / "json")
    state = json.loads((tmp_path / "json" / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    vocabulary["<0xff>"] = vocabulary.pop("<0xFF>")  # the library finds 255 byte tokens only
    (tmp_path / "json" / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    assert built_model(load_vocabulary(str(tmp_path / "json"))) is None


@pytest.mark.skipif(
    importlib.util.find_spec("cyllama") is None or shutil.which(export.CONVERTER) is None,
    reason="needs the package cyllama (extra gguf) and llama.cpp's convert_hf_to_gguf.py on the PATH",
)
def test_a_real_runtime_gives_the_same_ids(tmp_path: Path) -> None:
    target = load_vocabulary(str(sentencepiece_target(tmp_path)))
    model = load_model(str(save_tiny(tmp_path / "tiny", size=300)))
    model.resize_token_embeddings(target.size)
    save_model(model, target, tmp_path / "saved")
    made = export.export_gguf(str(tmp_path / "saved"), tmp_path / "m.gguf")
    assert made["verdict"] == "ok", made["evidence"]
    assert made["runtime"].startswith("cyllama")
