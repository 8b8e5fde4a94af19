"""New input rows from the source's states: which rows change, which stay, which text is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import WORDS, tiny_model, tiny_vocabulary

from tokalign_lab.adaptation.coverage import new_tokens
from tokalign_lab.adaptation.recovery.source import SourceTeacher
from tokalign_lab.adaptation.recovery.token_distillation import covering, train_new_rows
from tokalign_lab.errors import InputError
from tokalign_lab.vocabulary import Vocabulary, shared_tokens


@pytest.fixture
def student() -> Vocabulary:
    return tiny_vocabulary(320)


@pytest.fixture
def teacher(student: Vocabulary) -> SourceTeacher:
    source = tiny_vocabulary(270)
    return SourceTeacher(tiny_model("llama", source.size, seed=2), source, student)


def text_blocks(vocabulary: Vocabulary, length: int = 16) -> list[np.ndarray]:
    (ids,) = vocabulary.encode([WORDS * 6])
    return [ids[i : i + length].astype(np.int64) for i in range(0, len(ids) - length + 1, length)]


def moved(student: Vocabulary, teacher: SourceTeacher, kind: str = "llama") -> torch.nn.Module:
    """The source's model with its rows where both have a token, and noise for new ones."""
    model = tiny_model(kind, student.size, seed=2)
    state = {
        name: value for name, value in teacher.model.state_dict().items() if "layers" in name or "model.norm" in name
    }
    model.load_state_dict(state, strict=False)
    found = shared_tokens(teacher.vocabulary, student)
    with torch.no_grad():
        rows, theirs = model.get_input_embeddings().weight, teacher.model.get_input_embeddings().weight
        rows[torch.from_numpy(found.target_ids)] = theirs[torch.from_numpy(found.source_ids)]
    return model


def test_only_rows_of_new_tokens_that_the_text_has_move(student: Vocabulary, teacher: SourceTeacher) -> None:
    model = moved(student, teacher)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blocks = text_blocks(student)
    done = train_new_rows(model, student, teacher, blocks, layer=1, places=100, learning_rate=0.1, batch_size=1)
    fresh = new_tokens(student, teacher.vocabulary)
    assert len(fresh)
    seen = np.intersect1d(np.concatenate(blocks), fresh)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["model.embed_tokens.weight"]
    rows = (model.get_input_embeddings().weight != before["model.embed_tokens.weight"]).any(dim=1)
    assert rows.nonzero()[:, 0].tolist() == seen.tolist()
    assert (done.rows, done.unseen) == (len(seen), len(fresh) - len(seen))
    assert done.steps == len(blocks)
    assert done.places == sum(int(np.isin(block, fresh).sum()) for block in blocks)
    assert done.last_loss < 0.9 * done.first_loss
    assert all(weight.requires_grad for weight in model.parameters())
    with pytest.raises(InputError, match="none of the"):
        train_new_rows(model, student, teacher, [np.zeros(16, np.int64)], layer=1)


def test_with_the_same_tokenizer_there_is_nothing_to_train(student: Vocabulary) -> None:
    same = SourceTeacher(tiny_model("llama", student.size), student, student)
    assert len(new_tokens(student, student)) == 0
    with pytest.raises(InputError, match="none of the 0 tokens"):
        train_new_rows(tiny_model("llama", student.size), student, same, text_blocks(student), layer=1)


def test_tied_rows_are_refused(student: Vocabulary, teacher: SourceTeacher) -> None:
    with pytest.raises(InputError, match="tied"):
        train_new_rows(tiny_model("llama_tied", student.size), student, teacher, text_blocks(student), layer=1)


def test_every_wanted_token_comes_as_often_as_asked_or_as_the_text_has_it() -> None:
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, 101)
    blocks = list(rng.choice(100, (300, 20), p=shares / shares.sum()))
    wanted = np.arange(10, 95)
    chosen = covering(blocks, wanted, 100, 7)
    assert len(set(chosen.tolist())) == len(chosen) < len(blocks)
    count = np.bincount(np.concatenate([blocks[i] for i in chosen]), minlength=100)
    total = np.bincount(np.concatenate(blocks), minlength=100)
    assert (count[wanted] >= np.minimum(7, total[wanted])).all()
    assert len(covering(blocks, np.array([], np.int64), 100, 7)) == 0
    assert np.array_equal(chosen, covering(blocks, wanted, 100, 7)), "the same each time"
