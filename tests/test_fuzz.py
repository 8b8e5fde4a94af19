"""Readers of files, and the command line, on damaged input: they give a valid value or one sentence, no other error.

Each reader gets a valid file that hypothesis damages: its bytes (flipped bits, cuts, repeats, the beginning of another
file), and for JSON its values (another type, a huge or negative number, a missing key). `DEEP=1000` draws more
examples.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_catalog import write_gguf
from test_sentencepiece import trained
from test_teacher import LENGTH, VOCABULARY, a_teacher, files_of
from tiny import save_tiny, tiny_model, tiny_tokenizer, tiny_vocabulary
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from typer.testing import CliRunner

from tokalign_lab import catalog
from tokalign_lab.adaptation import teacher_cache
from tokalign_lab.adaptation.data import PackedBlocks
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.edits import LexiconEdits, apply_edits
from tokalign_lab.cli import app
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document, read_documents
from tokalign_lab.errors import InputError
from tokalign_lab.files import write_json
from tokalign_lab.model.card import card_text
from tokalign_lab.model.folder_case import FolderCase
from tokalign_lab.model.load import load_model
from tokalign_lab.model.save import source_name
from tokalign_lab.model.to_folder import rearrange_to_folder
from tokalign_lab.model.tokenizer_checks import carried_over
from tokalign_lab.provenance import read_record
from tokalign_lab.runs import control, results, trash
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.listing import RunRow
from tokalign_lab.vectors.formats import load_vectors
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.widgets.common.state import LabState

EXAMPLES = int(os.environ.get("DEEP", 0))
_MORE_BYTES = 4 * 2**30  # limit of additional address space for reading a small file

# --- damage

ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 2.5, 10**6, 2**31, 10**12, 10**30, float("nan"), float("inf")]),
    st.sampled_from(["", "a", "\0", "\ud800", "../../x", "[/x]", "x" * 5_000, [], {}, [None], {"a": 1}, [[1], 2]]),
    st.integers(-5, 400),
)
SPLICES = st.sampled_from(
    [
        b"",
        b"\0",
        b"\xff",
        b"\n",
        b"}",
        b'"',
        b"-1",
        b"9" * 400,
        b"GGUF",
        b"PAR1",
        b"PK\x03\x04",
        b"\x93NUMPY",
        b"[" * 9_000,
    ]
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw the bytes of a file after one to three kinds of damage."""
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(content))), draw(st.integers(0, 60))
        way = draw(st.sampled_from(["flip", "cut", "tear", "splice", "repeat", "swap"]))
        if way == "flip" and at < len(content):
            content = content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
        elif way == "cut":
            content = content[:at] + content[at + length :]
        elif way == "tear":
            content = content[:at]
        elif way == "splice":
            content = content[:at] + draw(SPLICES) + content[at:]
        elif way == "repeat":
            content = content[:at] + content[at : at + length] * 3 + content[at + length :]
        else:
            content = content[:at] + draw(st.binary(max_size=8)) + content[at + 8 :]
    return content


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield paths to the values in some JSON; only the first few of a long list or object."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries)[:12]:
        yield from _places(inner, (*path, key))


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Draw a JSON value in which one to three values are changed or missing."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(_places(value))))
        if not path:
            value = copy.deepcopy(draw(ODD))
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.booleans()):
            holder[path[-1]] = copy.deepcopy(draw(ODD))  # else later changes would also change the original
        else:
            del holder[path[-1]]
    return value


@contextmanager
def bounded() -> Iterator[None]:
    """Limit the additional memory of this process, so that a huge allocation is an error before the machine swaps."""
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MORE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def survives(read: Callable[[], Any]) -> None:
    """Check that reading gives a valid value, or an `InputError` of one sentence."""
    message = ""
    try:
        with bounded():
            read()
    except InputError as error:
        message = str(error)
    assert "\n" not in message, message


# --- readers of files

TEXT = "The quick brown fox, 1234 </s>\n"


def _tokenizer(path: Path) -> Any:
    vocabulary = catalog.load_vocabulary(str(path))
    return vocabulary.encode([TEXT, ""]), vocabulary.spans(TEXT), vocabulary.decode([0, 1]), vocabulary.token_bytes


def _tokenizer_of_folder(path: Path) -> Any:
    return _tokenizer(path.parent)


def _gguf_model(path: Path) -> Any:
    model = load_model(str(catalog.model_folder(str(path))), device="cpu")
    return model(torch.tensor([[0, 1]])).logits


def _vectors(path: Path) -> Any:
    return load_vectors(path, tiny_vocabulary(300)).normalized()


def _lexicon(path: Path) -> Any:
    lexicon = Lexicon.load(path)
    return lexicon.key, lexicon.origin_counts(), repr(lexicon), lexicon.source_of(), lexicon.target_of()


