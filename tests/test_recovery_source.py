"""The source reads the student's blocks with its own tokenizer, with its own separators between documents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_byte_alignment import TEXTS
from tiny import CONFIGS, save_tiny, tiny_model, tiny_vocabulary

from tokalign_lab import catalog
from tokalign_lab.adaptation.data import PackedBlocks
from tokalign_lab.corpus import Corpus
from tokalign_lab.cross_tokenizer.byte_alignment import align
from tokalign_lab.cross_tokenizer.layers import layer, states_after
from tokalign_lab.cross_tokenizer.source import Retokenizer, SourceTeacher
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.model.save import load_source, source_name
from tokalign_lab.provenance import read_record
from tokalign_lab.vocabulary import Vocabulary

DOCUMENTS = ["The café — naïve?\n\tok", " leading", "你好,世界。", "x", "鿃 end"]


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, Vocabulary]:
    return {name: catalog.load_vocabulary(name) for name in ("smollm2-135m", "sp32k", "pythia", "qwen2")}


def laid_out(texts: list[str], vocabulary: Vocabulary) -> np.ndarray:
    """Return documents concatenated as for training."""
    corpus = Corpus.build([Document(text, "", "", "") for text in texts], vocabulary)
    blocks = PackedBlocks(corpus, vocabulary, 1)
    return np.concatenate([blocks[i] for i in range(len(blocks))])


@pytest.mark.parametrize("student", ["smollm2-135m", "sp32k", "pythia", "qwen2"])
@pytest.mark.parametrize("source", ["smollm2-135m", "sp32k", "pythia", "qwen2"])
def test_documents_are_laid_out_as_in_the_training_of_the_source(
    vocabularies: dict[str, Vocabulary], student: str, source: str
) -> None:
    one, other = vocabularies[student], vocabularies[source]
    ids = laid_out(DOCUMENTS, one)
    mine, yours = Retokenizer(one, other)(ids)
    expected = laid_out(DOCUMENTS, other)
    assert mine.ids.tolist() == ids.tolist()
    assert mine.length == yours.length
    begins = [v.roles.get("bos") not in (None, v.roles.get("eos")) for v in (one, other)]
    if begins == [True, False]:  # the source has one token for both
        expected = np.concatenate([[other.roles["eos"]], expected])
    elif begins == [False, True]:  # the student's last separator is also the beginning of a document
        expected = np.concatenate([expected[1:], [other.roles["bos"]]])
    assert yours.ids.tolist() == expected.tolist()
    found = align(mine, yours)
    assert found.exact.all()
    assert found.pairs[-1].tolist() == [len(mine) - 1, len(yours) - 1], "the last separator is behind both"


@settings(max_examples=60)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), start=st.integers(0, 12), end=st.integers(0, 12))
def test_any_part_of_any_text_is_paired_correctly(
    vocabularies: dict[str, Vocabulary], texts: list[str], start: int, end: int
) -> None:
    for student, source in (("sp32k", "smollm2-135m"), ("smollm2-135m", "sp32k"), ("qwen2", "pythia")):
        one, other = vocabularies[student], vocabularies[source]
        bos, eos = one.roles.get("bos"), one.roles.get("eos")
        separator = [i for i in (eos, bos if bos != eos else None) if i is not None]
        ids = np.concatenate([np.array([*separator, *part], dtype=np.int64) for part in one.encode(texts)])
        ids = ids[start : len(ids) - end]
        mine, yours = Retokenizer(one, other)(ids)
        assert mine.ids.tolist() == ids.tolist()
        assert mine.length == yours.length
        found = align(mine, yours)
        for chunk, exact in zip(found.chunks, found.exact, strict=True):
            if exact:
                written = [
                    b"".join(v.token_bytes[i] or b"" for i in side.ids[part[0] : part[1]].tolist())
                    for v, side, part in ((one, mine, chunk[0]), (other, yours, chunk[1]))
                ]
                assert written[0] == written[1] or b" " + written[0] == written[1] or written[0] == b" " + written[1]


def test_a_block_may_begin_and_end_inside_a_character(vocabularies: dict[str, Vocabulary]) -> None:
    smollm, sp32k = vocabularies["smollm2-135m"], vocabularies["sp32k"]
    (ids,) = smollm.encode(["鿃 middle 鿃"])
    mine, yours = Retokenizer(smollm, sp32k)(ids[1:-1].astype(np.int64))
    found = align(mine, yours)
    assert not found.exact[0], "the source cannot read the beginning"
    assert found.exact[1:].all()
    assert b"".join(sp32k.token_bytes[i] or b"" for i in yours.ids.tolist()).strip() == b"middle"


def test_a_space_after_an_unknown_token_is_a_space(vocabularies: dict[str, Vocabulary]) -> None:
    smollm, sp32k = vocabularies["smollm2-135m"], vocabularies["sp32k"]
    (word,) = sp32k.encode(["word"])  # ▁word
    for before, text in ((sp32k.roles["unk"], b" word"), (sp32k.roles["bos"], b"word")):
        mine, yours = Retokenizer(sp32k, smollm)(np.array([before, *word], dtype=np.int64))
        assert b"".join(smollm.token_bytes[i] or b"" for i in yours.ids.tolist()) == text
        assert align(mine, yours).pairs[-1].tolist() == [len(mine) - 1, len(yours) - 1]


def test_special_tokens_that_both_have_are_kept_and_others_left_out() -> None:
    one = tiny_vocabulary(300, bos="<s>", eos="</s>")
    other = tiny_vocabulary(280, bos="<begin>", eos="</s>")
    mine, yours = Retokenizer(one, other)(np.array([one.roles["eos"], one.roles["bos"]]))
    assert yours.ids.tolist() == [other.roles["eos"], other.roles["bos"]]
    assert align(mine, yours).pairs.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_the_state_after_a_layer_is_that_of_the_whole_model(kind: str) -> None:
    model = tiny_model(kind, 300)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        whole = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        later: list[None] = []
        layer(model, 2).register_forward_hook(lambda *_: later.append(None))
        found = states_after(model, ids, [1])
    assert torch.allclose(found[1], whole[1], atol=1e-6)
    assert not later, "the pass ended before"
    assert layer(model, 2) in model.modules()
    with pytest.raises(InputError, match="layers 1 to 2"):
        layer(model, 3)


@pytest.fixture
def converted(tmp_path: Path) -> str:
    """A converted model, whose card names a source with another tokenizer."""
    save_tiny(tmp_path / "source", size=290, seed=3)
    folder = save_tiny(tmp_path / "converted", size=300)
    (folder / "tokalign.json").write_text(json.dumps({"model": str(tmp_path / "source")}), encoding="utf-8")
    return str(folder)


def test_the_source_is_found_and_reads_the_same_text(converted: str) -> None:
    student = catalog.load_vocabulary(converted)
    teacher = SourceTeacher(*load_source(converted), student)
    (ids,) = student.encode(["The quick brown fox jumps over the lazy dog"])
    eos = student.roles["eos"]
    batch = torch.tensor([[*ids.tolist()[:9], eos], [eos, *ids.tolist()[:9]]])
    reading = teacher.read(batch, layers=[1, 2], predicts=True)
    n, own = reading.input_ids.shape
    for row in range(n):  # padding has no effect
        mine, yours = Retokenizer(student, teacher.vocabulary)(batch[row].numpy())
        alone = torch.from_numpy(yours.ids)[None]
        with torch.no_grad():
            out = teacher.model(input_ids=alone, output_hidden_states=True)
        k = len(yours)
        assert torch.allclose(reading.layers[1].view(n, own, -1)[row, :k], out.hidden_states[1][0], atol=1e-5)
        assert reading.hidden is not None
        made = teacher.head.logits(reading.hidden.view(n, own, -1)[row, :k])
        assert torch.allclose(made, out.logits[0], rtol=1e-4, atol=1e-4)
        here = reading.positions[reading.positions.row == row]
        pairs = align(mine, yours).pairs
        assert (here.student[:, 1] - row * batch.shape[1]).tolist() == pairs[:, 0].tolist()
        assert (here.source[:, 1] - row * own).tolist() == pairs[:, 1].tolist()
        assert here.special.tolist() == [int(i) == eos for i in mine.ids[pairs[:, 0]]]
        assert here.first.tolist() == [True] + [False] * (len(pairs) - 1)
    assert torch.equal(teacher.read(batch, layers=[1]).layers[1], reading.layers[1])
    assert teacher.read(batch).hidden is None


def test_a_folder_that_does_not_name_its_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    for text in (None, "{", "[]", '{"model": ""}', '{"model": 3}'):
        if text is not None:
            (tmp_path / "tokalign.json").write_text(text, encoding="utf-8")
        assert source_name(str(tmp_path)) == ""
        with pytest.raises(InputError, match="no source to learn from"):
            load_source(str(tmp_path))
    assert read_record(tmp_path) == {}


def test_a_source_with_too_short_a_context_is_refused(converted: str) -> None:
    student = catalog.load_vocabulary(converted)
    teacher = SourceTeacher(*load_source(converted), student)
    (ids,) = student.encode(["x" * 70])
    with pytest.raises(InputError, match="reads at most 64"):
        teacher.read(torch.from_numpy(ids.astype(np.int64))[None], layers=[1])
