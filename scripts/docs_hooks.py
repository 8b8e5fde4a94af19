"""Expand patterns in the navigation of mkdocs.yml: `results/*.md` becomes all pages of that folder, sorted by name.

So a new result, decision or notebook needs no line in mkdocs.yml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Expand the patterns of the navigation; MkDocs calls this before it reads the pages."""
    config.nav = written_out(config.nav, Path(config.docs_dir))
    return config


def written_out(entry: Any, docs: Path) -> Any:
    """Replace patterns in lists of pages, at any depth."""
    if isinstance(entry, dict):
        return {title: written_out(pages, docs) for title, pages in entry.items()}
    if not isinstance(entry, list):
        return entry
    pages: list[Any] = []
    for one in entry:
        if isinstance(one, str) and "*" in one:
            pages += [path.relative_to(docs).as_posix() for path in sorted(docs.glob(one))]
        else:
            pages.append(written_out(one, docs))
    return pages