def _map(path: Path) -> Any:
    return Lexicon.from_json(path, tiny_vocabulary(300), tiny_vocabulary(280))


def _edits(path: Path) -> Any:
    lexicon = Lexicon.load(path.with_name("lexicon.parquet"))
    edits = LexiconEdits(lexicon, path)
    return apply_edits(lexicon, edits.current()).key


def _documents(path: Path) -> Any:
    return read_documents([path]), read_documents([path], max_bytes=50)


def _run(path: Path) -> Any:
    """Read a run as lists, panels and commands do."""
    run, root = RunFolder(path.parent), path.parent.parent
    row = RunRow(run)
    row.read()
    row.cells()
    row.latest()
    run.events(), run.curve(), run.title, run.asked, run.log_tail()
    results.scores_of(run), results.diagnosis_of(run), results.lexicon_path(run)
    results.recipes_table("a", "b", root)
    assert [found.name for found in control.list_runs(root)] == ["run"]
    for command in (["runs", "list", "--root", str(root)], ["runs", "watch", str(run.path)]):
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code in (0, 1, 2), ended.output
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exc_info
    trash.delete_run(run)
    assert len(trash.deleted_runs(root)) == 1
    trash.restore_run("run", root)


def _config(path: Path) -> Any:
    """Read a config file, for a command whose text does not exist."""
    ended = CliRunner().invoke(app, ["align", "nothing", "nobody", "--text", "/no/text", "--config", str(path)])
    assert ended.exit_code == 2, ended.output
    assert isinstance(ended.exception, SystemExit), ended.exc_info
    assert "Traceback" not in ended.output


def _model(path: Path) -> Any:
    root = path.parent.parent
    shutil.rmtree(root / "out", ignore_errors=True)
    lexicon, source, target = Lexicon.load(root / "lexicon.parquet"), tiny_vocabulary(300), tiny_vocabulary(280)
    rearrange_to_folder(str(path.parent), lexicon, source, target, root / "out")


def _card(path: Path) -> Any:
    """Read the record of a converted model as `check` does."""
    carried_over(cast(FolderCase, SimpleNamespace(folder=path.parent)))  # it reads only the folder
    record = {**read_record(path.parent), "tokenizer": {"name": "n", "size": 1}, "versions": {}}
    assert "with tokalign-lab" in card_text("name", record, tiny_tokenizer(280))
    return source_name(str(path.parent))


def _provenance(path: Path) -> Any:
    """Read a lexicon with another provenance and a matching hash."""
    lexicon = Lexicon.load(path.with_name("lexicon.parquet"))
    try:
        lexicon.provenance = json.loads(path.read_bytes())
        lexicon.save(path.with_name("changed.parquet"))
    except (ValueError, RecursionError):
        return None
    return _lexicon(path.with_name("changed.parquet"))


# --- valid files


def _write_lexicon(path: Path) -> Lexicon:
    write_json(path.parent / "map.json", {str(i): i for i in range(0, 270, 2)})
    lexicon = Lexicon.from_json(path.parent / "map.json", tiny_vocabulary(300), tiny_vocabulary(280))
    lexicon.save(path.with_name("lexicon.parquet"))
    return lexicon


def _write_edits(path: Path) -> None:
    edits = LexiconEdits(_write_lexicon(path), path)
    edits.choose(4, 5, note="better")
    edits.reject(8, tiny_vocabulary(300), tiny_vocabulary(280))
    edits.undo()


def _write_provenance(path: Path) -> None:
    write_json(path, _write_lexicon(path).provenance)


def _write_bpe(path: Path) -> None:
    tiny_tokenizer(300).backend_tokenizer.save(str(path))


def _write_unigram(path: Path) -> None:
    pieces = [("<unk>", 0.0), ("\u2581", -1.0), *((letter, -2.0) for letter in "abcdefghij")]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Prepend("\u2581")])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.save(str(path))


def _write_tokenizer(path: Path) -> None:
    tiny_tokenizer(300, template="{{ messages[0].content }}").save_pretrained(path.parent)


def _write_sentencepiece(path: Path) -> None:
    trained(path, model_type=path.stem)


def _write_ranks(path: Path) -> None:
    tokens = [*(bytes([byte]) for byte in range(256)), b"th", b"the", b" q"]
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)))


