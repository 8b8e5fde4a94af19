"""Shared by all benchmarks: measurements in separate processes, stored results, the machine's description, raw data."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import resource
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tokalign_lab.console import print_table
from tokalign_lab.files import atomic_file
from tokalign_lab.provenance import installed_versions, now
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.process import start_time

Table = tuple[str, Sequence[Mapping[str, Any]]]
Result = dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser with the options that all speed benchmarks have."""
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--quick", action="store_true", help="small sizes, to check that it runs")
    options.add_argument("--out", type=Path, help="also write the results to this .jsonl file")
    return options


def limit_threads(n: int, gpu: bool = False) -> None:
    """Limit processes that start from now on to n threads, and hide GPUs from them unless `gpu`."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(n)
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def measured(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call `work` in a separate process; add the process's peak memory in GB to the result as `peak`."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, work, arguments).result()


def _with_peak(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    return {**work(*arguments), "peak": peak()}


def peak() -> float:
    """Return the peak memory of this process so far, in GB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start at the memory of the parent process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


class Kept:
    """Measurements of one program with these settings, each stored as a line of the file `--out`, if it is given."""

    def __init__(self, given: argparse.Namespace, **settings: Any) -> None:
        self.path = given.out
        names = ("steps", "batch_size", "bytes", "device", "threads")
        self.settings = {**{name: getattr(given, name) for name in names if hasattr(given, name)}, **settings}
        lines = read_lines(self.path) if self.path else []
        self._lines = [line for line in lines if line.get("settings") == self.settings]

    def __call__(self, make: Callable[[], Result], **key: Any) -> Result:
        """Return the measurement with this key; if it is not stored, make it, print it and store it."""
        for line in self._lines:
            if all(line.get(name) == value for name, value in key.items()):
                return line
        line = {**key, **make(), "settings": self.settings}
        self._lines.append(line)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        shown = {name: value for name, value in line.items() if name not in ("settings", "losses")}
        print(json.dumps(shown), flush=True)
        return line


@contextlib.contextmanager
def doing(run: RunFolder) -> Iterator[None]:
    """Do the work of a run in this process: its state is running within the block, then finished or failed."""
    run.update(state="running", pid=os.getpid(), pid_started=start_time(os.getpid()), ended=None, error=None)
    try:
        yield
    except BaseException as error:
        run.update(state="failed", ended=now(), error=str(error))
        raise
    run.update(state="finished", ended=now())


def drop_weights(run: RunFolder) -> None:
    """Delete the model and the checkpoints of a run, which take a gigabyte or more; its events stay."""
    for name in ("model", "checkpoints"):
        shutil.rmtree(run.path / name, ignore_errors=True)


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit value = a size^b by least squares of the logarithms; return b."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def machine() -> str:
    """Describe processor, cores, memory and versions in one line."""
    info = Path("/proc/cpuinfo")
    names = (
        [x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        if (info.exists())
        else []
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    processor = names[0] if names else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB; Python {platform.python_version()}, {versions}"


def report(title: str, tables: Sequence[Table], notes: Sequence[str], out: Path | None) -> None:
    """Print tables and notes, and write them to `out` as raw data for `make results` (see `pages/page.py`).

    Measurements in the file stay. The tables of the run before stay too, marked as earlier.
    """
    for name, rows in tables:
        print_table(rows, title=name)
    load = f"Load over the last minute, this included: {os.getloadavg()[0]:.1f}."
    for note in (*notes, f"Machine: {machine()}. {load}"):
        print(f"- {note}")
    if out is None:
        return
    words, arguments = iter(sys.argv), []
    for word in words:
        if word == "--out":
            next(words, None)
        else:
            arguments.append(word)
    about = {
        "title": title,
        "command": f"python {shlex.join(arguments)}",
        "date": now(),
        "machine": f"{machine()}. {load}",
    }
    lines: list[Result] = [{"about": {**about, "notes": list(notes)}}]
    for name, rows in tables:
        lines += [{"table": name, **{key.replace("_", " "): value for key, value in row.items()}} for row in rows]
    before = read_lines(out)
    date = next((line["about"]["date"][:10] for line in before if "about" in line), "")
    lines += [{"earlier": date, **line} for line in before if "table" in line and "earlier" not in line]
    lines += [line for line in before if "settings" in line]
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as path:
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def read_lines(path: Path) -> list[Result]:
    """Read a file of raw data; [] if there is none."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
