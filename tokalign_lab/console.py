"""Output of the command line: results on stdout, everything else on stderr, one sentence for bad input.

With `--json` a command prints one JSON object as the last line of stdout, otherwise tables. Exit codes: 0; 1 if a check
fails or a run does not finish; 2 for bad input; 130 for an interrupt. Any other error is a bug and shows its traceback.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tokalign_lab.files import plain
from tokalign_lab.progress import Progress as Report

# Names and errors come from files, so nothing is read as markup: `[/INST]` is text.
stderr = Console(stderr=True, highlight=False, markup=False, emoji=False)
stdout = Console(highlight=False, markup=False, emoji=False)


def set_up_logging() -> None:
    """Send the engine's log lines to stderr, and show only errors of noisy libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("tokalign_lab")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    for noisy in ("transformers", "sentence_transformers", "datasets", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def print_json(value: Any) -> None:
    """Print one JSON object on one line of stdout; NaN and infinity become null."""
    line = json.dumps(plain(value), ensure_ascii=False)
    sys.stdout.write(line.encode("utf-8", "backslashreplace").decode() + "\n")  # lone surrogates as JSON escapes
    sys.stdout.flush()


def print_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """Print rows with the same keys as a table, numbers right-aligned; "(none)" if there are no rows."""
    if not rows:
        stdout.print("(none)")
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) or row[name] is None for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(format_value(value) for value in row.values()))
    stdout.print(table)


def print_facts(facts: Mapping[str, Any], title: str | None = None) -> None:
    """Print names and values, one pair per line."""
    print_table([{"": name.replace("_", " "), "value": format_value(value)} for name, value in facts.items()], title)


def format_value(value: Any) -> str:
    """Format a value for display: integers with separators, floats to four places (none from 1000 on), None as a dash.

    Control characters and lone surrogates become U+FFFD: a terminal executes the former and cannot show the latter.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item) for item in value)
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(value))


@contextmanager
def progress_bar(label: str) -> Iterator[Report]:
    """Yield a progress function that draws a bar on stderr, or prints one line per message if stderr is no terminal."""
    if not stderr.is_terminal:
        last = ""

        def report(share: float, message: str) -> None:
            nonlocal last
            if message != last:
                last = message
                stderr.print(f"{label}: {message} ({share:.0%})", soft_wrap=True)

        yield report
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda share, message: bar.update(task, completed=share, description=f"{label}: {message}")
