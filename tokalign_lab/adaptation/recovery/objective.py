"""The losses of a recovery run together: the next token, and what the source knows of the same text.

`RecoveryLoss` makes a model compute them, as `ChunkedLoss` makes it compute the next-token loss. Before each forward
pass of the student the source reads the batch. Losses on logits are terms at the head. Losses on states and values work
at their layer, on the student's own forward pass, and add their gradient there.

With `balanced`, each loss gets the weight that makes its gradient as large as that of the next-token loss, times its
own weight (inverse gradient norm; no gradient flows through the scale). Norms are taken where a loss acts: at the
head's input for losses on logits, at the layer's output for states, at query, key and value for values. Without it,
losses are added with their weights. Both use this step's gradients alone, so a resumed run goes on as it would have.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

from tokalign_lab.adaptation.loss import IGNORED, ChunkedLoss, NextToken, Term, head_loss, term_loss
from tokalign_lab.adaptation.processes import Processes
from tokalign_lab.adaptation.recovery.branches import Branches
from tokalign_lab.adaptation.recovery.layers import ended_after, layer, states_of, with_states
from tokalign_lab.adaptation.recovery.likelihood import ChunkLikelihood, chunks_of, logits_ahead, opens_word
from tokalign_lab.adaptation.recovery.next_token import (
    Compared,
    ComparedNext,
    Expected,
    SharedTokens,
    shared_ids,
)
from tokalign_lab.adaptation.recovery.pieces import Pieces, Predictions
from tokalign_lab.adaptation.recovery.source import Places, Reading, SourceTeacher
from tokalign_lab.adaptation.recovery.states import (
    Attention,
    Injection,
    attention_of,
    norm,
    state_loss,
    value_loss,
)
from tokalign_lab.adaptation.settings import SOURCE_LOSSES, DistillationSettings
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import Head
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Objective:
    """Which losses are added, with which weights; 0 leaves one out.

    Attributes
    ----------
    next_token : float
        Of the text itself.
    likelihood : float
        ALM (see `likelihood`), with temperature `tau`, and debiased where `debias` is set.
    shared : float
        KL at strict 1:1 positions, with `kl`'s temperature and direction.
    prefix : float
        KL of predictions moved to the student's tokens (`next_token.Expected`), per predicted position.
    branches : float
        KL of second pieces (`branches`), per predicted position.
    states : float
        Squared difference of the states after each of `state_layers`, mean over these layers; where balanced, each
        layer has this weight.
    values : float
        MATT's loss in `value_layer`.
    balanced : bool
        Weights are relative to the gradient of the next-token loss.
    """

    next_token: float = 1.0
    likelihood: float = 0.0
    tau: float = 5.0
    debias: bool = False
    shared: float = 0.0
    prefix: float = 0.0
    branches: float = 0.0
    kl: DistillationSettings = dataclasses.field(default_factory=DistillationSettings)
    states: float = 0.0
    state_layers: tuple[int, ...] = ()
    values: float = 0.0
    value_layer: int = 0
    balanced: bool = False

    @classmethod
    def of(cls, losses: Mapping[str, float], n_layers: int) -> Objective:
        """Add losses from the source to that of the next token.

        Losses in nats per predicted token are added as they are. Others have units of their own, so all are balanced.

        Parameters
        ----------
        losses
            Their weights, by name (`SOURCE_LOSSES`).
        n_layers
            Of the model; states and values are compared after a third of them (as MATT does).
        """
        third = max(1, round(n_layers / 3))
        balanced = not losses.keys() <= {"shared", "prefix", "branches"}
        options: dict[str, Any] = {"state_layers": (third,), "value_layer": third, "balanced": balanced}
        return cls(**options | dict(losses))

    def __post_init__(self) -> None:
        """Refuse values that make no sense, in one sentence."""
        weights = {name: getattr(self, name) for name in WEIGHTS}
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"The weight of {name!r} is {weight}, but it must be a number of at least 0.")
        if not any(weights.values()):
            raise InputError(f"Every loss has the weight 0; give one of {', '.join(WEIGHTS)} a weight.")
        if not (math.isfinite(self.tau) and self.tau > 0):
            raise InputError(f"The temperature tau is {self.tau}, but it must be a number above 0.")
        if self.balanced and not self.next_token:
            raise InputError("Balanced weights are relative to the next-token loss; give next_token a weight.")
        if self.states and not self.state_layers:
            raise InputError("States are to be compared, but state_layers names no layer.")
        if self.values and not self.value_layer:
            raise InputError("Values are to be compared, but value_layer names no layer.")

    @property
    def asks_head(self) -> bool:
        """Whether the source's predictions are needed."""
        return bool(self.likelihood or self.shared or self.prefix or self.branches)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose states are compared."""
        return tuple(sorted(set(self.state_layers))) if self.states else ()


WEIGHTS = ("next_token", *SOURCE_LOSSES)
LEAST_SPELLED = 0.9  # of the source's probability, at a place where its prediction is moved to the student's tokens


class RecoveryLoss(ChunkedLoss):
    """Makes a model compute an `Objective`, while the block lasts.

    Batches carry ids and labels, as for `ChunkedLoss`; documents may not be kept apart by `position_ids`.

    Parameters
    ----------
    model, head
        As for `ChunkedLoss`: the student.
    teacher
        The source model.
    student
        The student's tokenizer.
    objective
        What is computed.
    processes
        Those that share the work.

    Raises
    ------
    InputError
        If a layer does not exist, or the two models are not of one shape where states or values are compared.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        head: Head,
        teacher: SourceTeacher,
        student: Vocabulary,
        objective: Objective,
        processes: Processes,
    ) -> None:
        super().__init__(model, head)
        self._teacher, self._objective, self._processes = teacher, objective, processes
        rows = len(head.module.weight)
        debiased = objective.likelihood and objective.debias
        self._opening = opens_word(student, rows) if debiased else None
        source = teacher.vocabulary
        self._source_opening = opens_word(source, len(teacher.head.module.weight)) if debiased else None
        self._shared_ids = shared_ids(student, source) if objective.shared else None
        self._pieces = Pieces(student, source) if objective.prefix or objective.branches else None
        for number in (*objective.layers, *([objective.value_layer] if objective.values else [])):
            for one in (model, teacher.model):
                layer(one, number)
        self._check_shape(model, teacher.model)
        self._reading: Reading | None = None
        self._predictions: Predictions | None = None
        self._branches: Branches | None = None
        self._source_attention: Attention | None = None
        self._parts: dict[str, torch.Tensor] = {}
        self._sums = torch.zeros(len(WEIGHTS) + 1, dtype=torch.float64)
        self._stack = ExitStack()
        self._cut = ExitStack()

    def __enter__(self) -> Self:
        super().__enter__()
        for number in self._objective.layers:

            def compare(module: torch.nn.Module, inputs: Any, output: Any, number: int = number) -> Any:
                return self._at_layer(output, number)

            self._stack.callback(layer(self._model, number).register_forward_hook(compare).remove)
        if self._objective.values:
            here = layer(self._model, self._objective.value_layer)
            self._stack.enter_context(attention_of(here, self._model, self._at_attention))
            theirs = layer(self._teacher.model, self._objective.value_layer)
            self._stack.enter_context(attention_of(theirs, self._teacher.model, self._keep_attention))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, value, trace)
        self._stack.close()
        self._cut.close()

    def take(self, inputs: dict[str, Any]) -> None:
        """Take out what the loss needs, and let the source read the batch."""
        super().take(inputs)
        self._collect()
        if self._labels is None:
            return
        if "position_ids" in inputs:
            raise InputError("The source reads across the documents of a sequence; leave cross_documents on.")
        objective = self._objective
        layers = {*objective.layers, *([objective.value_layer] if objective.values else [])}
        self._reading = self._teacher.read(inputs["input_ids"], sorted(layers), objective.asks_head)
        if self._pieces is not None:
            self._predict(inputs, self._pieces)
        if not (objective.next_token or objective.asks_head):
            self._cut.enter_context(ended_after(self._model, max(layers)))  # nothing behind is learnt from

    def _predict(self, inputs: dict[str, Any], pieces: Pieces) -> None:
        """Move the source's predictions to the student's tokens; put branches behind the batch."""
        reading, ids = self._reading, inputs["input_ids"]
        assert reading is not None
        assert reading.hidden is not None
        hidden = reading.hidden[reading.places.source[:, 1].to(reading.hidden.device)]
        self._predictions = Predictions.of(hidden, self._teacher.head, pieces).on(ids.device)
        if self._objective.branches:
            at = reading.places.student[:, 1]
            self._branches = Branches.draw(self._predictions, at, reading.length, seed=int(ids.sum()))
            self._branches.put_behind(inputs, self._model.dtype)

    @property
    def opening_ids(self) -> torch.Tensor:
        """int64: the student's tokens that branches begin with, whether the text has them or not."""
        return self._pieces.openings if self._pieces is not None and self._objective.branches else torch.zeros(0).long()

    def means(self) -> dict[str, float]:
        """Return what was computed since the last call, on all processes, each of which must ask.

        Returns
        -------
        dict of str to float
            Each loss that has a weight, without its weight: the mean over predicted positions (next_token), chunks
            (likelihood) or compared places; weighted by the positions of each batch.
        """
        self._collect()
        *sums, n = self._processes.total(self._sums).tolist()
        self._sums.zero_()
        found = dict(zip(WEIGHTS, sums, strict=True))
        return {name: value / max(n, 1) for name, value in found.items() if getattr(self._objective, name)}

    def _give_loss(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        self._cut.close()
        return super()._give_loss(module, inputs, output)

    # --- at the head

    def _at_the_head(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor] | None:
        if self._labels is None:
            return None
        labels = self._labels[:, 1:]
        hidden, behind = inputs[0][:, : labels.shape[1] + 1], inputs[0][:, labels.shape[1] + 1 :]
        predicted = labels != IGNORED
        n = predicted.sum().clamp(min=1)
        share = 1.0 if self._divisor is None else n / self._divisor  # of this batch in the step
        states = hidden[:, :-1][predicted]
        terms = self._terms(states, labels[predicted], predicted, n)
        self._parts["positions"] = n
        if self._objective.balanced and len(terms) > 1:
            loss = self._balanced(states, terms, share)
        else:
            summed = _Sum([(term, weight * n / count) for _, term, count, weight in terms])
            loss = head_loss(states, self._head, summed, n / share, self._chunk_bytes) if terms else states.sum() * 0.0
            for (name, _, count, _), value in zip(terms, summed.values, strict=True):
                self._parts[name] = value / count
        if self._branches is not None and len(self._branches):
            loss = loss + self._of_branches(behind, self._branches, n / share)
        others = [
            self._weight(name) * self._parts[name] * share for name in ("states", "values") if name in self._parts
        ]
        self._loss = loss + sum(others)  # their gradients are added where they act
        return (hidden[:, :1],)

    def _terms(
        self, states: torch.Tensor, labels: torch.Tensor, predicted: torch.Tensor, n: torch.Tensor
    ) -> list[tuple[str, Term, torch.Tensor, float]]:
        """Return name, term, number of things summed and weight of each loss on logits."""
        objective, reading = self._objective, self._reading
        assert reading is not None
        found: list[tuple[str, Term, torch.Tensor, float]] = []
        if objective.next_token:
            found.append(("next_token", NextToken(labels), n, objective.next_token))
        if not objective.asks_head:
            return found
        # the row of the state at each token of the batch, -1 where it predicts nothing
        row_of = torch.full((len(predicted), reading.length), -1, device=labels.device)
        row_of[:, :-1][predicted] = torch.arange(len(labels), device=labels.device)
        row_of = row_of.flatten()
        if objective.likelihood:
            found.append(self._likelihood(states, labels, row_of))
        if objective.shared:
            assert self._shared_ids is not None
            before = reading.places[reading.places.one_to_one & ~reading.places.first]
            rows, hidden = self._predicting(before.student[:, 0] - 1, before.source[:, 0] - 1, row_of)
            shared = SharedTokens(hidden, self._teacher.head, self._shared_ids, objective.kl)
            found.append(_compared("shared", shared, rows, objective.shared))
        if objective.prefix:
            assert self._predictions is not None
            rows = row_of[reading.places.student[:, 1]]
            spelled = self._predictions.probs.sum(dim=1)
            told = (rows >= 0) & (spelled > LEAST_SPELLED)
            here, spelled = self._predictions[told], spelled[told]
            prefix = Expected(here.first, here.probs / spelled[:, None], torch.ones_like(spelled))
            found.append(("prefix", ComparedNext(rows[told], prefix), n, objective.prefix))
        return found

    def _of_branches(self, behind: torch.Tensor, branches: Branches, divisor: torch.Tensor) -> torch.Tensor:
        """Sum the divergence at the branches, times its weight, over `divisor`; `behind` is (batch, branches, d)."""
        states = behind[branches.row, branches.slot]
        rows = torch.arange(len(branches), device=states.device)
        term = ComparedNext(rows, Expected(branches.second, branches.probs, branches.weight))
        loss = head_loss(states, self._head, term, divisor / self._objective.branches, self._chunk_bytes)
        self._parts["branches"] = loss.detach() / self._objective.branches
        return loss

    def _predicting(
        self, mine: torch.Tensor, yours: torch.Tensor, row_of: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of the student's tokens that predict, and what the source's head sees at its own."""
        assert self._reading is not None
        assert self._reading.hidden is not None
        rows = row_of[mine]
        hidden = self._reading.hidden
        return rows[rows >= 0], hidden[yours[rows >= 0].to(hidden.device)].to(rows.device)

    def _likelihood(
        self, states: torch.Tensor, labels: torch.Tensor, row_of: torch.Tensor
    ) -> tuple[str, Term, torch.Tensor, float]:
        assert self._reading is not None
        chunks = chunks_of(self._reading, self._teacher.head, self._source_opening)
        first, last = row_of[chunks.first - 1], row_of[chunks.last - 1]
        whole = (first >= 0) & (last >= 0) & (last - first == chunks.last - chunks.first)
        if self._opening is not None:
            whole &= row_of[chunks.last] == last + 1
        term = ChunkLikelihood(
            labels,
            first[whole],
            last[whole],
            chunks.log_probs[whole],
            self._objective.tau,
            logits_ahead(states, self._head),
            self._opening,
        )
        return "likelihood", term, whole.sum().clamp(min=1), self._objective.likelihood

    def _balanced(
        self,
        states: torch.Tensor,
        terms: list[tuple[str, Term, torch.Tensor, float]],
        share: torch.Tensor | float,
    ) -> torch.Tensor:
        """Add up losses with gradients of one size; each takes a pass over the logits of its own."""
        module = self._head.module
        given = [states, module.weight, getattr(module, "bias", None)]
        total: list[torch.Tensor] = []
        value: torch.Tensor | float = 0.0
        size: torch.Tensor | None = None
        for name, term, count, weight in terms:
            leaves = [None if part is None else part.detach().requires_grad_(part.requires_grad) for part in given]
            assert leaves[0] is not None
            assert leaves[1] is not None
            leaves[0].requires_grad_(True)  # its norm is the measure, also where only the head is trained
            with torch.enable_grad():
                loss = term_loss(leaves[0], leaves[1], leaves[2], self._head.cap, term, count, self._chunk_bytes)
                loss.backward()  # type: ignore[no-untyped-call]
            grads = [part.grad for part in leaves if part is not None and part.grad is not None]
            here = norm([grads[0]])
            size = here if size is None else size  # the next token's, which comes first
            scale = weight * share * (1.0 if name == "next_token" else size / here.clamp(min=1e-12))
            self._parts[name] = loss.detach()
            value = value + scale * loss.detach()
            if total:
                for sum_, grad in zip(total, grads, strict=True):
                    sum_.add_(grad * scale)
            else:
                total = [grad * scale for grad in grads]
        trained = [states, *(part for part in given[1:] if part is not None and part.requires_grad)]
        assert isinstance(value, torch.Tensor)
        return _Given.apply(value, len(trained), *trained, *total)  # type: ignore[no-untyped-call]

    # --- at layers

    def _at_layer(self, output: Any, number: int) -> Any:
        states = states_of(output)
        if self._labels is None or self._reading is None:
            return output
        mine, yours = self._compared_states(self._reading.places)
        source = self._reading.layers[number][yours.to(self._reading.layers[number].device)].to(states.device)
        with torch.enable_grad():
            leaf = states.detach().requires_grad_(True)
            text = leaf[:, : self._reading.length]  # branches are behind it
            loss = state_loss(text.flatten(0, 1)[mine], source) / len(self._objective.layers)
            (gradient,) = torch.autograd.grad(loss, leaf)
        before = self._parts.get("states") if number != self._objective.layers[0] else None
        self._parts["states"] = loss.detach() if before is None else before + loss.detach()
        return with_states(output, self._injected("states", [states], [gradient])[0])

    def _compared_states(self, places: Places) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens of both sides whose states are compared: all shared places but special tokens.

        The state at a text's beginning is an outlier of a hundred times the norm, which would be all of the loss.
        """
        here = places[~places.special & ~places.first]
        return here.student[:, 1], here.source[:, 1]

    def _keep_attention(self, attention: Attention) -> None:
        self._source_attention = attention

    def _at_attention(self, attention: Attention) -> tuple[torch.Tensor, ...] | None:
        if self._labels is None or self._reading is None:
            return None
        assert self._source_attention is not None
        with torch.enable_grad():
            tensors = (attention.query, attention.key, attention.value)
            leaves = [part.detach().requires_grad_(True) for part in tensors]
            query, key, value = leaves
            mine = Attention(query, key, value, attention.mask, attention.scaling)
            own = self._reading.input_ids.shape[1]
            loss = value_loss(mine, self._source_attention, self._reading.places, self._reading.length, own)
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        self._parts["values"] = loss.detach()
        filled = [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)]
        return tuple(self._injected("values", list(tensors), filled))

    def _injected(
        self, name: str, tensors: list[torch.Tensor], gradients: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        assert self._labels is not None
        predicted = (self._labels[:, 1:] != IGNORED).sum()
        share = 1.0 if self._divisor is None or self._objective.balanced else float(predicted / self._divisor)
        weight = self._weight(name) * share
        return Injection.apply(weight, self._objective.balanced, len(tensors), *tensors, *gradients)  # type: ignore[no-untyped-call]

    def _weight(self, name: str) -> float:
        return float(getattr(self._objective, name))

    def _collect(self) -> None:
        """Add up what the last batch came to, and let the source's reading go."""
        n = self._parts.pop("positions", None)
        if n is not None:
            for place, name in enumerate(WEIGHTS):
                if name in self._parts:
                    self._sums[place] += float(self._parts[name]) * int(n)
            self._sums[-1] += int(n)
        self._parts.clear()
        self._reading = self._source_attention = self._predictions = self._branches = None

    def _check_shape(self, model: PreTrainedModel, source: PreTrainedModel) -> None:
        if not (self._objective.states or self._objective.values):
            return
        one, other = model.config.get_text_config(), source.config.get_text_config()
        for name in ("hidden_size", "num_attention_heads"):
            if getattr(one, name) != getattr(other, name):
                raise InputError(
                    f"The source has a {name} of {getattr(other, name)} and the student {getattr(one, name)}, so their "
                    "states cannot be compared; use losses on predictions."
                )


def _compared(
    name: str, compared: Compared, rows: torch.Tensor, weight: float
) -> tuple[str, Term, torch.Tensor, float]:
    return name, ComparedNext(rows, compared), torch.tensor(max(1, len(rows)), device=rows.device), weight


class _Sum:
    """Several terms on the same logits, each with a factor."""

    def __init__(self, terms: list[tuple[Term, torch.Tensor]]) -> None:
        self._terms = terms
        self.values = [torch.zeros((), dtype=torch.float64)] * len(terms)

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See `loss.Term`."""
        total = logits.new_zeros(())
        summed: torch.Tensor | None = None
        last = len(self._terms) - 1
        for place, (term, factor) in enumerate(self._terms):
            mine = logits if place == last else logits.clone()
            value = term(mine, rows)
            self.values[place] = self.values[place].to(value.device) + value.double()
            total = total + factor * value
            mine.mul_(factor)
            summed = mine if summed is None else summed.add_(mine)
        if summed is not None and summed is not logits:
            logits.copy_(summed)
        return total.to(logits.dtype)


class _Given(torch.autograd.Function):
    """A value whose gradients are known: `apply(value, n, *tensors, *gradients)`."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, n: int, *given: torch.Tensor) -> torch.Tensor:
        ctx.n = n
        ctx.save_for_backward(*given[n:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, None, *(above * gradient for gradient in ctx.saved_tensors), *[None] * ctx.n)
