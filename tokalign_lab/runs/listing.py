"""The runs of a folder as rows of a table: read when they have changed, and sorted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import ENDED, RunFolder, run_folders
from tokalign_lab.runs.folding import ALL_TEXT
from tokalign_lab.runs.following import Follower
from tokalign_lab.runs.gallery import recorded_runs
from tokalign_lab.runs.words import duration, figure, state_word

_FALLING = ("created", "worked")  # columns that are sorted in descending order first


class RunRow(Follower):
    """One run: its `run.json` and its latest figures."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(run)
        self.title = run.name
        self._seen: tuple[int, ...] = ()

    def read(self) -> None:
        """Read `run.json` and the name if they have changed or the process may have ended.

        Raises `InputError` when the folder holds no run (any more).
        """
        seen = tuple(_changed(self.run.path / name) for name in ("run.json", "title.txt"))
        if seen != self._seen or self.info["state"] not in ENDED:
            self.info, self.title, self._seen = self.run.reconcile(), self.run.title, seen

    @property
    def worked(self) -> float:
        """Seconds from its creation to its end, or to now; nan if unknown."""
        begun, ended = _time(self.info.get("created")), _time(self.info.get("ended"))
        if begun is None:
            return float("nan")
        return ((ended or datetime.now(UTC)) - begun).total_seconds()

    def latest(self) -> str:
        """Return the last figures, or the last message if it reports no figures."""
        if self.info["state"] in ("failed", "lost", "damaged") and self.info.get("error"):
            return str(self.info["error"])
        view, parts, total = self.view, [], self.info["settings"].get("steps")
        if view.steps:
            parts.append(f"step {view.steps[-1]:,}" + (f" of {total:,}" if isinstance(total, int) else ""))
        loss, bits = view.trained.last("loss"), view.measured.last(ALL_TEXT)
        parts += [] if loss is None else [f"loss {figure(loss, 4)}"]
        parts += [] if bits is None else [f"{figure(bits, 4)} bits per byte"]
        return ", ".join(parts) or view.message

    def cells(self) -> list[str]:
        """Return title, kind, status, creation time, duration and the latest figures."""
        made, worked = _time(self.info.get("created")), self.worked
        return [
            self.title,
            str(self.info["kind"]),
            state_word(self.info["state"], self.run.asked, bool(self.info.get("recorded"))),
            "–" if made is None else f"{made.astimezone():%Y-%m-%d %H:%M}",
            "–" if worked != worked or self.info["state"] == "queued" else duration(worked),
            self.latest(),
        ]


class RunList:
    """The runs in the folder `root`, sorted; only those of one `kind` unless it is ""."""

    def __init__(self, root: Path, kind: str = "") -> None:
        self.root, self.kind = root, kind
        self.recorded = False  # whether recorded runs of the package are listed too
        self.sort: tuple[str, str] = ("created", "down")
        self.rows: list[RunRow] = []
        self.kinds: list[str] = []
        self._all: dict[str, RunRow] = {}
        self._keys: dict[str, int] = {}

    def read(self) -> None:
        """Read the folder again; folders without a run are skipped."""
        found = {}
        runs = run_folders(self.root)
        if self.recorded:
            runs += [run for run in recorded_runs() if run.path.parent.resolve() != self.root.resolve()]
        for run in runs:
            name = run.path.name
            if name in found:
                continue  # the user's own copy of a recorded run
            row = self._all.get(name) or RunRow(run)
            try:
                row.read()
            except InputError:
                continue
            found[name] = row
        self._all = found
        self.kinds = sorted({str(row.info["kind"]) for row in found.values()})
        self._order()

    def sort_by(self, key: str) -> None:
        """Sort by a column; a second call with the same column reverses the order."""
        at, direction = self.sort
        first = "down" if key in _FALLING else "up"
        self.sort = (key, first if key != at else ("up" if direction == "down" else "down"))
        self._order()

    def key_of(self, row: RunRow) -> int:
        """Return the number that the browser uses for a run."""
        return self._keys.setdefault(row.run.name, len(self._keys))

    @property
    def only_recorded(self) -> bool:
        """Whether the folder holds no run of the user, so that only recorded ones can be listed."""
        return all(row.info.get("recorded") for row in self._all.values())

    def run(self, name: str) -> RunFolder | None:
        """Return the run whose folder has this name, even if its kind is not shown."""
        row = self._all.get(name)
        return None if row is None else row.run

    def by_key(self, key: int) -> str:
        """Return the name of the run that has a number; "" for none."""
        return next((name for name, known in self._keys.items() if known == key), "")

    def frame(self) -> pd.DataFrame:
        """Return all rows: name, title, kind, state, created, ended, error and settings."""
        keys = ("kind", "state", "created", "ended", "error", "settings")
        rows = [{"name": r.run.name, "title": r.title, **{key: r.info.get(key) for key in keys}} for r in self.rows]
        return pd.DataFrame(rows, columns=["name", "title", *keys])

    def _order(self) -> None:
        def value(row: RunRow) -> Any:
            if self.sort[0] == "worked":
                return row.worked if row.worked == row.worked else -1.0
            words = row.title if self.sort[0] == "title" else str(row.info.get(self.sort[0]) or "")
            return words if self.sort[0] == "created" else words.casefold()

        listed = [row for row in self._all.values() if self.kind in ("", row.info["kind"])]
        listed.sort(key=lambda row: row.run.name)
        self.rows = sorted(listed, key=value, reverse=self.sort[1] == "down")


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _time(written: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(written)
    except (TypeError, ValueError):
        return None
