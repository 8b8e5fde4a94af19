"""The gallery: recorded runs that ship with the package, so that every panel can show real figures immediately.

A recorded run is an ordinary run folder in the package, written by `tokalign-lab gallery record`. The entry "recorded"
in its `run.json` makes it read-only, and names the command, the machine and the omitted files.
Titles begin with `MARK`, folders with "recorded-".
"""

from __future__ import annotations

from typing import Any

from tokalign_lab.runs.control import gallery_root, list_runs
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import align_run_of, made_by

MARK = "Recorded: "
_ORDER = ("align", "rearrange", "measure", "adapt")
_PACKAGES = ("tokalign-lab", "torch", "transformers")


def recorded_runs() -> list[RunFolder]:
    """List the recorded runs of the package in the order align, rearrange, measure, tune (longest first)."""
    runs = [(run, run.info()) for run in list_runs(gallery_root())]
    runs.sort(key=lambda one: (_ORDER.index(one[1]["kind"]), -one[1]["settings"].get("steps", 0), one[1]["created"]))
    return [run for run, _ in runs]


def recorded_run(name: str) -> RunFolder | None:
    """Return the recorded run whose folder has this name, None if there is none."""
    run = RunFolder(gallery_root() / name)
    return run if name and run.exists else None


def recorded_chains() -> list[dict[str, RunFolder]]:
    """List for each recorded tuning run the runs from the pair to its tuned model, by kind."""
    chains = []
    for run in recorded_runs():
        before = made_by(run) if run.info()["kind"] == "adapt" else None
        first = align_run_of(run)
        if before is not None and first is not None:
            chains.append({"align": first, "rearrange": before, "adapt": run})
    return chains


def plain_title(run: RunFolder) -> str:
    """Return a run's title without the mark of a recorded one, for a panel that shows the notice of recorded runs."""
    return run.title.removeprefix(MARK)


def recorded_words(info: dict[str, Any]) -> str:
    """Describe a recorded run in sentences, from what `RunFolder.info` returns; "" for a run that is not recorded."""
    recorded = info.get("recorded")
    if not recorded:
        return ""
    versions = ", ".join(f"{name} {info['versions'][name]}" for name in _PACKAGES if name in info["versions"])
    return (
        f"Recorded run, not one of yours: made on {info['created'][:10]} on {recorded['machine']}. It can be viewed "
        f"and compared, not changed or resumed. Command: `{recorded['command']}`, with {versions}. "
        f"Not in it: {recorded['left_out']}."
    )
