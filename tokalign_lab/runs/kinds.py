"""The kinds of runs: for each its settings class, the function that does its work, and the command that repeats it.

The worker imports this module after it has reported itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tokalign_lab import pipeline
from tokalign_lab.adaptation.settings import AdaptRunSettings
from tokalign_lab.errors import InputError
from tokalign_lab.files import plain, write_json
from tokalign_lab.progress import part
from tokalign_lab.settings.fields import Settings
from tokalign_lab.settings.kinds import (
    AdviseSettings,
    AlignSettings,
    CompareSettings,
    MeasureSettings,
    PartScoreSettings,
    ProjectSettings,
    RearrangeSettings,
)

if TYPE_CHECKING:
    from tokalign_lab.runs.worker import RunContext


class Kind(NamedTuple):
    """A kind of run.

    Attributes
    ----------
    settings : its settings class
    work : the function that does its work in the run's folder
    result : the option for the result in the command of the same name; empty if there is no such command
    """

    settings: type[Settings]
    work: Callable[[Any, RunContext], None]
    result: tuple[str, ...] = ()


def align_kind(settings: AlignSettings, context: RunContext) -> None:
    """Align two tokenizers on a text; writes `alignment/` and `scores.json`."""
    pipeline.check_align(settings)
    text = pipeline.read_pair(settings)
    done = pipeline.align_text(text, settings, part(context.progress, 0.0, 0.7))
    done.save(context.folder.path / "alignment")
    values = pipeline.score_alignment(text, done, settings, part(context.progress, 0.7, 1.0))
    done.lexicon.save(context.folder.path / "alignment" / "lexicon.parquet")  # its provenance has the scores now
    write_json(context.folder.path / "scores.json", values)
    context.emit({"kind": "scores", **values})
    context.progress(1.0, "aligned")


def rearrange_kind(settings: RearrangeSettings, context: RunContext) -> None:
    """Give a model the lexicon's target vocabulary; writes a model folder, `model/` unless `out` names another.

    If the model cannot be calibrated, it is made without calibration, and the event "note" gives the reason.
    """
    from tokalign_lab.model.calibrate import CannotCalibrate

    out = Path(settings.out or context.folder.path / "model")
    try:
        pipeline.rearrange(settings, out, context.progress)
        return
    except CannotCalibrate as error:  # the traceback refers to the model, so the second try is outside
        context.emit({"kind": "note", "text": f"The model is not calibrated: {error}"})
    pipeline.rearrange(replace(settings, calibrate=None), out, context.progress)


def adapt_kind(settings: AdaptRunSettings, context: RunContext) -> None:
    """Tune a model; writes checkpoints and `model/`."""
    from tokalign_lab.adaptation.train import adapt

    pipeline.check_tune(settings)
    adapt(
        settings.model,
        settings.text,
        settings.tuning,
        context.folder.path,
        emit=context.emit,
        interrupt=context.interrupt,
        resume=context.resume,
        max_bytes=settings.max_bytes,
        device=settings.device,
    )


def project_kind(settings: ProjectSettings, context: RunContext) -> None:
    """Project saved token vectors to two dimensions; the result is stored in the cache of `tokalign_lab.projection`."""
    from tokalign_lab.projection import FIT_ON, project
    from tokalign_lab.vectors.token_vectors import TokenVectors

    vectors = [TokenVectors.load(Path(path)) for path in settings.vectors]
    fit_on = FIT_ON if settings.fit_on is None else settings.fit_on
    project(vectors, settings.method, settings.shared, fit_on, settings.seed, progress=context.progress)
    context.progress(1.0, "laid out")


def measure_kind(settings: MeasureSettings, context: RunContext) -> None:
    """Measure a model with its own tokenizer; emits one `evaluation` event.

    The result for the source model is the reference for tuning.
    """
    found = pipeline.measure(settings, context.progress)
    figures = {"bits_per_byte": found.bits_per_byte, "by_slice": found.by_slice, "bytes": found.bytes}
    context.emit({"kind": "evaluation", "step": 0, **figures})


def score_kind(settings: PartScoreSettings, context: RunContext) -> None:
    """Score a lexicon and parts of it on the held-out text of its align run; writes `scores.json`."""
    scores = pipeline.score_parts(settings, context.progress)
    write_json(context.folder.path / "scores.json", plain(asdict(scores)))
    context.progress(1.0, "scored")


def compare_kind(settings: CompareSettings, context: RunContext) -> None:
    """Score two lexicons on the same held-out documents; writes `scores.json`, by measure and direction."""
    found = pipeline.compare_scores(settings, context.progress)
    values = {measure: {way: one.to_dict() for way, one in by_way.items()} for measure, by_way in found.items()}
    write_json(context.folder.path / "scores.json", values)
    context.progress(1.0, "compared")


def advise_kind(settings: AdviseSettings, context: RunContext) -> None:
    """Estimate whether a swap is worth it; writes `advice.json`."""
    write_json(context.folder.path / "advice.json", pipeline.advise(settings, context.progress).to_dict())
    context.progress(1.0, "judged")


KINDS: dict[str, Kind] = {
    "advise": Kind(AdviseSettings, advise_kind),
    "align": Kind(AlignSettings, align_kind, ("--out", "lexicon.parquet")),
    "rearrange": Kind(RearrangeSettings, rearrange_kind, ("--out", "model")),
    "adapt": Kind(AdaptRunSettings, adapt_kind, ("--run", "runs/again")),
    "compare": Kind(CompareSettings, compare_kind),
    "project": Kind(ProjectSettings, project_kind),
    "measure": Kind(MeasureSettings, measure_kind),
    "score": Kind(PartScoreSettings, score_kind),
}


def check_kind(kind: str, settings: Mapping[str, Any]) -> None:
    """Raise `InputError` if there is no such kind of run, or it does not take these settings."""
    kind_of(kind).settings.from_dict(settings)


def run_kind(kind: str, settings: Mapping[str, Any], context: RunContext) -> None:
    """Do the work of one run, in this process; `settings` are those of its `run.json`."""
    found = kind_of(kind)
    found.work(found.settings.from_dict(settings), context)


def kind_of(name: str) -> Kind:
    """Return the kind of that name; `InputError` when there is none."""
    if name not in KINDS:
        raise InputError(f"There is no kind of run named {name!r}; the kinds are {', '.join(sorted(KINDS))}.")
    return KINDS[name]


def command_of(info: Mapping[str, Any]) -> str:
    """Return the shell command that repeats a run, from what `RunFolder.info` returns.

    For a kind without a command, it is a line of Python that starts such a run.
    """
    kind, settings = info["kind"], dict(info["settings"])
    found = kind_of(kind)
    if not found.result:
        return f"python -c {shlex.quote(f'from tokalign_lab.runs.control import start; start({kind!r}, {settings!r})')}"
    given = [one for one in found.settings.options() if one.name in settings and one.name != "out"]
    given.sort(key=lambda one: bool(one.flag))  # arguments first
    words = [word for one in given for word in one.words(settings[one.name])]
    return shlex.join(["tokalign-lab", kind, *words, *found.result])
