"""Recovery losses: each gradient equals autograd's, and a student that equals its source gets no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WORDS, expect_words, tiny_model, tiny_vocabulary
from transformers import PreTrainedModel

from tokalign_lab.adaptation import loss as loss_module
from tokalign_lab.adaptation.loss import ChunkedLoss, Term, head_loss
from tokalign_lab.adaptation.processes import Processes
from tokalign_lab.adaptation.recovery.branches import Branches, reads_branches
from tokalign_lab.adaptation.recovery.combining import Injection
from tokalign_lab.adaptation.recovery.likelihood import (
    TAU,
    ChunkLikelihood,
    chunks_of,
    opens_word,
    softened_cross_entropy,
)
from tokalign_lab.adaptation.recovery.next_token import (
    SOFT_WEIGHT,
    TEMPERATURE,
    ComparedNext,
    Expected,
    SharedTokens,
    shared_ids,
)
from tokalign_lab.adaptation.recovery.objective import Objective
from tokalign_lab.adaptation.recovery.recovery_loss import RecoveryLoss
from tokalign_lab.adaptation.recovery.states import Attention, state_loss, weighted_values
from tokalign_lab.cross_tokenizer.pieces import Pieces, Predictions
from tokalign_lab.cross_tokenizer.source import SourceTeacher
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import Head

V, D = 23, 6


def check_gradient(make: Callable[[], Term], plain: Callable[[torch.Tensor], torch.Tensor], n: int = 12) -> float:
    """Check that a term in chunks of 5 rows has the sum and the gradients that autograd gives for all logits."""
    torch.manual_seed(3)
    hidden = torch.randn(n, D, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(V, D, dtype=torch.float64, requires_grad=True)
    expected = plain(hidden @ weight.T)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    for rows in (5, n, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loss_module, "_CHUNK_BYTES", {"cpu": 4 * V * rows})
            made = head_loss(hidden, weight, None, None, make(), 1.0)
        assert float(made.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
        for one, other in zip(torch.autograd.grad(made, (hidden, weight)), wanted, strict=True):
            assert torch.allclose(one, other, rtol=1e-7, atol=1e-10)
    return float(expected.detach())


def logits_of(n: int = 12) -> torch.Tensor:
    """Return the logits of `check_gradient`."""
    torch.manual_seed(3)
    return torch.randn(n, D, dtype=torch.float64) @ torch.randn(V, D, dtype=torch.float64).T


@pytest.mark.parametrize("end", [8, 10])
def test_likelihood_has_autograds_gradient(end: int) -> None:
    labels = torch.randint(0, V, (12,), generator=torch.Generator().manual_seed(1))
    # row 7 and those after `end` are in no chunk; 4-6 crosses 5
    first, last, opening = torch.tensor([0, 1, 4, 8]), torch.tensor([0, 3, 6, end]), torch.tensor([1, 4, 9])
    log_t = -torch.tensor([0.5, 6.0, 2.0, 11.0], dtype=torch.float64)

    def plain(logits: torch.Tensor) -> torch.Tensor:
        log_probs = torch.log_softmax(logits, dim=1)
        total = logits.new_zeros(())
        for i, j, lt in zip(first.tolist(), last.tolist(), log_t, strict=True):
            ls = log_probs[torch.arange(i, j + 1), labels[i : j + 1]].sum() + log_probs[j + 1, opening].logsumexp(dim=0)
            a, b = lt / TAU - 1e-6, ls / TAU - 1e-6
            total = total - (a.exp() * b + (1 - a.exp()) * torch.log(1 - b.exp()))
        return total

    made = logits_of()
    check_gradient(lambda: ChunkLikelihood(labels, first, last, log_t, lambda rows: made[rows].clone(), opening), plain)


def test_likelihood_loss_is_minimal_if_both_predict_the_same() -> None:
    log_t = torch.tensor([-0.01, -1.0, -30.0], dtype=torch.float64)
    least, slope = softened_cross_entropy(log_t, log_t)
    assert torch.allclose(slope, torch.zeros(3, dtype=torch.float64), atol=1e-12)
    for shift in (-0.3, 0.005, -5.0):
        assert (softened_cross_entropy(log_t, log_t + shift)[0] > least).all()
    value, slope = softened_cross_entropy(*torch.zeros(2, 1, dtype=torch.float64))
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()


def wide_head() -> tuple[Head, torch.Tensor]:
    """Return a source's head of 40 rows in float64, and its weight."""
    model = tiny_model("llama", 40)
    head = Head(model)
    return head, model.double().lm_head.weight.detach()


