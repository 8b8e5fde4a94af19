"""Record the gallery: real runs of the default pair, packed into small run folders that ship with the package.

SmolLM2-135M-Instruct gets the 32,000-token SentencePiece vocabulary. The pair is aligned by "anchored" and, for
comparison, by "pieces". The model is rearranged by the first lexicon, calibrated, and tuned twice on the same number of
tokens: by the default recipe and by the papers'. Each run has its own process, as a user's run does. Then the files for
the panels are copied, the token vectors are projected to two maps, and the gallery is written atomically. Each run
lists what was left out (see `runs.gallery` and docs/decisions/0012-recorded-runs-are-run-folders.md).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from tokalign_lab import catalog
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.device import describe_device
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.diagnosis import diagnose
from tokalign_lab.files import atomic_folder, bytes_below, check_replaceable, holds_only, write_json
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.projection import METHODS, share_a_space, ship
from tokalign_lab.runs.control import check_finished
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import MARK, recorded_words
from tokalign_lab.vectors.token_vectors import TokenVectors

COMMAND = "tokalign-lab gallery record"
SOURCE, TARGET = "smollm2-135m", "sp32k"
LEFT_OUT = {
    "align": "the token vectors (only their places on both maps), the tokenizers (only their tokens), the text",
    "rearrange": "the model",
    "measure": "the model, the text",
    "adapt": "the model, its checkpoints, the text",
}
_TEXT = {"text": ["default"], "max_bytes": 6_000_000, "seed": 0}  # as in `make demo`
PAPERS_BATCH = 4  # sequences per step of the papers' recipe; the default recipe reads one
ALIVE_S = 10  # minimum seconds between two packed events if the later one is a heartbeat
_KEPT_EVENTS = ("device", "source", "stage", "step", "evaluation", "sample", "scores", "kept", "note", "ended")
_WHILE_RUNNING = {"share", "message", "seconds_left"}
_ROUNDED = {"margin", "candidate_scores", "weights", "mean_weight", "output_weights", "output_mean_weight"}
_KEPT_BITS = 11  # of the 23 of a float32's fraction: an error of at most 1 in 4,000


class Recorded(NamedTuple):
    """A run of the gallery: its folder's name, its title, its kind and its settings."""

    name: str
    title: str
    kind: str
    settings: dict[str, Any]


