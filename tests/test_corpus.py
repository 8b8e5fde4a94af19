from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tokalign_lab.corpus import Corpus, tokenize_pair
from tokalign_lab.documents import Document, excerpts, n_bytes, read_documents, split_documents, text_hash
from tokalign_lab.errors import InputError


def write_lines(path: Path, *lines: object) -> str:
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "a.md").write_text("prose", encoding="utf-8")
    (tmp_path / "b.py").write_bytes(b"x = 1\r\n")
    write_lines(
        tmp_path / "c.jsonl", {"text": "one", "slice": "de", "split": "held_out"}, {"text": None}, {"text": "two"}
    )
    pd.DataFrame({"text": ["three", None]}).to_parquet(tmp_path / "d.parquet")
    (tmp_path / "e.bin").write_bytes(b"\xff\xfe")
    documents = read_documents([tmp_path])
    assert [d.text for d in documents] == ["prose", "x = 1\r\n", "one", "two", "three"]
    assert [d.slice for d in documents] == ["prose", "code", "de", "prose", "prose"]
    assert documents[2].split == "held_out"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"caf\xe9", "not UTF-8"),
        ("a.txt", "UTF-16".encode("utf-16-le"), "not UTF-8"),
        ("a.txt", "Это русский текст без метки. ".encode("utf-16-le"), "not UTF-8"),
        ("a.jsonl", b"{", "line 1 is no JSON"),
        ("a.jsonl", b'{"content": "x"}', "no field 'text'"),
        ("a.parquet", b"PAR1", "not a readable Parquet"),
        ("a.gz", b"x", "compressed"),
    ],
)
def test_bad_text_ends_in_a_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_documents([str(tmp_path / name)])


@pytest.mark.parametrize(("name", "content"), [("a.txt", b"one"), ("a.jsonl", b'{"text": "one"}')])
def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert [document.text for document in read_documents([tmp_path])] == ["one"]