def test_shared_tokens_have_autograds_gradient() -> None:
    head, weight = wide_head()
    rows, mine, yours = torch.tensor([1, 4, 5, 11]), torch.tensor([0, 3, 9, 20]), torch.tensor([7, 2, 30, 11])
    hidden = torch.randn(4, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    log_t = torch.log_softmax(hidden @ weight[yours].T, dim=1)

    def plain(logits: torch.Tensor) -> torch.Tensor:
        return (log_t.exp() * (log_t - torch.log_softmax(logits[rows][:, mine], dim=1))).sum()

    assert check_gradient(lambda: ComparedNext(rows, SharedTokens(hidden, head, (mine, yours))), plain) > 0


def test_expected_tokens_have_autograds_gradient() -> None:
    g = torch.Generator().manual_seed(5)
    rows, weight = torch.tensor([1, 4, 5, 11]), torch.tensor([1.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    ids = torch.randint(0, V, (4, 7), generator=g)  # some occur twice
    probs = torch.rand(4, 7, generator=g, dtype=torch.float64)
    probs[:, 0] = 0
    probs /= probs.sum(dim=1, keepdim=True)
    t = torch.zeros(4, V, dtype=torch.float64).scatter_add_(1, ids, probs)

    def plain(logits: torch.Tensor) -> torch.Tensor:
        kl = torch.nn.functional.kl_div(torch.log_softmax(logits[rows], dim=1), t, reduction="none").sum(dim=1)
        for place, (row, some) in enumerate(zip(rows, ids, strict=True)):
            some = some[t[place, some] > 0].unique()
            soft = torch.softmax(t[place, some].log() / TEMPERATURE, dim=0)
            log_s = torch.log_softmax(logits[row, some] / TEMPERATURE, dim=0)
            kl[place] += SOFT_WEIGHT * TEMPERATURE**2 * (soft * (soft.log() - log_s)).sum()
        return (weight * kl).sum()

    assert check_gradient(lambda: ComparedNext(rows, Expected(ids, probs, weight)), plain) > 0


def test_pieces_spell_each_of_the_sources_tokens() -> None:
    coarse, fine = tiny_vocabulary(330), tiny_vocabulary(270)
    down = Pieces(fine, coarse)
    split = 0
    for yours, token in enumerate(coarse.token_bytes):
        if not token or not down.count[yours]:
            continue
        pieces = [fine.token_bytes[int(i[yours])] or b"" for i in (down.first, down.second)]
        if down.count[yours] == 1:
            assert pieces[0] == token
        else:
            split += 1
            assert token.startswith(pieces[0] + pieces[1])
            assert fine.id_of_bytes(token) is None
    assert split > 20
    assert (down.count > 0).float().mean() > 0.99
    same = Pieces(fine, fine)
    assert torch.equal(same.first, torch.arange(fine.size))
    assert len(same.openings) == 0


def test_pieces_of_real_tokenizers_are_those_of_running_text() -> None:
    from tokalign_lab.catalog import load_vocabulary

    student, source = load_vocabulary("sp32k"), load_vocabulary("smollm2-135m")
    pieces = Pieces(student, source)
    assert (pieces.count > 0).float().mean() > 0.99
    for word in (" dragons", " motherboard", " grizzly", " syrup"):
        yours = source.id_of_bytes(word.encode())
        ids = student.encode(["It said" + word + "."])[0].tolist()
        first = int(pieces.first[yours])
        assert int(pieces.count[yours]) > 1
        assert ids[ids.index(first) + 1] == int(pieces.second[yours])


def test_shared_ids_are_the_same_bytes_and_roles() -> None:
    student, source = tiny_vocabulary(300, bos="<s>"), tiny_vocabulary(270)
    mine, yours = shared_ids(student, source)
    assert len(set(mine.tolist())) == len(set(yours.tolist())) == len(mine)
    for one, other in zip(mine.tolist(), yours.tolist(), strict=True):
        assert student.token_bytes[one] == source.token_bytes[other]
    assert student.roles["eos"] in mine


# --- whole losses


class Pair:
    """A student and a source on the same text."""

    def __init__(self, kind: str = "llama", same: bool = False, finer: bool = False) -> None:
        self.student = tiny_vocabulary(265 if finer else 300, bos="<s>")
        self.source = self.student if same else tiny_vocabulary(320 if finer else 280, bos="<s>")
        self.model = tiny_model(kind, self.student.size, seed=1)
        self.teacher = SourceTeacher(
            tiny_model(kind, self.source.size, seed=1 if same else 2), self.source, self.student
        )
        for model in (self.teacher.model, *([self.model] if same else [])):
            expect_words(model, self.source)
        eos, bos = self.student.roles["eos"], self.student.roles["bos"]
        (ids,) = self.student.encode([WORDS])
        stream = [bos, *ids.tolist(), eos, bos, *ids.tolist()]
        self.ids = torch.tensor([stream[:24], stream[40:64]])

    def loss(self, batches: int = 1, **weights: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, float]]:
        self.model.zero_grad()
        objective = Objective(**weights)
        with RecoveryLoss(
            self.model, Head(self.model), self.teacher, self.student, objective, Processes(torch.device("cpu"))
        ) as made:
            items = {} if batches == 1 else {"num_items_in_batch": batches * self.ids[:, 1:].numel()}
            loss = self.model(input_ids=self.ids, labels=self.ids.clone(), **items).loss
            loss.backward()
            return loss.detach(), gradients(self.model), made.means()


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


ALONE: dict[str, dict[str, Any]] = {
    "likelihood": {"likelihood": 1.0},
    "shared": {"shared": 1.0},
    "prefix": {"prefix": 1.0},
    "branches": {"branches": 1.0},
    "states": {"states": 1.0, "layer": 2},
    "values": {"values": 1.0, "layer": 2},
}


@pytest.mark.parametrize("name", ALONE)
def test_a_student_that_equals_its_source_gets_no_gradient(name: str) -> None:
    _, far, _ = Pair(finer=name in ("prefix", "branches")).loss(next_token=0.0, **ALONE[name])
    loss, near, means = Pair(same=True).loss(next_token=0.0, **ALONE[name])
    if name == "branches":  # no token is spelled with several
        assert (float(loss), means) == (0.0, {"branches": 0.0})
        return
    assert far.keys() == near.keys()
    size = max(float(g.norm()) for g in far.values())
    assert size > 1e-4
    assert max(float(g.norm()) for g in near.values()) < 1e-4 * size
    if name != "likelihood":  # a cross entropy, whose minimum is not 0
        assert float(loss) == pytest.approx(0.0, abs=1e-5)
        assert next(iter(means.values())) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", ALONE)
def test_a_step_along_the_gradient_changes_each_loss_as_predicted(name: str) -> None:
    """A small step along the gradient changes the loss in proportion to the squared norm of the gradient."""
    pair = Pair(finer=name in ("prefix", "branches"))
    before, slope, _ = pair.loss(next_token=0.0, **ALONE[name])
    square = sum(float(g.double().square().sum()) for g in slope.values())
    step = 1e-3 * max(abs(float(before)), 1e-3) / square
    values = []
    for sign in (-1, 1):
        with torch.no_grad():
            for key, weight in pair.model.named_parameters():
                if key in slope:
                    weight += sign * step * slope[key]
        values.append(float(pair.loss(next_token=0.0, **ALONE[name])[0]))
        with torch.no_grad():
            for key, weight in pair.model.named_parameters():
                if key in slope:
                    weight -= sign * step * slope[key]
    assert (values[1] - values[0]) / (2 * step) == pytest.approx(square, rel=0.03)


def drawn(pair: Pair) -> tuple[Branches, Predictions]:
    reading = pair.teacher.read(pair.ids, predicts=True)
    predictions = Predictions.of(reading, pair.ids, pair.teacher.head, Pieces(pair.student, pair.source))
    return Branches.draw(predictions, reading.positions.student[:, 1], reading.length, seed=3), predictions


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt_neox", "gpt2"])
def test_a_branch_is_read_as_the_text_up_to_it_and_its_token(kind: str) -> None:
    pair = Pair(kind, finer=True)
    branches, _ = drawn(pair)
    assert len(branches) > 10
    assert branches.row.unique().tolist() == [0, 1]
    inputs = {"input_ids": pair.ids}
    branches.append_to(inputs, torch.float32)
    logits = pair.model(**inputs).logits
    assert torch.allclose(logits[:, :24], pair.model(input_ids=pair.ids).logits, atol=1e-4)
    for row, column, token, slot in zip(branches.row, branches.column, branches.token, branches.slot, strict=True):
        alone = torch.cat([pair.ids[row, : column + 1], token[None]])[None]
        assert torch.allclose(logits[row, 24 + slot], pair.model(input_ids=alone).logits[0, -1], atol=1e-4)


def test_branches_follow_what_the_source_expects() -> None:
    pair = Pair(finer=True)
    branches, _ = drawn(pair)
    pieces = Pieces(pair.student, pair.source)
    reading = pair.teacher.read(pair.ids, predicts=True)
    place_of = {int(at): n for n, at in enumerate(reading.positions.student[:, 1])}
    theirs = torch.softmax(pair.teacher.model(input_ids=reading.input_ids).logits.detach().flatten(0, 1), dim=1)
    for n in range(len(branches)):
        place = place_of[int(branches.row[n]) * 24 + int(branches.column[n])]
        p = theirs[reading.positions.source[place, 1]][: pair.source.size]
        begins = pieces.first == branches.token[n]
        goes_on = begins & (pieces.count > 1)
        assert float(branches.weight[n]) == pytest.approx(float(p[goes_on].sum() / p[begins].sum()), rel=1e-3)
        found = torch.zeros(pair.student.size).index_add_(0, branches.second[n], branches.probs[n])
        wanted = torch.zeros(pair.student.size).index_add_(0, pieces.second[goes_on], p[goes_on] / p[goes_on].sum())
        assert torch.allclose(found, wanted, atol=1e-4)


def test_a_longer_token_gets_the_probability_of_its_source_tokens() -> None:
    pair = Pair()  # the student has longer tokens
    _, predictions = drawn(pair)
    pieces = Pieces(pair.student, pair.source)
    reading = pair.teacher.read(pair.ids, predicts=True)
    theirs = torch.softmax(pair.teacher.model(input_ids=reading.input_ids).logits.detach().flatten(0, 1), dim=1)
    positions, longer = reading.positions, 0
    for n in range(len(positions) - 1):
        mine = int(pair.ids.flatten()[positions.student[n + 1, 0]])
        yours = int(reading.input_ids.flatten()[positions.source[n + 1, 0]])
        if positions.row[n] != positions.row[n + 1] or not positions.exact[n + 1] or int(pieces.first[yours]) == mine:
            continue
        longer += 1
        p = theirs[positions.source[n, 1]][: pair.source.size]
        wanted = float(p[(pieces.first == mine) & (pieces.count > 0)].sum() + p[yours])
        assert float(predictions.probs[n][predictions.first[n] == mine].sum()) == pytest.approx(wanted, rel=1e-4)
    assert longer > 2


def test_branches_are_used_only_for_models_that_can_read_them() -> None:
    assert reads_branches(tiny_model("llama", 60), 1_000)
    assert not reads_branches(tiny_model("bloom", 60), 8)
    windowed = tiny_model("gemma3", 60)
    windowed.config.get_text_config().sliding_window = 16
    assert reads_branches(windowed, 16)
    assert not reads_branches(windowed, 17)


@pytest.mark.parametrize("name", ["likelihood", "shared", "states", "values"])
def test_branches_do_not_change_the_other_losses(name: str) -> None:
    pair = Pair(finer=True)
    pair.ids = torch.cat([pair.ids, pair.ids[:, 4:5].expand(2, 24)])  # repeats of one token have other branches
    branches, _ = drawn(pair)
    assert len(set(torch.bincount(branches.row, minlength=4).tolist())) > 1
    options: dict[str, Any] = {"next_token": 0.0, **ALONE[name]}
    _, alone, means = pair.loss(**options)
    _, of_branches, _ = pair.loss(next_token=0.0, branches=1.0)
    _, both, both_means = pair.loss(**options, branches=1.0)
    assert both_means[name] == pytest.approx(means[name], rel=1e-5)
    for key, value in both.items():
        added = alone.get(key, torch.zeros_like(value)) + of_branches[key]
        assert torch.allclose(value, added, rtol=1e-3, atol=1e-5 * float(added.abs().max() + 1e-3)), key


@pytest.mark.parametrize("kind", ["llama", "llama_tied", "gemma3", "gpt_neox", "qwen2"])
def test_fixed_weights_add_up(kind: str) -> None:
    pair = Pair(kind)
    parts = {"next_token": {"next_token": 2.0}} | {
        name: {"next_token": 0.0, **{k: 0.5 if k == name else v for k, v in ALONE[name].items()}}
        for name in ("likelihood", "shared", "states", "values")
    }
    alone = [pair.loss(**options) for options in parts.values()]
    together = {k: v for options in parts.values() for k, v in options.items()} | {"next_token": 2.0}
    loss, found, means = pair.loss(**together)
    assert float(loss) == pytest.approx(sum(float(value) for value, _, _ in alone), rel=1e-4)
    for key, value in found.items():
        added = sum((part.get(key, torch.zeros_like(value)) for _, part, _ in alone), torch.zeros_like(value))
        assert torch.allclose(value, added, rtol=1e-3, atol=1e-5 * float(added.abs().max() + 1e-3)), key
    assert set(means) == {"next_token", "likelihood", "shared", "states", "values"}
    others = sum(value for name, value in means.items() if name != "next_token")
    assert float(loss) == pytest.approx(2 * means["next_token"] + 0.5 * others, rel=1e-4)


@pytest.mark.parametrize("name", ["prefix", "branches", "states"])
def test_means_do_not_depend_on_how_many_batches_a_step_has(name: str) -> None:
    pair = Pair(finer=True)
    loss, _, means = pair.loss(**ALONE[name])
    half, _, same = pair.loss(batches=2, **ALONE[name])
    assert float(half) == pytest.approx(float(loss) / 2, rel=1e-5)
    assert same == pytest.approx(means, rel=1e-5)


def test_the_next_token_alone_is_the_loss_in_chunks() -> None:
    pair = Pair()
    loss, found, means = pair.loss()
    pair.model.zero_grad()
    with ChunkedLoss(pair.model, Head(pair.model)):
        plain = pair.model(input_ids=pair.ids, labels=pair.ids.clone()).loss
        plain.backward()
    assert float(loss) == pytest.approx(float(plain.detach()), rel=1e-6)
    assert means == {"next_token": pytest.approx(float(plain.detach()), rel=1e-5)}
    for key, value in gradients(pair.model).items():
        assert torch.allclose(value, found[key], rtol=1e-4, atol=1e-7)


def keep_gradient(output: torch.Tensor, caught: list[torch.Tensor]) -> None:
    if output.requires_grad:
        output.register_hook(caught.append)


def test_balanced_losses_have_equal_gradients_at_the_head() -> None:
    pair = Pair()
    nothing: dict[str, Any] = {"next_token": 0.0, **ALONE["likelihood"]}
    one, likelihood = pair.loss()[1]["lm_head.weight"], pair.loss(**nothing)[1]["lm_head.weight"]
    both = pair.loss(likelihood=1.0, balanced=True)[1]["lm_head.weight"]
    twice = pair.loss(likelihood=2.0, balanced=True)[1]["lm_head.weight"]
    added = both - one
    assert torch.allclose(added / added.norm(), likelihood / likelihood.norm(), atol=1e-4)
    assert torch.allclose(twice - one, 2 * added, rtol=1e-3, atol=1e-5)
    # gradients are measured at the input of the head
    sizes = []
    for options in ({}, nothing):
        caught: list[torch.Tensor] = []
        hook = pair.model.model.norm.register_forward_hook(
            lambda module, inputs, output, caught=caught: keep_gradient(output, caught)
        )
        pair.loss(**options)
        hook.remove()
        assert len(caught) == 1
        sizes.append(float(caught[0].norm()))
    assert float(added.norm() / likelihood.norm()) == pytest.approx(sizes[0] / sizes[1], rel=1e-3)


def test_an_injected_gradient_has_the_size_of_the_gradient_from_above() -> None:
    given = torch.tensor([3.0, 4.0, 0.0], requires_grad=True)
    own = torch.tensor([0.0, 0.0, 2.0])
    for balanced, expected in ((False, [1.0, 2.0, 5.0]), (True, [1.0, 2.0, 2.0 + 0.5 * 3.0])):
        (out,) = Injection.apply(0.5 if balanced else 1.5, balanced, 1, given, own)
        (out * torch.tensor([1.0, 2.0, 2.0])).sum().backward()
        assert given.grad is not None
        assert torch.allclose(given.grad, torch.tensor(expected))
        given.grad = None


def test_state_loss_is_relative_to_the_variance_of_the_source() -> None:
    source = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert float(state_loss(source, source)) == 0
    assert float(state_loss(source.mean(0).expand(50, 8), source)) == pytest.approx(1.0, rel=1e-5)
    assert float(state_loss(7 * source, 7 * source + 7)) == pytest.approx(
        float(state_loss(source, source + 1)), rel=1e-4
    )


@pytest.mark.parametrize("masked", [False, True])
def test_weighted_values_add_up_to_the_attentions_output(masked: bool) -> None:
    g = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 9, 4, generator=g) for heads in (4, 2, 2))
    seen = torch.ones(9, 9, dtype=torch.bool).tril()
    if masked:
        seen &= ~torch.ones(9, 9, dtype=torch.bool).tril(-4)  # a sliding window
    attention = Attention(query, key, value, seen[None, None] if masked else None, 0.5)
    ends, starts = torch.tensor([0, 2, 3, 8]), torch.tensor([0, 1, 3, 4])
    found = weighted_values(attention, 0, ends, starts)
    assert found.shape == (4, 4, 4, 4)
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), attn_mask=seen, scale=0.5
    )
    assert torch.allclose(found.sum(dim=2), output[0][:, ends], atol=1e-5)
    assert not found[:, 0, 1:].any(), "later positions contribute nothing"


