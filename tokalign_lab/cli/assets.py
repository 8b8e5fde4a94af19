"""Commands about the catalogue."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.cli.command import assets_app, command


@command(assets_app, "list")
def assets_list() -> Any:
    """List the catalogue: download size, licence, and whether it is cached."""
    from tokalign_lab import catalog

    fields = ("name", "kind", "size_bytes", "licence", "origin", "description")
    rows = [
        {**{name: getattr(asset, name) for name in fields}, "cached": catalog.cached_path(asset.name) is not None}
        for asset in catalog.assets()
    ]
    keys = ("name", "kind", "cached", "licence")
    shown = [{**{key: row[key] for key in keys}, "to fetch": f"{row['size_bytes'] / 1e6:,.1f} MB"} for row in rows]
    return {"assets": rows}, lambda: console.print_table(shown)


@command(assets_app, "get")
def assets_get(name: Annotated[list[str], typer.Argument(help="Names from `assets list`.")]) -> Any:
    """Fetch assets into the cache, checked by their SHA-256."""
    from tokalign_lab import catalog

    paths = {}
    for one in name:
        catalog.find(one)  # refuse an unknown name before anything is fetched
    for one in name:
        with console.progress_bar(one) as progress:
            paths[one] = str(catalog.get(one, progress=progress))
    return {"paths": paths}, lambda: console.print_facts(paths)