def test_one_text_needs_no_list(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("one text")
    for source in (file, str(file)):
        assert [document.text for document in read_documents(source)] == ["one text"]


def test_a_missing_text_ends_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no text 'nowhere'"):
        read_documents(["nowhere"])
    with pytest.raises(InputError, match="holds no text"):
        read_documents([tmp_path])
    with pytest.raises(InputError, match="No text was given"):
        read_documents([])
    with pytest.raises(InputError, match="name of a text is empty"):  # it is not the current folder
        read_documents([""])


def test_what_a_folder_holds_and_is_not_read_is_named(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "text", tmp_path / "elsewhere"
    for name in (folder / "inside", elsewhere):
        name.mkdir(parents=True)
    for name in ("a.txt", "figures.tar.gz", ".b.txt.gz"):
        (folder / name).write_bytes(b"some words")
    (folder / "again").symlink_to(folder / "inside")  # read already
    assert len(read_documents([folder])) == 1
    (folder / "more").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"links to other folders \(1\), such as '.*more'"):
        read_documents([folder])
    (folder / "c4.json.gz").write_bytes(b"x")
    (folder / "wiki.zst").write_bytes(b"x")
    with pytest.raises(InputError, match=r"compressed texts \(2\), such as '.*c4.json.gz'; unpack"):
        read_documents([folder])


def test_a_hub_data_set_without_network_ends_in_a_sentence() -> None:
    with pytest.raises(InputError, match="could not be read from the hub"):
        read_documents(["hub:nobody/nothing"])


def test_the_default_text_names_its_parts_and_they_share_no_package() -> None:
    documents = read_documents(["default"])
    train, held_out = split_documents(documents)
    assert len(train) + len(held_out) == len(documents)
    assert not {d.group for d in train} & {d.group for d in held_out}
    assert not {d.text for d in train} & {d.text for d in held_out}
    assert {"prose", "code"} <= {d.slice for d in held_out}
    assert len({d.slice for d in documents}) > 20  # languages
    assert not any(d.group == "udhr" for d in held_out)


def test_groups_are_held_out_completely() -> None:
    documents = [Document(f"text {i}", f"d{i}", group=f"g{i // 3}") for i in range(300)]
    train, held_out = split_documents(documents, held_out_share=0.1, seed=1)
    assert len(held_out) == 30
    assert not {d.group for d in train} & {d.group for d in held_out}
    assert split_documents(documents, 0.1, seed=1) == (train, held_out)
    assert split_documents(documents, 0.1, seed=2) != (train, held_out)


def test_the_end_of_a_single_document_is_held_out_without_loss() -> None:
    document = Document("line of text\n" * 100, "d", group="g")
    train, held_out = split_documents([document])
    assert train[0].text + held_out[0].text == document.text
    assert 0 < len(held_out[0].text) < 0.1 * len(document.text)
    assert train[0].text.endswith("\n")


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("long", ["word " * 20_000, "x" * 100_000, "word " * 10_000 + "\n" + "word " * 10_000])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_end_far_from_the_share_is_not_where_a_document_is_cut(long: str, end: str, share: float) -> None:
    document = Document("title,text\n" + long + end, "d", group="g")
    (train,), (held_out,) = split_documents([document], share)
    assert train.text + held_out.text == document.text
    assert 0.5 * share < len(held_out.text) / len(document.text) < min(2 * share, (1 + share) / 2) + 1e-3
    assert "x" in long or train.text[-1].isspace(), "no word is cut"


def test_the_last_line_of_a_short_document_is_held_out_completely() -> None:
    (train,), (held_out,) = split_documents([Document("one line\nanother\nthe last one", "d", group="g")])
    assert (train.text, held_out.text) == ("one line\nanother\n", "the last one")
    with pytest.raises(InputError, match="too short"):
        split_documents([Document("a", "d", group="g")])


def test_a_copy_of_a_document_to_train_on_is_not_held_out() -> None:
    documents = [Document(f"text {number % 30}", str(number), group=str(number)) for number in range(40)]
    train, held_out = split_documents(documents, 0.2)
    assert not {d.text for d in train} & {d.text for d in held_out}
    assert len(train) == 32
    assert held_out


def test_a_text_too_short_to_split_ends_in_a_sentence() -> None:
    with pytest.raises(InputError, match="too short"):
        split_documents([Document("", "d", group="g")])


def test_a_sample_keeps_slices_and_parts() -> None:
    whole = read_documents(["default"])
    sample = read_documents(["default"], max_bytes=400_000, seed=3)
    assert 350_000 < n_bytes(sample) <= 401_000  # the quota of each slice is rounded
    assert {d.slice for d in sample} == {d.slice for d in whole}
    assert any(document.split == "held_out" for document in sample)
    assert text_hash(sample) == text_hash(read_documents(["default"], max_bytes=400_000, seed=3))
    assert text_hash(sample) != text_hash(read_documents(["default"], max_bytes=400_000, seed=4))


def test_a_corpus_holds_its_documents_ids_and_is_saved_and_loaded(tmp_path, monkeypatch, sp32k_vocabulary) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    documents = [Document(text, text, text) for text in ("one two", "", "three\n", "fo\u00fcr " * 1000)]
    corpus = Corpus.build(documents, sp32k_vocabulary)
    again = Corpus.load(next((tmp_path / "corpora").iterdir()))
    assert len(again) == 4
    for place, document in enumerate(documents):
        np.testing.assert_array_equal(again[place], sp32k_vocabulary.encode([document.text])[0])
    assert corpus.n_bytes == n_bytes(documents)
    assert isinstance(again.ids, np.memmap)
    assert again.counts(sp32k_vocabulary.size).sum() == len(again.ids)


def test_a_corpus_is_found_by_content(tmp_path, monkeypatch, sp32k_vocabulary, smollm_vocabulary) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    documents = [Document("some text", "a", "a")]
    pair = tokenize_pair(smollm_vocabulary, sp32k_vocabulary, documents)
    assert pair.source_corpus.vocabulary_fingerprint != pair.target_corpus.vocabulary_fingerprint
    monkeypatch.setattr(type(sp32k_vocabulary), "encode", None)  # a second tokenisation would fail
    again = tokenize_pair(smollm_vocabulary, sp32k_vocabulary, [Document("some text", "b", "b")])
    np.testing.assert_array_equal(again.target_corpus.ids, pair.target_corpus.ids)


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch, sp32k_vocabulary) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    monkeypatch.setattr(type(sp32k_vocabulary), "encode", fail)
    with pytest.raises(KeyboardInterrupt):
        Corpus.build([Document("x", "x", "x")], sp32k_vocabulary)
    assert list((tmp_path / "corpora").iterdir()) == []


def test_excerpts_keep_every_slice_and_are_short() -> None:
    documents = [Document("p" * 9_000, f"a{i}", "a", "prose") for i in range(5)]
    documents += [Document("é\n" * 3_000, f"b{i}", "b", "fr") for i in range(5)]
    chosen = excerpts(documents, 9_000, longest=1_000)
    assert {document.slice for document in chosen} == {"prose", "fr"}
    assert 7_000 < n_bytes(chosen) <= 9_002
    assert max(len(document.text) for document in chosen) <= 1_000
    assert all(document.text.endswith("\n") for document in chosen if document.slice == "fr")
    assert len({document.name.split("@")[0] for document in chosen}) > 2  # from many documents
