"""Build every page of docs/results from the raw data in benchmarks/results.

python benchmarks/pages            # or: make results
python benchmarks/pages --text     # pages only, without drawing the plots again
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import index
from page import PAGES, RAW, Page, Raw, write


def pages() -> dict[str, tuple[Raw, object]]:
    """Return raw data and maker of each page; a page without raw data is left out."""
    return {
        name: (Raw.read(file), make) for name, (file, make) in index.MAKERS.items() if (RAW / f"{file}.jsonl").exists()
    }


def texts() -> dict[str, str]:
    """Return every page as Markdown, by file name."""
    found = {f"{name}.md": write(name, raw, make) for name, (raw, make) in pages().items()}
    return {**found, "README.md": index.write({name: make(raw) for name, (raw, make) in pages().items()})}


def main() -> None:
    """Write pages and plots."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--text", action="store_true", help="do not draw the plots again")
    given = options.parse_args()
    for name, text in texts().items():
        (PAGES / name).write_text(text, encoding="utf-8")
    if not given.text:
        for name, (raw, make) in pages().items():
            page: Page = make(raw)
            page.draw(PAGES / "plots" / f"{name}.svg")
    print(f"{len(pages())} pages in {PAGES}")


if __name__ == "__main__":
    main()
