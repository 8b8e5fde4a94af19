"""The total loss of a recovery run: the next-token loss, and losses from the source's predictions on the same text.

`RecoveryLoss` makes a model compute it, as `ChunkedLoss` makes it compute the next-token loss. Before each forward pass
of the student, the source reads the batch. Losses on logits are terms at the head. Losses on states and values are
computed at their layer in the student's forward pass and add their gradient there.

With `balanced`, each loss is scaled until the norm of its gradient equals that of the next-token loss, then multiplied
by its weight (inverse gradient norm; no gradient flows through the scale). The norm is taken at the head's input for
losses on logits, at the layer's output for states, and at query, key and value for values. Without `balanced`, losses
are added with their weights. Both use only the gradients of the current step, so a resumed run continues identically.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import torch

from tokalign_lab.adaptation.loss import IGNORED, ChunkedLoss, NextToken, head_loss
from tokalign_lab.adaptation.processes import Processes
from tokalign_lab.adaptation.recovery.branches import Branches
from tokalign_lab.adaptation.recovery.combining import Injection, Part, balanced_sum, fixed_sum
from tokalign_lab.adaptation.recovery.likelihood import ChunkLikelihood, chunks_of, opens_word
from tokalign_lab.adaptation.recovery.next_token import ComparedNext, Expected, SharedTokens, shared_ids
from tokalign_lab.adaptation.recovery.objective import WEIGHTS, Objective
from tokalign_lab.adaptation.recovery.states import Attention, attention_of, state_loss, value_loss
from tokalign_lab.cross_tokenizer.layers import layer, states_of, with_states
from tokalign_lab.cross_tokenizer.pieces import Pieces, Predictions
from tokalign_lab.cross_tokenizer.source import Reading, SourceTeacher
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import Head
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RecoveryLoss(ChunkedLoss):
    """Within the block, a model computes an `Objective`.

    Batches have ids and labels, as for `ChunkedLoss`; documents may not be separated by `position_ids`. Raises
    `InputError` if a layer does not exist, or states or values are compared and their shapes differ between the models.

    Parameters
    ----------
    model, head : as for `ChunkedLoss`: the student
    teacher : the source model
    student : the student's tokenizer
    objective : the losses
    processes : the processes that share the work
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
        source = teacher.vocabulary
        self._opening: tuple[torch.Tensor, torch.Tensor] | None = None
        if objective.likelihood:
            sides = ((student, head), (source, teacher.head))
            mine, yours = (opens_word(vocabulary, len(one.module.weight)) for vocabulary, one in sides)
            self._opening = mine, yours
        self._shared_ids = shared_ids(student, source) if objective.shared else None
        self._pieces = Pieces(student, source) if objective.prefix or objective.branches else None
        for number in objective.layers:
            for one in (model, teacher.model):
                layer(one, number)
        self._check_shape(model, teacher.model)
        self._reading: Reading | None = None
        self._predictions: Predictions | None = None
        self._branches: Branches | None = None
        self._source_attention: Attention | None = None
        self._means: dict[str, torch.Tensor] = {}
        self._sums = torch.zeros(len(WEIGHTS) + 1, dtype=torch.float64)

    def __enter__(self) -> Self:
        super().__enter__()
        number = self._objective.layer
        if self._objective.states:
            self._stack.callback(layer(self._model, number).register_forward_hook(self._at_layer).remove)
        if self._objective.values:
            for model, work in ((self._model, self._at_attention), (self._teacher.model, self._keep_attention)):
                self._stack.enter_context(attention_of(layer(model, number), model, work))
        return self

    def take(self, inputs: dict[str, Any]) -> None:
        """Remove from the batch the entries that only the loss needs, and let the source read the batch."""
        super().take(inputs)
        self._collect()
        if self._labels is None:
            return
        if "position_ids" in inputs:
            raise InputError("The source reads across the documents of a sequence; leave cross_documents on.")
        objective = self._objective
        self._reading = self._teacher.read(inputs["input_ids"], objective.layers, objective.needs_head)
        if self._pieces is not None:
            self._predict(inputs, self._pieces)

    def _predict(self, inputs: dict[str, Any], pieces: Pieces) -> None:
        """Map the source's predictions to the student's tokens, and append branches to the batch."""
        reading, ids = self._reading, inputs["input_ids"]
        assert reading is not None
        self._predictions = Predictions.of(reading, ids, self._teacher.head, pieces)
        if self._objective.branches:
            at = reading.positions.student[:, 1]
            self._branches = Branches.draw(self._predictions, at, reading.length, seed=int(ids.sum()))
            self._branches.append_to(inputs, self._model.dtype)

    @property
    def further_ids(self) -> torch.Tensor:
        """int64: the student's tokens that branches can add, even if the text does not contain them."""
        return self._pieces.openings if self._pieces and self._objective.branches else super().further_ids

    def means(self) -> dict[str, float]:
        """Return the sums since the last call over all processes; every process must call this.

        Returns each loss with a weight, without this weight: the mean over predicted positions (next_token), chunks
        (likelihood) or compared positions, weighted by the positions of each batch.
        """
        self._collect()
        *sums, n = self._processes.total(self._sums).tolist()
        self._sums.zero_()
        found = dict(zip(WEIGHTS, sums, strict=True))
        return {name: value / max(n, 1) for name, value in found.items() if getattr(self._objective, name)}

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
        parts = list(self._on_logits(states, labels[predicted], predicted, n))
        if self._objective.balanced and len(parts) > 1:
            loss, means = balanced_sum(states, self._head, parts, share)
        else:
            loss, means = fixed_sum(states, self._head, parts, n, share)
        self._means |= {"positions": n, **means}
        if self._branches is not None and len(self._branches):
            loss = loss + self._of_branches(behind, self._branches, n, share)
        others = [
            self._weight(name) * self._means[name] * share for name in ("states", "values") if name in self._means
        ]
        self._loss = loss + sum(others)  # their gradients are added at their layers
        return (hidden[:, :1],)

    def _on_logits(
        self, states: torch.Tensor, labels: torch.Tensor, predicted: torch.Tensor, n: torch.Tensor
    ) -> Iterator[Part]:
        """Yield the losses on logits; `labels`, int64 (n,), are at `predicted`, bool (batch, length - 1)."""
        objective, reading = self._objective, self._reading
        assert reading is not None
        yield Part("next_token", NextToken(labels), n, objective.next_token)
        if not objective.needs_head:
            return
        # the row of the state at each token of the batch, -1 if it predicts nothing
        row_of = torch.full((len(predicted), reading.length), -1, device=labels.device)
        row_of[:, :-1][predicted] = torch.arange(len(labels), device=labels.device)
        row_of = row_of.flatten()
        if objective.likelihood:
            yield self._likelihood(reading, states, labels, row_of)
        if self._shared_ids is not None:
            yield self._shared(reading, self._shared_ids, row_of)
        if objective.prefix:
            assert self._predictions is not None
            rows = row_of[reading.positions.student[:, 1]]
            chosen = (rows >= 0) & self._predictions.whole
            here = self._predictions[chosen]
            prefix = Expected(here.first, here.first_probs, torch.ones(len(here), device=rows.device))
            yield Part("prefix", ComparedNext(rows[chosen], prefix), n, objective.prefix)

    def _of_branches(
        self, behind: torch.Tensor, branches: Branches, n: torch.Tensor, share: torch.Tensor | float
    ) -> torch.Tensor:
        """Return the loss of the branches; `behind`, float (batch, branches, d), has their states."""
        states = behind[branches.row, branches.slot]
        rows = torch.arange(len(branches), device=states.device)
        term = ComparedNext(rows, Expected(branches.second, branches.probs, branches.weight))
        factor = self._objective.branches * share
        loss = head_loss(states, *self._head.tensors, term, n / factor)
        self._means["branches"] = loss.detach() / factor
        return loss

    def _shared(self, reading: Reading, ids: tuple[torch.Tensor, torch.Tensor], row_of: torch.Tensor) -> Part:
        assert reading.hidden is not None
        positions = reading.positions[reading.positions.one_to_one & ~reading.positions.first]
        rows = row_of[positions.student[:, 0] - 1]
        known = rows >= 0
        rows, yours = rows[known], positions.source[known, 0] - 1
        hidden = reading.hidden[yours.to(reading.hidden.device)].to(rows.device)
        shared = SharedTokens(hidden, self._teacher.head, ids)
        count = torch.tensor(max(1, len(rows)), device=rows.device)
        return Part("shared", ComparedNext(rows, shared), count, self._objective.shared)

    def _likelihood(self, reading: Reading, states: torch.Tensor, labels: torch.Tensor, row_of: torch.Tensor) -> Part:
        assert self._opening is not None
        begin, end, log_probs = chunks_of(reading, self._teacher.head, self._opening[1])
        first, last = row_of[begin - 1], row_of[end - 1]
        whole = (first >= 0) & (last - first == end - begin) & (row_of[end] == last + 1)
        dtype = self._head.module.weight.dtype
        term = ChunkLikelihood(
            labels,
            first[whole],
            last[whole],
            log_probs[whole],
            lambda rows: self._head.logits(states[rows].to(dtype)),
            self._opening[0],
        )
        return Part("likelihood", term, whole.sum().clamp(min=1), self._objective.likelihood)

    # --- at layers

    def _at_layer(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        states = states_of(output)
        if self._labels is None or self._reading is None:
            return output
        # the first state of a text has about a hundred times the usual norm and would dominate the loss
        here = self._reading.positions[~self._reading.positions.special & ~self._reading.positions.first]
        source = self._reading.layers[self._objective.layer]
        source = source[here.source[:, 1].to(source.device)].to(states.device)
        with torch.enable_grad():
            leaf = states.detach().requires_grad_(True)
            text = leaf[:, : self._reading.length]  # without the branches
            loss = state_loss(text.flatten(0, 1)[here.student[:, 1]], source)
            (gradient,) = torch.autograd.grad(loss, leaf)
        self._means["states"] = loss.detach()
        return with_states(output, self._injected("states", [states], [gradient])[0])

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
            loss = value_loss(mine, self._source_attention, self._reading.positions, self._reading.length, own)
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        self._means["values"] = loss.detach()
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
        """Add the sums of the last batch, and free the source's reading."""
        n = self._means.pop("positions", None)
        if n is not None:
            for place, name in enumerate(WEIGHTS):
                if name in self._means:
                    self._sums[place] += float(self._means[name]) * int(n)
            self._sums[-1] += int(n)
        self._means.clear()
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