def plan(steps: int) -> list[Recorded]:
    """Return the runs in their order; paths in their settings are relative to the gallery's folder.

    Parameters
    ----------
    steps : optimiser steps of the default recipe; the papers' recipe reads as many tokens in a quarter of the steps
    """

    def tuning(recipe: str, n: int, batch_size: int) -> dict[str, Any]:
        return {
            "model": "recorded-rearrange-anchored/model", **_TEXT, "recipe": recipe, "steps": n,
            "batch_size": batch_size, "sequence_length": 128, "evaluate_every": max(1, n // 10), "save_every": n,
        }  # fmt: skip

    pair = {"source": SOURCE, "target": TARGET, **_TEXT}
    rows = {"model": SOURCE, "lexicon": "recorded-align-anchored/alignment/lexicon.parquet", "calibrate": ["default"]}
    papers = tuning("papers", max(1, steps // PAPERS_BATCH), PAPERS_BATCH)
    return [
        Recorded(f"recorded-{name}", MARK + title, kind, settings)
        for name, title, kind, settings in (
            ("align-anchored", "aligned by anchored", "align", {**pair, "recipe": "anchored"}),
            ("rearrange-anchored", "rearranged and calibrated", "rearrange", rows),
            ("adapt-recover", "tuned by the default recipe", "adapt", tuning("recover", steps, 1)),
            ("adapt-papers", "tuned by the papers' recipe", "adapt", papers),
            ("measure-source", "the source model (reference)", "measure", {"model": SOURCE, **_TEXT}),
            ("align-pieces", "aligned by pieces", "align", {**pair, "recipe": "pieces"}),
        )
    ]


def record_gallery(out: Path, work: Path, steps: int = 1000, progress: Progress = silent) -> dict[str, Any]:
    """Run the gallery's runs and pack them.

    Returns "gallery" (its path), "bytes", "runs" (name to seconds). Raises `InputError` if `out` has other files, if
    `work` has a run of the same name with other settings, or if a run fails because of bad input. Raises `RunEnded` if
    a run does not finish for another reason.

    Parameters
    ----------
    out : folder of the gallery; replaced when the new one is complete
    work : folder for the runs themselves, about 2 GB. Finished runs in it are reused, so that an interrupted recording
        continues.
    steps : as for `plan`
    progress : called with the share that is done
    """
    planned = plan(steps)
    check_replaceable(out, _is_gallery)
    seconds = {}
    for number, one in enumerate(planned):
        made = part(progress, 0.9 * number / len(planned), 0.9 * (number + 1) / len(planned))
        seconds[one.name] = _finish(one, work, made)
    pack_gallery(out, work, planned, f"{COMMAND} --steps {steps}", part(progress, 0.9, 1.0))
    return {"gallery": str(out), "bytes": bytes_below(out), "runs": seconds}


def _finish(one: Recorded, work: Path, progress: Progress) -> float:
    """Start or resume a run and wait for it, unless it has finished already; returns its seconds."""
    run = RunFolder(work / one.name)
    if not run.exists:
        run = RunFolder.create(run.path, one.kind, one.settings)
        run.update(cwd=str(work.resolve()))
    elif run.info()["settings"] != one.settings:
        raise InputError(f"'{run.path}' is a run of other settings; choose another --work.")
    if run.state != "finished":
        run.start(resume=run.state != "queued")
        run.wait(progress)
        check_finished(run)
    times = [event["time"] for event in run.events()[0]]
    return round(times[-1] - times[0], 1) if times else 0.0


def pack_gallery(out: Path, work: Path, planned: Sequence[Recorded], command: str, progress: Progress = silent) -> None:
    """Copy the files that panels need from the finished runs in `work`, and mark the runs as recorded by `command`.

    `out`, the gallery's folder, is written atomically.
    """
    with atomic_folder(out, _is_gallery) as folder:
        for number, one in enumerate(planned):
            progress(number / len(planned), f"packing {one.name}")
            run, packed = RunFolder(work / one.name), folder / one.name
            packed.mkdir()
            mark = {"command": command, "machine": machine_description(run), "left_out": LEFT_OUT[one.kind]}
            info = {**run.info(), "pid": None, "pid_started": None, "cwd": "..", "recorded": mark}
            write_json(packed / "run.json", info)
            (packed / "title.txt").write_text(one.title, encoding="utf-8")
            _pack_events(run, packed)
            if (run.path / "scores.json").is_file():
                shutil.copyfile(run.path / "scores.json", packed / "scores.json")
            if one.kind == "align":
                _pack_alignment(run, packed, recorded_words(info))


def _is_gallery(folder: Path) -> bool:
    return holds_only(folder, "recorded-align-anchored", r"recorded-[\w-]+|tokens-[0-9a-f]+\.json\.xz|layouts")


def machine_description(run: RunFolder) -> str:
    """Describe this machine and the device that a run used, which its speeds depend on."""
    memory = psutil.virtual_memory().total / 2**30
    used = next((event["device"] for event in run.events()[0] if event.get("kind") == "device"), describe_device())
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, {used}"


def _pack_events(run: RunFolder, packed: Path) -> None:
    """Keep the measurements, rounded, and a heartbeat every `ALIVE_S`; drop fields that matter only during a run."""
    kept: list[dict[str, Any]] = []
    for event in run.events()[0]:
        alive = event.get("kind") == "heartbeat" and (not kept or event["time"] - kept[-1]["time"] > ALIVE_S)
        if alive or event.get("kind") in _KEPT_EVENTS:
            kept.append({name: _short(name, value) for name, value in event.items() if name not in _WHILE_RUNNING})
    lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept)
    (packed / "events.jsonl").write_text(lines, encoding="utf-8")


def _short(name: str, value: Any) -> Any:
    """Round the floats of an event to five significant digits, except its time."""
    if isinstance(value, dict):
        return {key: _short(key, one) for key, one in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) and name != "time" else value


def _pack_alignment(run: RunFolder, packed: Path, words: str) -> None:
    """Store lexicon, diagnosis and counts in the run, tokens and layouts in the gallery's folder."""
    alignment = Alignment.load(run.path / "alignment")
    lexicon, source, target = alignment.lexicon, alignment.source_vectors, alignment.target_vectors
    vectors = None if source is None or target is None else (source, target)
    vocabularies = [catalog.load_vocabulary(lexicon.provenance[side]["name"]) for side in ("source", "target")]
    found = diagnose(lexicon, vocabularies[0], vocabularies[1], vectors)
    (packed / "diagnosis.json").write_text(json.dumps(found.to_dict(), ensure_ascii=False), encoding="utf-8")
    for side, vocabulary in zip(("source", "target"), vocabularies, strict=True):
        file = f"tokens-{vocabulary.fingerprint[:12]}.json.xz"
        vocabulary.save_tokens(packed.parent / file)
        lexicon.provenance[side]["tokens"] = f"../../{file}"
    lexicon.provenance["recorded"] = words
    if vectors is not None and share_a_space(*vectors):
        for method in METHODS:
            ship(packed.parent / "layouts", vectors, method)
    _save_small(lexicon, vectors, packed / "alignment")


def _save_small(lexicon: Lexicon, vectors: tuple[TokenVectors, TokenVectors] | None, folder: Path) -> None:
    """Save an alignment without its vectors, with rounded weights and scores (displayed with three digits)."""
    table = lexicon.table
    for name in _ROUNDED & set(table):
        table[name] = table[name].map(_rounded) if table[name].dtype == object else _rounded(table[name].to_numpy())
    source, target = [replace(one, rows=one.rows[:, :0]) for one in vectors or ()] or (None, None)
    Alignment(lexicon, source, target).save(folder)


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to float32 with `_KEPT_BITS` bits of fraction; NaN and infinity do not change."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(np.ldexp(fraction, _KEPT_BITS + 1)), exponent - _KEPT_BITS - 1).astype(np.float32)