def _write_npz(path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    TokenVectors(np.arange(9), rows, np.ones(9, np.int64), tiny_vocabulary(300).fingerprint, {"a": 1}).save(path)


def _write_npy(path: Path) -> None:
    np.save(path, np.random.default_rng(0).normal(size=(tiny_vocabulary(300).size, 4)))


def _write_jsonl(path: Path) -> None:
    row = {"text": "Größe\n", "name": "n", "group": "g", "slice": "de", "split": "train"}
    path.write_text(json.dumps(row) + "\n" + json.dumps({"text": "x"}) + "\n")


def _write_parquet(path: Path) -> None:
    pd.DataFrame({"text": ["Größe", None], "name": ["n", None]}).to_parquet(path)


def _write_run(path: Path) -> None:
    run = RunFolder.create(path.parent, "align", {"source": "a", "target": "b", "text": ["x"], "seed": 1})
    run.update(state="finished", ended=run.info()["created"], pid=5, pid_started=1.0)
    for event in ({"kind": "progress", "share": 0.5, "message": "m"}, {"kind": "step", "step": 1, "loss": 2.0}):
        run.emit(event)
    run.entitle("a title")
    (run.path / "log.txt").write_text("said\n")
    write_json(run.path / "scores.json", {"seconds": 5.0, "bleu": {"value": 0.5}})
    write_json(run.path / "diagnosis.json", {"findings": [{"name": "n", "severity": "ok", "evidence": "e"}]})


def _write_options(path: Path) -> None:
    path.write_text("seed: 1\nrecipe: anchored\ntext: [a, b]\nheld_out_share: 5e-2\nout: x.parquet\n")


def _write_run_as_options(path: Path) -> None:
    _write_run(path.parent / "run" / "run.json")
    shutil.copy(path.parent / "run" / "run.json", path)


def _write_model(path: Path) -> None:
    _write_lexicon(path.parent)
    save_tiny(path.parent)
    write_json(path.parent / "tokalign.json", {"model": "smollm2-135m", "lexicon": {"key": "x"}, "lost": ["eos"]})


def _write_shards(path: Path) -> None:
    _write_model(path)
    (path.parent / "model.safetensors").unlink()
    tiny_model("llama", tiny_vocabulary(300).size).save_pretrained(path.parent, max_shard_size="60KB")


def _write_view(path: Path) -> None:
    state = LabState(path)
    state.select("source", [1, 2], "a")
    state.pins = (("target", 3),)


# For each kind of file: its name, how it is written, how it is read, the number of damaged versions.
CASES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any], int]] = {
    "bpe.json": (_write_bpe, _tokenizer, 30),
    "unigram.json": (_write_unigram, _tokenizer, 30),
    "folder/tokenizer.json": (_write_tokenizer, _tokenizer_of_folder, 10),
    "folder/tokenizer_config.json": (_write_tokenizer, _tokenizer_of_folder, 20),
    "bpe.model": (_write_sentencepiece, _tokenizer, 15),
    "unigram.model": (_write_sentencepiece, _tokenizer, 15),
    "ranks.tiktoken": (_write_ranks, _tokenizer, 15),
    "m.gguf": (write_gguf, _tokenizer, 10),
    "weights.gguf": (write_gguf, _gguf_model, 5),
    "rows.npz": (_write_npz, _vectors, 30),
    "rows.npy": (_write_npy, _vectors, 30),
    "rows.txt": (lambda path: path.write_text("3 2\n5 0.5 1e3\n7 -1 2\n9 0 0\n"), _vectors, 30),
    "lexicon.parquet": (_write_lexicon, _lexicon, 30),
    "provenance.json": (_write_provenance, _provenance, 30),
    "map.json": (_write_lexicon, _map, 30),
    "edits.json": (_write_edits, _edits, 30),
    "text.jsonl": (_write_jsonl, _documents, 40),
    "text.txt": (lambda path: path.write_text("Größe 東京\r\n" * 5, encoding="utf-8"), _documents, 20),
    "text.parquet": (_write_parquet, _documents, 30),
    "run/run.json": (_write_run, _run, 30),
    "run/events.jsonl": (_write_run, _run, 15),
    "run/title.txt": (_write_run, _run, 10),
    "run/scores.json": (_write_run, _run, 15),
    "run/diagnosis.json": (_write_run, _run, 15),
    "run/log.txt": (_write_run, _run, 5),
    "options.yaml": (_write_options, _config, 30),
    "options.json": (_write_run_as_options, _config, 30),
    "model/config.json": (_write_model, _model, 10),
    "model/model.safetensors": (_write_model, _model, 10),
    "model/model.safetensors.index.json": (_write_shards, _model, 10),
    "model/generation_config.json": (_write_model, _model, 10),
    "model/tokalign.json": (_write_model, _card, 20),
    "view.json": (_write_view, LabState, 30),
}


