"""Convert a small model to the vocabulary of a large one, and measure it as the draft model of the large one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokalign_lab import pipeline
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_folder
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.settings.kinds import AlignSettings, DraftSettings, RearrangeSettings, text_of

UNFINISHED = ".unfinished-draft"  # a file in the results folder while the results are incomplete


def measure_draft(
    settings: DraftSettings, out: Path | None, progress: Progress = silent
) -> dict[str, list[dict[str, Any]]]:
    """Convert a small model to a large one's vocabulary and measure it as a draft model, on held-out text.

    Returns `DraftScore.to_dict` by slice and decoding for each draft model: "own tokenizer" (the small model as it is),
    "moved" (rearranged), "calibrated" and "recovered"; "as given" for a small model that already has the large one's
    vocabulary. Raises `InputError` if a model or the text cannot be used, a model cannot read so many new tokens, no
    folder is given for the converted models, or the vocabulary of the recovered model is not the large one's.

    Parameters
    ----------
    settings : settings of the command `draft`
    out : folder for the lexicon and the converted models, "moved" and "calibrated"; None if nothing has to be converted
    progress : called at each step with the share that is done
    """
    from tokalign_lab.device import pick_device
    from tokalign_lab.evaluation.drafting import Drafting, prompt_tokens
    from tokalign_lab.evaluation.head import longest_input
    from tokalign_lab.model.load import load_model, load_outline, quiet

    small, large = load_vocabulary(settings.model), load_vocabulary(settings.large)
    small_rows, rows = _rows(settings.model), _rows(settings.large)
    shares = small.fingerprint == large.fingerprint
    given = {"as given": settings.model} if shares else {}
    given |= {"recovered": settings.recovered} if settings.recovered else {}
    for name in given.values():
        if load_vocabulary(name).fingerprint != large.fingerprint or _rows(name) != rows:
            raise InputError(
                f"'{name}' does not have the vocabulary of '{settings.large}' ({rows:,} rows), so it cannot draft "
                "for it; name a model that `draft` or `rearrange --special-tokens target` converted to it."
            )
    limits = [longest_input(load_outline(name)) for name in (settings.large, settings.model, *given.values())]
    longest = min((limit for limit in limits if limit is not None), default=None)
    prompt_tokens(settings.new_tokens, longest)
    text = pipeline.PairText(small, large, settings)
    if not shares:
        if out is None:
            raise InputError(
                f"'{settings.model}' has to be converted first; give --out, a folder for the converted models."
            )
        chosen = text_of(settings.to_dict())
        aligning = AlignSettings.from_dict({**chosen, "source": settings.model, "target": settings.large})
        lexicon = pipeline.align_text(text, aligning, part(progress, 0.0, 0.3)).lexicon
        if out.is_dir():
            (out / UNFINISHED).touch()
        else:
            with atomic_folder(out) as made:  # the folder and its mark in one step
                (made / UNFINISHED).touch()
        lexicon.save(out / "lexicon.parquet")
        for name, calibrate in (("moved", None), ("calibrated", settings.text)):
            rearranging = RearrangeSettings(
                model=settings.model,
                lexicon=str(out / "lexicon.parquet"),
                calibrate=calibrate,
                pad_to_multiple_of=rows,  # transformers requires equally many rows
                special_tokens="target",
                seed=settings.seed,
            )
            pipeline.rearrange(rearranging, out / name, part(progress, 0.3, 0.4))
        given = {name: str(out / name) for name in ("moved", "calibrated")} | given
        if small_rows != rows:  # with equal rows, transformers assumes equal tokenizers
            given = {"own tokenizer": settings.model} | given
    device = pick_device()
    asked = (settings.prompts, settings.new_tokens, settings.seed)
    drafting = Drafting(load_model(settings.large, device), large, text.held_out, *asked, longest)
    scores = {}
    for place, (name, folder) in enumerate(given.items()):
        own = small if name == "own tokenizer" else None
        measuring = part(progress, 0.4 + 0.6 * place / len(given), 0.4 + 0.6 * (place + 1) / len(given))
        with quiet():  # transformers calls its own models in a deprecated way
            scores[name] = [one.to_dict() for one in drafting.score(load_model(folder, device), own, measuring)]
    if out is not None:
        (out / UNFINISHED).unlink(missing_ok=True)
    return scores


def was_interrupted(out: Path) -> bool:
    """Whether an interrupted `measure_draft` left incomplete results in this folder; the next call replaces them."""
    return (out / UNFINISHED).is_file()


def _rows(name: str) -> int:
    from tokalign_lab.model.load import load_outline

    return int(load_outline(name).config.get_text_config().vocab_size)
