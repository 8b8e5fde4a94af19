"""The gallery: recorded runs that ship with the package, so that every panel has something true to show at once.

A recorded run is a run folder like any other, made by `tokalign-lab gallery record` from real runs; its `run.json` says
so under "recorded". It lies in the package and not among the user's runs, is read and never written, and keeps what
people look at: events, scores, the lexicon, the places of tokens on both maps, the diagnosis. What it does not keep it
says (its "left_out"). Titles begin with "Recorded: ", folders with "recorded-".
"""

from __future__ import annotations

from typing import Any

from tokalign_lab.runs.control import gallery_root, list_runs
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import align_run_of, made_by

PACKAGES = ("tokalign-lab", "torch", "transformers")


def recorded_runs() -> list[RunFolder]:
    """Every recorded run of the package, in the order of the work: align, rearrange, measure, tune, longest first."""
    order = ("align", "rearrange", "measure", "adapt")

    def place(run: RunFolder) -> tuple[int, int, str]:
        info = run.info()
        return order.index(info["kind"]), -info["settings"].get("steps", 0), info["created"]

    return sorted(list_runs(gallery_root()), key=place)


def recorded_run(name: str) -> RunFolder | None:
    """Return the recorded run whose folder has this name, None where there is none."""
    run = RunFolder(gallery_root() / name)
    return run if name and (run.path / "run.json").is_file() else None


def recorded_chains() -> list[dict[str, RunFolder]]:
    """Whole ways from a pair to a tuned model: for each recorded tuning the runs it rests on, by kind."""
    chains = []
    for run in recorded_runs():
        before = made_by(run) if run.info()["kind"] == "adapt" else None
        first = align_run_of(run)
        if before is not None and first is not None:
            chains.append({"align": first, "rearrange": before, "adapt": run})
    return chains


def recorded_words(info: dict[str, Any]) -> str:
    """Say of a recorded run that it is one: when, how and where it was made, and what is not in it.

    Parameters
    ----------
    info
        What `RunFolder.info` returns.

    Returns
    -------
    str
        Sentences; empty for a run that is not recorded.
    """
    told = info.get("recorded")
    if not told:
        return ""
    versions = ", ".join(f"{name} {info['versions'][name]}" for name in PACKAGES if name in info["versions"])
    return (
        f"Recorded run, not one of yours: made on {info['created'][:10]} by `{told['command']}` on "
        f"{told['machine']}, with {versions}. It can be looked at and compared, not changed or resumed. "
        f"Not in it: {told['left_out']}."
    )
