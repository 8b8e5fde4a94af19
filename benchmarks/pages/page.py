"""A page of results: its contents, its raw data, and its Markdown.

Raw data is in `benchmarks/results/NAME.jsonl`. A line is one of four things:

- `{"about": {...}}`: command, date, machine and notes of the run;
- `{"table": TITLE, ...}`: a row of a table that the program printed;
- `{"earlier": DATE, "table": TITLE, ...}`: such a row of the run before, for comparison;
- `{..., "settings": {...}}`: one measurement with its settings, if the program stores them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RAW = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "results"
REPOSITORY = "https://github.com/tokalign-lab/tokalign-lab/blob/main"

Row = dict[str, Any]


@dataclass(frozen=True)
class Raw:
    """The raw data of one benchmark.

    Attributes
    ----------
    name
        Name of the file, without its ending.
    lines
        Its lines.
    earlier
        Whether to read the rows of the run before instead of those of the last run.
    """

    name: str
    lines: list[Row]
    earlier: bool = False

    @classmethod
    def read(cls, name: str) -> Raw:
        """Read `benchmarks/results/NAME.jsonl`."""
        text = (RAW / f"{name}.jsonl").read_text(encoding="utf-8")
        return cls(name, [json.loads(line) for line in text.splitlines()])

    @cached_property
    def about(self) -> Row:
        """Command, date, machine and notes; empty if the file has only measurements."""
        return next((line["about"] for line in self.lines if "about" in line), {})

    @cached_property
    def measured(self) -> list[Row]:
        """Single measurements, each with its settings."""
        return [line for line in self.lines if "settings" in line]

    def table(self, title: str) -> list[Row]:
        """Return the rows of the tables whose title begins with `title`."""
        rows = [line for line in self.lines if str(line.get("table", "")).startswith(title)]
        return [row for row in rows if ("earlier" in row) == self.earlier]

    def row(self, title: str, **key: Any) -> Row:
        """Return the first row of a table with these values; a string matches the start of a cell."""
        for row in self.table(title):
            if all(str(row.get(name, "")).startswith(str(value)) for name, value in key.items()):
                return row
        raise KeyError(f"{self.name}.jsonl has no row {key} in the table {title!r}")

    def by(self, title: str, column: str) -> dict[str, Row]:
        """Return the rows of a table by their value in a column."""
        return {row[column]: row for row in self.table(title)}

    def noted(self, pattern: str) -> str:
        """Return the text that a pattern captures in the notes of the run."""
        found = re.search(pattern, " ".join(self.about["notes"]))
        if found is None:
            raise KeyError(f"no note of {self.name}.jsonl has {pattern!r}")
        return found[1]

    def before(self) -> Raw | None:
        """Return the raw data of the run before; None if the file has none."""
        return Raw(self.name, self.lines, True) if any("earlier" in line for line in self.lines) else None


@dataclass
class Page:
    """One page: question, answer, plot, table, limits.

    Attributes
    ----------
    title, question, answer, limits
        Text; `answer` is one sentence that begins with negative results.
    draw
        Function that draws the plot to a path: one of `plots` with all other arguments bound.
    shows
        Caption of the plot, which is also its text for readers who cannot see it.
    head, rows
        The table: at most 5 columns and 6 rows.
    command
        Command that prints the figures; by default that of the raw data.
    also
        Names of other files of raw data.
    """

    title: str
    question: str
    answer: str
    draw: Callable[[Path], None]
    shows: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    limits: str
    command: str | None = None
    also: Sequence[str] = field(default_factory=tuple)


def write(name: str, raw: Raw, make: Callable[[Raw], Page]) -> str:
    """Return a page as Markdown."""
    page = make(raw)
    head, rows = page.head, [[cell(value) for value in row] for row in page.rows]
    about = raw.about
    lines = [
        f"# {page.title}",
        "<!-- Built by `make results`. -->",
        f"**Question.** {page.question}",
        f"**Answer.** {page.answer}",
        f"![{page.title}](plots/{name}.svg)",
        f"*{page.shows}*",
        "\n".join([_line(head), "|---" + "|---:" * (len(head) - 1) + "|", *(_line(row) for row in rows)]),
        f"**Limits.** {page.limits}{_measured(about)}",
    ]
    before = raw.before()
    if before is not None:
        date = next(line["earlier"] for line in raw.lines if "earlier" in line)
        answer = make(before).answer
        lines.append(f"**Run of {date}.** {'The same answer.' if answer == page.answer else answer}")
    lines.append(f"**Command.** `{page.command or about['command']}`")
    files = ", ".join(
        f"[{file}.jsonl]({REPOSITORY}/benchmarks/results/{file}.jsonl)" for file in (raw.name, *page.also)
    )
    source = "" if raw.measured or "made_from" not in about else " Copied from an earlier page."
    lines.append(f"**Raw data.** {files}.{source}")
    return "\n\n".join(lines) + "\n"


def _measured(about: Row) -> str:
    if not about:
        return ""
    return f" Measured {about['date'][:10]} on {about['machine'].split(';')[0].removesuffix('.')}."


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def cell(value: Any) -> str:
    """Return a value as the text of a cell: numbers with three significant digits, a dash for None."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else digits(value)


def digits(value: float, n: int = 3) -> str:
    """Return a number as text with n significant digits, without exponents; whole numbers from 1,000 on with commas."""
    if isinstance(value, int) or value == 0:
        return f"{value:,}"
    places = max(0, n - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def number(text: str) -> float:
    """Return the number at the beginning of a cell, as in "59%" and "8,440 (26.38%)"."""
    found = re.match(r"[-+]?[\d,]*\.?\d+", text)
    if found is None:
        raise ValueError(f"{text!r} does not begin with a number")
    return float(found[0].replace(",", ""))


def interval(text: str) -> tuple[float, float, float]:
    """Return value, low and high of "+0.27 [+0.18, +0.36], n = 27"; without bounds, the value three times."""
    found = [float(one) for one in re.findall(r"[-+]?\d+\.\d+", text)]
    return (found[0], found[1], found[2]) if len(found) > 2 else (found[0],) * 3


def percent(share: float) -> str:
    """Return a share as text in per cent, without decimals."""
    return f"{100 * share:.0f} %"


def span(shares: Collection[float]) -> str:
    """Return the smallest and the largest share as text in per cent, without decimals."""
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"


def mean(values: Sequence[float]) -> float:
    """Return the mean of the values."""
    return sum(values) / len(values)