@torch.no_grad()
def test_chunks_end_where_the_source_expects_a_new_word() -> None:
    pair = Pair()
    reading = pair.teacher.read(pair.ids, predicts=True)
    opening = opens_word(pair.source, pair.source.size)
    positions, own = reading.positions, reading.input_ids.shape[1]
    log_probs = torch.log_softmax(pair.teacher.model(input_ids=reading.input_ids).logits.flatten(0, 1), dim=1)
    opens = log_probs[:, opening].logsumexp(dim=1)
    flat = reading.input_ids.flatten()
    expected = []
    begun: int | None = None
    row = -1
    for i in range(len(positions)):
        if int(positions.row[i]) != row:
            row, begun = int(positions.row[i]), None
        begun = i if begun is None else begun
        end = int(positions.source[i, 1])
        if float(opens[end].exp()) >= 0.1:
            start, member = int(positions.source[begun, 0]), slice(begun, i + 1)
            whole = bool(positions.exact[member].all()) and not bool(positions.first[member].any())
            if whole and end % own != own - 1 and int(positions.student[i, 1]) % 24 != 23:
                log_t = sum(float(log_probs[k - 1, flat[k]]) for k in range(start, end + 1)) + float(opens[end])
                expected.append((int(positions.student[begun, 0]), int(positions.student[i, 1]), log_t))
            begun = None
    found = list(zip(*(column.tolist() for column in chunks_of(reading, pair.teacher.head, opening)), strict=True))
    assert [chunk[:2] for chunk in found] == [chunk[:2] for chunk in expected]
    assert [chunk[2] for chunk in found] == pytest.approx([chunk[2] for chunk in expected], rel=1e-4)
    assert any(chunk[0] < chunk[1] for chunk in found)
    assert 0 < len(found) < int(positions.exact.sum())


