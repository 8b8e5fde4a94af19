"""What the folder of a tuned model records about its training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tokalign_lab.adaptation.guard import Guard
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.documents import Document, n_bytes, text_hash
from tokalign_lab.model.load import files_of
from tokalign_lab.provenance import read_record


def card_of(
    model_name: str, settings: AdaptSettings, train: Sequence[Document], guard: Guard, processes: int
) -> dict[str, Any]:
    """Describe a tuned model and the origin of the model that was tuned.

    Returns the card for `save_model`. Its `scores` are those of the kept step; names that end in "before" have those of
    the model before tuning.

    Parameters
    ----------
    model_name : the model that was tuned
    settings : of the run
    train : the text
    guard : has the measurements of the run
    processes : how many shared the work
    """
    earlier, best = read_record(files_of(model_name)), guard.best
    training = {
        **{
            name: value
            for name, value in settings.to_dict().items()
            if settings.teacher or not name.startswith(("teacher", "distillation_"))
        },
        "processes": processes,
        "kept_step": best.step,
        "tokens": best.step * settings.sequences(processes) * settings.sequence_length,
        "text_bytes": n_bytes(train),
        "text_hash": text_hash(train),
    }
    kept = ("model", "source_weights", "lexicon", "calibration", "lost", "begin_texts_with")
    origin = {key: earlier[key] for key in kept if earlier.get(key)}
    scores = {}
    for one, when in ((guard.measured[0], "_before"), (best, "")):
        scores[f"bits_per_byte{when}"] = one.bits_per_byte
        if not math.isnan(one.answered):
            scores[f"probes_answered{when}"] = one.answered
    return {"model": model_name, **origin, "training": training, "scores": scores}
