"""Export to GGUF: the converter is found, its result is compared, and `tokenizer.model` gives the tokenizer's ids.

A published folder is the model and nothing else.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from unicodedata import normalize

import pytest
import torch
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
from tokalign_lab.model.publish import push_to_hub
from tokalign_lab.model.save import model_files, save_model
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


def test_no_other_file_is_overwritten(folder: Path, tmp_path: Path) -> None:
    model = shutil.copytree(folder, tmp_path / "m")
    weights = (model / "model.safetensors").read_bytes()
    done = run("export", model, "--gguf", model / "model.safetensors", "--converter", a_converter(tmp_path))
    assert done.returncode == 2
    assert "the result is a .gguf file" in done.stderr
    assert (model / "model.safetensors").read_bytes() == weights


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


class Hub(BaseHTTPRequestHandler):
    """The requests of an upload, answered as the hub does; files of a commit are kept."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[dict[str, object]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        address = f"http://{self.headers['Host']}/me/moved"
        if self.path.endswith("/repos/create"):
            self.asked.append(json.loads(body))
            self.answer({"url": address, "id": "me/moved"})
        elif self.path.endswith("/preupload/main"):
            names = [one["path"] for one in json.loads(body)["files"]]
            self.answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{address}/commit/0", "commitOid": "0"})
        else:  # the check of the card
            self.answer({"errors": [], "warnings": []})

    def answer(self, values: dict[str, object]) -> None:
        if self.headers.get("Authorization") != "Bearer hf_mine":
            return self.send_error(401)
        body = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A server that stands for the hub, and a user with a token."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    Hub.files.clear()
    Hub.asked.clear()
    yield Hub
    server.shutdown()


@pytest.fixture(scope="module")
def sound(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, with the tokenizer's eos in its configurations, so that all checks pass."""
    model, vocabulary = load_model(str(folder)), load_vocabulary(str(folder))
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = None, vocabulary.roles["eos"]
    return save_model(model, vocabulary, tmp_path_factory.mktemp("sound") / "model")


def test_a_published_folder_is_the_model_and_nothing_else(sound: Path, tmp_path: Path, hub: type[Hub]) -> None:
    mine = shutil.copytree(sound, tmp_path / "mine")
    (mine / "train.jsonl").write_text("private", encoding="utf-8")
    (mine / "checkpoints").mkdir()
    (mine / "checkpoints" / "model.safetensors").write_text("old", encoding="utf-8")
    made = push_to_hub(str(mine), "me/moved", private=True)
    assert "/me/moved" in made["hub"]
    assert "private" in (hub.asked[0].get("visibility"), "private" * bool(hub.asked[0].get("private"))), "old and new"
    assert set(hub.files) == {path.name for path in sound.iterdir()}
    (tmp_path / "fetched").mkdir()
    for name, content in hub.files.items():
        (tmp_path / "fetched" / name).write_bytes(content)
    ids = load_vocabulary(str(sound)).encode(["The quick fox"])[0]
    read = [load_model(str(place))(torch.tensor([ids.tolist()])).logits for place in (sound, tmp_path / "fetched")]
    assert torch.equal(*read)


def test_several_chat_templates_belong_to_the_files_of_a_model(sound: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(sound, tmp_path / "mine")
    (mine / "additional_chat_templates").mkdir()
    (mine / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}", encoding="utf-8")
    (mine / "notes.json").write_text("{}", encoding="utf-8")
    assert model_files(mine) == ["README.md", "additional_chat_templates/tool.jinja", *model_files(sound)[1:]]


def test_a_model_with_a_failed_check_or_without_a_right_to_write_is_not_published(
    folder: Path, sound: Path, tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="not published, because a check fails: Generation ends at"):
        push_to_hub(str(folder), "me/moved")  # its configuration ends a text at another id
    with pytest.raises(InputError, match="form organisation/name"):
        push_to_hub(str(folder), "moved")
    (tmp_path / "other").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(sound / name, tmp_path / "other")
    torch.save(load_model(str(sound)).state_dict(), tmp_path / "other" / "pytorch_model.bin")
    with pytest.raises(InputError, match="not a folder with safetensors weights"):
        push_to_hub(str(tmp_path / "other"), "me/moved")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(InputError, match=r"The hub does not take .*401"):
        push_to_hub(str(sound), "me/moved")
    assert not hub.files
    assert run("export", folder).returncode == 2