def test_words_begin_with_white_space_or_a_special_token() -> None:
    vocabulary = tiny_vocabulary(300)
    opening = set(opens_word(vocabulary, 1000).tolist())
    for i, token in enumerate(vocabulary.token_bytes):
        assert (i in opening) == (token is None or token[:1] in (b" ", b"\n", b"\t"))
    assert max(opens_word(vocabulary, 50).tolist()) < 50


def test_accumulated_batches_have_the_weight_of_one_batch() -> None:
    pair = Pair()
    options: dict[str, Any] = {"likelihood": 0.5, "states": 0.5}
    objective = Objective(**options)
    whole = pair.loss(**options)[0]
    with RecoveryLoss(
        pair.model, Head(pair.model), pair.teacher, pair.student, objective, Processes(torch.device("cpu"))
    ):
        items = torch.tensor(2 * 2 * 23)  # this batch is half of the step
        half = pair.model(input_ids=pair.ids, labels=pair.ids.clone(), num_items_in_batch=items).loss
    assert float(half) == pytest.approx(float(whole) / 2, rel=1e-5)


def test_the_model_is_unchanged_outside_of_the_context_and_without_labels() -> None:
    pair = Pair()
    plain = pair.model(input_ids=pair.ids).logits
    objective = Objective(states=1.0, values=1.0)
    with RecoveryLoss(
        pair.model, Head(pair.model), pair.teacher, pair.student, objective, Processes(torch.device("cpu"))
    ):
        assert torch.equal(pair.model(input_ids=pair.ids).logits, plain)
        pair.model(input_ids=pair.ids, labels=pair.ids.clone()).loss.backward()
        assert torch.equal(pair.model(input_ids=pair.ids).logits, plain)
    assert torch.equal(pair.model(input_ids=pair.ids).logits, plain)


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="layers 1 to 2"):
        Pair().loss(states=1.0, layer=3)


def test_separate_documents_are_refused() -> None:
    pair = Pair()
    with (
        RecoveryLoss(
            pair.model, Head(pair.model), pair.teacher, pair.student, Objective(), Processes(torch.device("cpu"))
        ),
        pytest.raises(InputError, match="across the documents"),
    ):
        pair.model(input_ids=pair.ids, labels=pair.ids.clone(), position_ids=torch.arange(24)[None])


def test_models_with_different_layers_are_compared_by_predictions_only() -> None:
    pair = Pair()
    pair.teacher = SourceTeacher(tiny_model("llama", pair.source.size), pair.source, pair.student)
    pair.teacher.model.config.hidden_size = 48
    assert np.isfinite(float(pair.loss(likelihood=1.0)[0]))
    with pytest.raises(InputError, match="hidden_size of 48"):
        pair.loss(states=1.0)
