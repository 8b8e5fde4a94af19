"""Plain English: words that pages, notebooks, labels and docstrings avoid, and what to write instead.

`python tests/test_language.py` prints every hit with its place.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What not to write, as a pattern, and what to write.
AVOID = {
    r"\bmoved models?\b": "converted model",
    r"\btwins?\b": "shared token; held-out shared token",
    r"\b(bits|nats|bytes|tokens|sequences) an? (byte|token|second|step|slice|position)\b": "bits per byte",
    r"\b(columns?|rows?|tokens) an? (name|run|token)\b": "one column per run",
    r"\b(floors?|ceilings?)\b": "source model (reference); random rows",
    r"\bbeside\b": "compared with; next to",
    r"\banew\b": "again; rebuild",
    r"\b(stands?|lies|lives) (in|on|at|beside|below|above|between|outside|within|there|here)\b": "is; is stored in",
    r"\btold\b|\b(is|are|was|were) said\b|\bsays\b": "is reported; shows; prints",
    r"\bsalt(s|ed)?\b": "seed",
    r"\bthe rest\b|\bwhat is left\b": "name it",
    r"\blay (it )?over\b": "overlay",
    r"\balong the axis\b": "X axis; Y axis",
    r"\buse of it\b": "amount of text",
    r"\blook again\b": "refresh",
    r"\bcosts? something\b|\bruins? it\b": "warning; critical",
    r"\b(is|are) lit\b|\blights? up\b": "is highlighted",
    r"\bspelled alike\b": "shared tokens",
    r"\bthe house\b|\brooms?\b": "the codebase; a package",
    r"\bright after the move\b": "right after the swap",
    r"\b(process|environment|page|folder)s? of (its|their|your) own\b": "a separate process",
    r"\bpress(es|ed|ing)? (a|the) (bar|button|row|token|point|heading)\b|\ba pressed\b": "click a bar",
    r"\bwhere there (is|are) (one|none)\b": "if there is one; None if there is none",
    r"\b(goes|went|going) on\b|\bworks? no more\b|\bworked no more\b": "continues; no longer works",
    r"\bas it came\b|\bpassed over\b|\bmade again\b": "before tuning; skipped; rebuilt",
}
# Allowed uses of these words, and why.
ALLOWED = {
    r"\bthe rest of (a|an|the|this|their|each)\b": "it is named",
    r"head[- ]floor": "the option --head-floor, a lower bound of an optimiser",
    r"\bfloor\(": "the function of mathematics",
    r"--twins\b": "an option that users have in files",
}
ANY_AVOIDED = re.compile("|".join(f"(?:{pattern})" for pattern in AVOID), flags=re.IGNORECASE)
ANY_ALLOWED = re.compile("|".join(f"(?:{pattern})" for pattern in ALLOWED), flags=re.IGNORECASE)


def prose(text: str) -> str:
    """Return a page without code, and without the targets of links."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"\]\([^)]*\)", "]", text))


def pages() -> Iterator[tuple[str, str]]:
    """Yield every page with its prose; of the changelog, only the unreleased part."""
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        yield path.relative_to(ROOT).as_posix(), prose(path.read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    yield "CHANGELOG.md", prose(re.split(r"^## ", changes, flags=re.MULTILINE)[1])


def notebooks() -> Iterator[tuple[str, str]]:
    """Yield every notebook with its prose and the strings and comments of its code."""
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        parts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
        words = [prose(source) if kind == "markdown" else "\n".join(sentences(source)) for source, kind in parts]
        yield path.relative_to(ROOT).as_posix(), "\n".join(words)


def sentences(source: str) -> list[str]:
    """Return docstrings, comments, and strings of more than one word of a program."""
    plain = "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
    found = [
        node.value
        for node in ast.walk(ast.parse(plain))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(plain).readline)
    found += [token.string for token in tokens if token.type == tokenize.COMMENT]
    return [re.sub(r"`[^`\n]*`", "", text) for text in found if " " in text]


def programs() -> list[Path]:
    """Return the paths of all programs."""
    folders = ("tokalign_lab", "widgets", "benchmarks", "scripts", "tests")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if path != Path(__file__)]
    return [path for path in files if "notebooks" not in path.relative_to(ROOT).parts]


def hits(text: str) -> list[str]:
    """Return every word to avoid, with the words around it and what to write instead."""
    text = ANY_ALLOWED.sub("", text)
    found = []
    for match in ANY_AVOIDED.finditer(text):
        around = " ".join(text[max(0, match.start() - 30) : match.end() + 30].split())
        better = next(better for pattern, better in AVOID.items() if re.match(pattern, match[0], flags=re.IGNORECASE))
        found.append(f"...{around}... (write: {better})")
    return found


def hits_in(path: Path) -> list[str]:
    """Return the words to avoid in a program."""
    return [f"{path.relative_to(ROOT)}: {hit}" for hit in hits("\n".join(sentences(path.read_text(encoding="utf-8"))))]


@pytest.mark.parametrize(("name", "text"), [*pages(), *notebooks()], ids=lambda value: value if len(value) < 80 else "")
def test_pages_and_notebooks_are_in_plain_english(name: str, text: str) -> None:
    assert hits(text) == [], name


def test_programs_are_in_plain_english() -> None:
    assert [hit for path in programs() for hit in hits_in(path)] == []


def test_words_to_avoid_are_found_and_allowed_uses_are_not() -> None:
    assert len(hits("Bits a byte stand beside the floor, and the rest is told anew.")) == 6
    assert hits("Tokens per second; the rest of the file; --head-floor; set floor(x).") == []
    assert prose("`beside` [a floor](floor.md)\n```sh\nbeside\n```") == " [a floor]\n"
    assert sentences('# a note\nname = "beside"\nprint(f"one {name} floor")') == ["one ", " floor", "# a note"]


if __name__ == "__main__":
    for name, text in [*pages(), *notebooks()]:
        print("\n".join(f"{name}: {hit}" for hit in hits(text)))
    for path in programs():
        print("\n".join(hits_in(path)))