FOUND = {  # damage that once ended in a traceback
    "options.json": b'{"kind": "align", "state": "finished", "created": "", "cwd": null, "settings": {"text": ["x"]}}',
    "view.json": b"[" * 100_000,
}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_file_gives_a_valid_value_or_one_sentence(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, read, examples = CASES[name]
    good = tmp_path_factory.mktemp("good")
    monkeypatch.setenv("TOKALIGN_CACHE", str(good / "cache"))
    (good / name).parent.mkdir(exist_ok=True)
    write(good / name)
    content = (good / name).read_bytes()
    survives(partial(read, good / name))
    damage = damaged(content)
    if name.endswith((".json", ".jsonl")):
        values = json.loads(content.splitlines()[0] if name.endswith("l") else content)
        damage |= changed(values).map(lambda value: json.dumps(value).encode() + b"\n")

    # `make test` draws the same files each time; with DEEP, others are drawn.
    @settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        derandomize=not EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )
    @example(FOUND.get(name, content))
    @given(damage)
    def check(bad: bytes) -> None:
        folder = good.parent / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        (folder / name).write_bytes(bad)
        survives(partial(read, folder / name))

    check()


@pytest.mark.parametrize("killed", [False, True], ids=["whole", "unfinished"])
def test_a_damaged_cache_of_a_teacher_gives_the_same_predictions(
    killed: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path_factory.mktemp("teacher")
    monkeypatch.setenv("TOKALIGN_CACHE", str(root / "good"))
    monkeypatch.setattr(teacher_cache, "_BATCH_TOKENS", {"cpu": 5 * LENGTH})
    teacher, blocks = (
        a_teacher(),
        PackedBlocks(Corpus.build([Document(TEXT * 20, "a", "a")], VOCABULARY), VOCABULARY, LENGTH),
    )
    calls = count()

    def interrupt() -> None:
        if killed and next(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) if killed else nullcontext():
        teacher_cache.keep_predictions(teacher, blocks, range(len(blocks)), 4, interrupt=interrupt)
    (kept,) = (path for path in (root / "good" / "teacher").iterdir() if path.is_dir())  # the lock is a file
    names = sorted(file.name for file in kept.iterdir())
    monkeypatch.setenv("TOKALIGN_CACHE", str(root / "other"))
    expected = files_of(teacher_cache.keep_predictions(teacher, blocks, range(len(blocks)), 4).folder)

    @settings(
        max_examples=EXAMPLES or 5, deadline=None, derandomize=not EXAMPLES, suppress_health_check=list(HealthCheck)
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        shutil.rmtree(root / "bad", ignore_errors=True)
        shutil.copytree(root / "good", root / "bad")
        file = root / "bad" / "teacher" / kept.name / data.draw(st.sampled_from(names))
        file.write_bytes(data.draw(damaged(file.read_bytes())))
        with monkeypatch.context() as patch:
            patch.setenv("TOKALIGN_CACHE", str(root / "bad"))
            assert files_of(teacher_cache.keep_predictions(teacher, blocks, range(len(blocks)), 4).folder) == expected

    check()


# --- command lines

LONG_WORK = {"app", "demo", "record", "doctor"}  # a server, the whole pipeline, or a scan of the whole machine
FILES = (
    "tiny",
    "tiny/config.json",
    "text.txt",
    "empty",
    "empty.txt",
    "no.json",
    "nobody/nothing",
    "../..",
    "/dev/null",
)
ODD_WORDS = (
    "",
    "-",
    "--",
    "-1",
    "0",
    "1",
    "2",
    "1e9",
    "nan",
    "0.5",
    "x",
    "a=b",
    "[/x]",
    "\ud800",
    "a\0b",
    "cpu",
    "x" * 300,
)


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from _commands(found, (*path, name))
        elif name not in LONG_WORK and path != ("assets",):
            yield (*path, name), found


COMMANDS = dict(_commands(typer.main.get_command(app)))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Draw a command with some of its arguments and options, with unusual values."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    value = st.sampled_from(FILES) | st.sampled_from(ODD_WORDS)
    words = list(name)
    for one in COMMANDS[name].params:
        if one.param_type_name == "argument":
            words += [draw(value)] if draw(st.integers(0, 9)) else []
        elif one.name != "help" and draw(st.integers(0, 4)) == 0:
            words += [draw(st.sampled_from(one.opts)), *([] if one.is_flag else [draw(value)])]
    return words


def test_an_invalid_command_line_ends_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOKALIGN_RUNS", str(tmp_path / "runs"))
    save_tiny(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text(TEXT * 50)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "empty").mkdir()

    @settings(
        max_examples=EXAMPLES or 25, deadline=None, derandomize=not EXAMPLES, suppress_health_check=list(HealthCheck)
    )
    @given(command_lines())
    def check(words: list[str]) -> None:
        ended = CliRunner().invoke(app, words)
        assert ended.exit_code in (0, 1, 2), ended.output
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exc_info
        assert "Traceback" not in ended.output

    check()
