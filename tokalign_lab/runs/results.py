"""Results of runs, read from their folders: the lexicon of a run, its scores, its last measurement.

An align run makes a lexicon, a rearrange run names the lexicon, and an adapt run names the rearranged model. Two runs
are compared by the lexicons at the start of these chains.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.diagnosis import Diagnosis
from tokalign_lab.evaluation.finding import Finding
from tokalign_lab.files import from_home
from tokalign_lab.provenance import read_record
from tokalign_lab.runs.control import find_run, gallery_root, list_runs
from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.settings.kinds import MeasuredTextSettings, text_of


def lexicon_path(run: RunFolder) -> Path | None:
    """Return the file of the lexicon that a run made or used; None if it does not exist (any more)."""
    info = run.info()
    settings = info["settings"]
    if info["kind"] == "align":
        path = run.path / "alignment" / "lexicon.parquet"
    elif info["kind"] == "rearrange":
        path = run.place(settings.get("lexicon") or "")
    elif info["kind"] == "adapt":
        before = made_by(run)
        return lexicon_path(before) if before is not None else None
    else:
        return None
    return path if path.is_file() else None


_NEEDED = {"align": "alignment/lexicon.parquet", "rearrange": "model/config.json", "adapt": "model/config.json"}


def has_result(run: RunFolder) -> bool:
    """Whether a run of a lab's chain has finished and its lexicon or model is still in its folder."""
    return run.state == "finished" and (run.path / _NEEDED[run.info()["kind"]]).is_file()


def lost_result(run: RunFolder) -> bool:
    """Whether a run has finished, but its lexicon or model was deleted; a recorded run never had one to use."""
    return run.state == "finished" and not run.recorded and not has_result(run)


def check_result(run: RunFolder) -> None:
    """Raise `InputError` if a run has finished, but its lexicon or model was deleted."""
    if lost_result(run):
        made = "lexicon" if run.info()["kind"] == "align" else "model"
        raise InputError(f"The {made} of the run {run.title} was deleted; delete that run, then make the {made} again.")


def made_by(run: RunFolder) -> RunFolder | None:
    """Return the run that made the model which a run tuned; None if there is no such run (any more)."""
    before = RunFolder(run.place(run.info()["settings"].get("model") or "").parent)
    return before if before.exists else None


def align_run_of(run: RunFolder) -> RunFolder | None:
    """Return the align run of the lexicon that a run made or used; None if the lexicon is not from a run."""
    file = lexicon_path(run)
    first = None if file is None else RunFolder(file.parent.parent)
    return first if first is not None and first.exists else None


def model_of_lexicon(run: RunFolder) -> Path | None:
    """Return the newest model that a rearrange run in the same folder made from an align run's lexicon; None if none.

    Models of edited lexicons are excluded.
    """
    lexicon = lexicon_path(run)
    for other in list_runs(run.path.parent):
        if other.info()["kind"] == "rearrange" and has_result(other) and lexicon_path(other) == lexicon:
            return other.path / "model"
    return None


def diagnosis_of(run: RunFolder) -> Diagnosis | None:
    """Return the diagnosis stored with a run; None if there is none."""
    try:
        stored = json.loads((run.path / "diagnosis.json").read_text(encoding="utf-8"))
        return Diagnosis([Finding(**finding) for finding in stored["findings"]])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


@dataclass(frozen=True)
class ModelRecord:
    """What a rearrange run's model records about itself.

    Attributes
    ----------
    vocabulary : number of tokens of the source and of the target
    nats : loss before and after calibration on the text that it read, nats per token; None without calibration
    lost : what the model does not keep of the source model, one sentence each
    size : bytes of its weights
    """

    vocabulary: tuple[int, int]
    nats: tuple[float, float] | None
    lost: tuple[str, ...]
    size: int


def model_record_of(run: RunFolder) -> ModelRecord | None:
    """Return the description of a rearrange run's model; None if it does not exist, or its record is damaged."""
    folder = run.path / "model"
    record = read_record(folder)
    fitted = record.get("calibration")
    try:
        return ModelRecord(
            (int(record["lexicon"]["source"]["size"]), int(record["tokenizer"]["size"])),
            None if fitted is None else (float(fitted["nats_before"]), float(fitted["nats_after"])),
            tuple(str(sentence) for sentence in record["lost"]),
            sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        )
    except (OSError, ArithmeticError, ValueError, TypeError, KeyError):
        return None


def scores_of(run: RunFolder) -> dict[str, Any]:
    """Return an align run's `scores.json`; empty if it is missing or damaged."""
    try:
        scores = dict(json.loads((run.path / "scores.json").read_text(encoding="utf-8")))
        sum(scores.get("seconds", {}).values())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return scores


def last_evaluation(run: RunFolder) -> Event | None:
    """Return the newest measurement of a run's model: bits per byte, and by slice; None before the first."""
    measured = run.curve("evaluation")
    return measured[-1] if measured else None


def measured_otherwise(a: RunFolder, b: RunFolder) -> list[str]:
    """Name the settings that make two runs measure on different text; empty if the text is the same."""
    one, two = (text_of(run.settings(), MeasuredTextSettings) for run in (a, b))
    return [name for name in one if one[name] != two[name]]


def recipes_table(
    source: str, target: str, root: Path | str | None = None, recorded: bool = False
) -> list[dict[str, Any]]:
    """List every recipe with the results of align runs of this pair.

    Returns, in the order of `RECIPES`, for each of its runs (the newest first) `recipe`, `run` (its path), `name`,
    `state`, `text`, `max_bytes`, `seed`, `seconds`, and `scores` (`scores.json`). A recipe without a run has one row
    with `run` None and the state "not aligned".

    Parameters
    ----------
    source, target : names as in the runs' settings
    root : the folder of runs, as for `list_runs`
    recorded : whether recorded runs are listed too, after the others
    """
    empty: dict[str, Any] = {"run": None, "name": "", "state": "not aligned", "text": [], "scores": {}}
    empty |= dict.fromkeys(("max_bytes", "seed", "seconds"))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RECIPES}
    for run in [*list_runs(root), *(list_runs(gallery_root()) if recorded else [])]:
        info = run.info()
        settings = info["settings"]
        if info["kind"] != "align" or (settings.get("source"), settings.get("target")) != (source, target):
            continue
        scores = scores_of(run)
        recipe = settings.get("recipe", "anchored")
        row = {"recipe": recipe, "run": str(run.path), "name": run.name, "state": info["state"], "scores": scores}
        row |= {name: settings.get(name, usual) for name, usual in (("text", []), ("max_bytes", None), ("seed", 0))}
        runs.setdefault(recipe, []).append({**row, "seconds": sum(scores.get("seconds", {}).values()) or None})
    return [row for name, found in runs.items() for row in found or [{"recipe": name, **empty}]]


def lexicon_file(given: RunFolder | Path | str) -> Path:
    """Return the lexicon file of a run, or the file itself. Raises `InputError` if there is none."""
    found = resolve(given)
    file = found if isinstance(found, Path) else lexicon_path(found)
    if file is None:
        raise InputError(f"The run '{found}' has no lexicon; name a run of align, rearrange or adapt, or a lexicon.")
    return file


def resolve(given: RunFolder | Path | str) -> RunFolder | Path:
    """Return the run or the lexicon file of a path or a name. Raises `InputError` if it is neither."""
    if isinstance(given, RunFolder):
        return given
    path = from_home(given)
    if path.is_file():
        return path
    try:
        return find_run(path)
    except InputError:
        raise InputError(
            f"'{path}' is neither a run nor a lexicon; give a run's name or folder, or a .parquet file."
        ) from None
