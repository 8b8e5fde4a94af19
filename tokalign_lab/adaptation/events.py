"""What a tuning run tells while it works.

`step` events carry step, stage, loss, learning_rate, grad_norm, tokens_per_second and tokens; `evaluation` events
bits_per_byte (and by slice) of held-out text; `sample` events a prompt and its continuation. Steps are counted over
both stages: 1 to `steps`; an evaluation at step 0 is the model as it came.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.stages import Stage
from tokalign_lab.documents import Document
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Emit = Callable[[dict[str, Any]], None]
Interrupt = Callable[[], None]


class Diverged(RuntimeError):
    """The loss is no longer a number; the message says when and what to try."""


class Reporter(TrainerCallback):  # type: ignore[misc]  # mypy does not read transformers
    """Turns the trainer's life into events.

    Parameters
    ----------
    stage
        The stage that runs.
    settings
        Sizes, for counting tokens and knowing when to evaluate.
    emit
        Takes the events.
    interrupt
        Called at every step boundary; it may raise to stop the run.
    evaluate
        Called with the step when it is time to measure.
    """

    def __init__(
        self,
        stage: Stage,
        settings: AdaptSettings,
        emit: Emit,
        interrupt: Interrupt,
        evaluate: Callable[[int], None],
    ) -> None:
        self._stage = stage
        self._settings = settings
        self._emit = emit
        self._interrupt = interrupt
        self._evaluate = evaluate
        self._started = 0.0
        self._seconds = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look for a cancellation and start the clock."""
        self._interrupt()
        self._started = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the clock."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._seconds = time.perf_counter() - self._started

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the step that has ended; raise when its loss is not a number."""
        if not logs or "loss" not in logs:
            return
        step = self._stage.first_step + state.global_step
        per_step = self._settings.batch_size * self._settings.sequence_length
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        self._emit(
            {
                "kind": "step",
                "step": step,
                "stage": self._stage.number,
                "loss": loss,
                "learning_rate": float(logs["learning_rate"]),
                "grad_norm": norm,
                "tokens_per_second": round(per_step / max(self._seconds, 1e-9), 2),
                "tokens": step * per_step,
                "share": step / self._settings.steps,
                "message": f"step {step} of {self._settings.steps}",
            }
        )
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"The loss is not a number at step {step} (stage {self._stage.number}); lower "
                f"learning_rate_stage{self._stage.number}, now "
                f"{self._stage.learning_rate}, and start again."
            )
        every = self._settings.evaluate_every
        last = step == self._stage.first_step + self._stage.steps
        if last or (every and step % every == 0):
            self._evaluate(step)
        self._interrupt()


class Evaluator:
    """Measures held-out text and continues the prompts, without touching the random numbers of training."""

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: Vocabulary,
        documents: Sequence[Document],
        settings: AdaptSettings,
        emit: Emit,
        interrupt: Interrupt,
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._documents = documents
        self._settings = settings
        self._emit = emit
        self._interrupt = interrupt
        self.latest: dict[str, Any] = {}

    def __call__(self, step: int, stage: int) -> None:
        """Emit one `evaluation` event, and a `sample` event for each prompt."""
        result = bits_per_byte(
            self._model, self._vocabulary, self._documents, progress=lambda share, message: self._interrupt()
        )
        self.latest = {"bits_per_byte": result.bits_per_byte, "by_slice": result.by_slice}
        self._emit({"kind": "evaluation", "step": step, "stage": stage, "bytes": result.bytes, **self.latest})
        for prompt in self._settings.prompts:
            self._interrupt()
            text = continue_text(self._model, self._vocabulary, prompt, self._settings.sample_tokens)
            self._emit({"kind": "sample", "step": step, "stage": stage, "prompt": prompt, "text": text})


def continue_text(model: PreTrainedModel, vocabulary: Vocabulary, prompt: str, tokens: int) -> str:
    """Continue a prompt greedily by at most `tokens` tokens; the same every time."""
    bos = vocabulary.roles.get("bos", vocabulary.roles.get("eos"))
    ids = [*([] if bos is None else [bos]), *vocabulary.encode([prompt])[0].tolist()]
    if not ids:
        return ""
    was_training = model.training
    model.eval()
    try:
        inputs = torch.tensor([ids], device=model.get_input_embeddings().weight.device)
        pad = vocabulary.roles.get("pad", vocabulary.roles.get("eos", 0))
        with torch.inference_mode():
            made = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=pad,
            )
    finally:
        model.train(was_training)
    return vocabulary.decode(made[0, len(ids) :].tolist())
