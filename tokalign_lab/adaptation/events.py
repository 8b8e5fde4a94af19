"""Events of a tuning run.

- `step`: step, stage, loss, learning_rate, grad_norm, tokens, tokens_per_second, bytes_per_second (UTF-8 bytes of the
  text read), memory_bytes (peak memory of the GPU, or current memory of the process), seconds_left, and the parts of
  the loss if it has several (`ChunkedLoss.means`).
- `evaluation`: bits_per_byte of held-out text, in total and by slice; the share of `probes` that the model answers, and
  the probes that it does not answer.
- `sample`: a prompt and its continuation.

Steps are counted over both stages, from 1 to `steps`. The evaluation at step 0 is of the model before tuning.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokalign_lab.adaptation.divergence import Diverged, LossWatch
from tokalign_lab.adaptation.processes import Processes
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.stages import Stage
from tokalign_lab.evaluation.head import evaluation_mode, plain_generation
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Emit = Callable[[dict[str, Any]], None]
Interrupt = Callable[[], None]


@dataclass(eq=False)
class Reporter(TrainerCallback):  # type: ignore[misc]  # mypy does not read transformers
    """Turns the trainer's callbacks into events, and stops the trainer.

    Attributes
    ----------
    stage : the current stage
    settings : sizes, to count tokens and to decide when to evaluate
    watch : detects divergence
    emit : receives the events
    interrupt : called when a step has ended; it may raise to stop the run, which then writes a checkpoint first
    evaluate : called with the step when a measurement is due; returns whether to end the stage
    bytes_of : returns the bytes of text that a step of this stage reads
    parts : returns the parts of the loss of the last step, by name; empty if there is only the next-token loss
    processes : the processes that share the work
    stop : the reason to end the run
    """

    stage: Stage
    settings: AdaptSettings
    watch: LossWatch
    emit: Emit
    interrupt: Interrupt
    evaluate: Callable[[int], bool]
    bytes_of: Callable[[int], int]
    parts: Callable[[], dict[str, float]]
    processes: Processes
    stop: BaseException | None = None
    _started: float = 0.0
    _seconds: float = 0.0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock; stop now if there is nothing to save."""
        if not self._recent:
            self._check_stop()
        if self.stop is not None:
            raise self.stop
        self._started = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the clock; if the run is to stop, request a checkpoint."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._seconds = time.perf_counter() - self._started
        self._recent.append(self._seconds)
        self._check_stop(control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the last step; raise if the run has diverged."""
        if not logs or "loss" not in logs:
            return
        step = self.stage.first_step + state.global_step
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        parts = self.parts()
        event = self._step_event(step, state.global_step, loss, norm, float(logs["learning_rate"]))
        self.emit({**event, **parts})
        # the next-token loss decides: the divergence has another scale
        wrong = self.watch.add(parts.get("next_token", loss) if math.isfinite(loss + norm) else math.nan)
        if wrong:
            raise Diverged(
                f"The loss {wrong} at step {step} (stage {self.stage.number}); a checkpoint that was saved before is "
                f"kept. Lower learning_rate_stage{self.stage.number}, now {self.stage.learning_rate}, and start "
                "again."
            )
        if self.watch.in_doubt:
            control.should_save = False
        every = self.settings.evaluate_every
        last = step == self.stage.first_step + self.stage.steps
        if self.stop is None and (last or (every and step % every == 0)):
            try:
                if self.evaluate(step):
                    control.should_training_stop = control.should_save = True
            except Exception:
                raise
            except BaseException as stop:  # cancelled: the step is done and is not thrown away
                self.stop = stop
        self._check_stop(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop if requested, now that a checkpoint is written."""
        if self.stop is not None:
            raise self.stop

    def _check_stop(self, control: TrainerControl | None = None) -> None:
        """Check whether any process is to stop."""
        try:
            self.interrupt()
        except Exception:
            raise
        except BaseException as stop:
            self.stop = self.stop or stop
        self.stop = self.processes.agree(self.stop)
        if self.stop is not None and control is not None and not self.watch.in_doubt:
            control.should_save = True

    def _step_event(self, step: int, of_stage: int, loss: float, norm: float, learning_rate: float) -> dict[str, Any]:
        settings = self.settings
        tokens = settings.sequences(self.processes.count) * settings.sequence_length
        seconds = max(self._seconds, 1e-9)
        return {
            "kind": "step",
            "step": step,
            "stage": self.stage.number,
            "loss": loss,
            "learning_rate": learning_rate,
            "grad_norm": norm,
            "tokens_per_second": round(tokens / seconds, 2),
            "bytes_per_second": round(self.bytes_of(of_stage) / seconds, 2),
            "memory_bytes": _memory(),
            "tokens": step * tokens,
            "seconds_left": round(statistics.median(self._recent or [seconds]) * (settings.steps - step), 1),
            "share": step / settings.steps,
            "message": f"step {step} of {settings.steps}",
        }


def _memory() -> int:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated()
    return int(psutil.Process().memory_info().rss)


def continue_text(model: PreTrainedModel, vocabulary: Vocabulary, prompt: str, tokens: int) -> str:
    """Continue a prompt greedily by at most `tokens` tokens; the same every time."""
    ids = [*vocabulary.start_ids, *vocabulary.encode([prompt])[0].tolist()]
    if not ids:
        return ""
    with evaluation_mode(model), plain_generation(model), torch.inference_mode():
        inputs = torch.tensor([ids], device=model.get_input_embeddings().weight.device)
        made = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=tokens,
            do_sample=False,
            tokenizer=vocabulary.tokenizer,  # for a generation_config with stop_strings
            pad_token_id=vocabulary.roles.get("pad", vocabulary.roles.get("eos", 0)),
        )
    return vocabulary.decode(made[0, len(ids) :].tolist())
