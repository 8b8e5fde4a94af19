"""The house keeps its order: a room imports only rooms below it (see CONTRIBUTING.md)."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
# From the ground up; rooms of one line may not import each other, but a package's own modules may.
FLOORS = [
    {"errors", "progress", "provenance"},
    {"device", "files", "locks", "passages", "settings", "spelling"},
    {"token_table"},
    {"vocabulary"},
    {"catalog"},
    {"documents"},
    {"corpus"},
    {"vectors"},
    {"alignment", "projection"},
    {"evaluation"},
    {"model"},
    {"adaptation"},
    {"pipeline"},
    {"runs"},
    {"plots"},
    {"console", "doctor", "estimate", "lessons"},
    {"report", "app"},
    {"demo", "record"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# The packages of widgets/, from the ground up; its own modules (the lab) stand on all of them.
WIDGET_FLOORS = [{"common"}, {"training"}, {"runs"}, {"lexicon"}, {"compare", "maps", "pair"}]
WIDGET_FLOOR_OF = {package: floor for floor, packages in enumerate(WIDGET_FLOORS) for package in packages}


def imports(path: Path) -> set[str]:
    """Rooms of tokalign_lab that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tokalign_lab":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def test_rooms_import_only_downwards() -> None:
    wrong = []
    for path in sorted((ROOT / "tokalign_lab").rglob("*.py")):
        room = path.relative_to(ROOT / "tokalign_lab").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for other in imports(path) - {room}:
            if FLOOR_OF.get(other, len(FLOORS)) >= FLOOR_OF[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert wrong == []


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in (ROOT / "tokalign_lab").glob("*.py")} - {"__init__"}
    rooms |= {path.parent.name for path in (ROOT / "tokalign_lab").glob("*/__init__.py")}
    assert rooms == set(FLOOR_OF)


def test_packages_of_widgets_import_only_downwards() -> None:
    wrong = []
    for path in sorted((ROOT / "widgets").glob("*/*.py")):
        package = path.parent.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                other = (node.module or "").split(".")[0]
                if WIDGET_FLOOR_OF.get(other, len(WIDGET_FLOORS)) >= WIDGET_FLOOR_OF[package]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {other}")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokalign_lab.widgets"):
                wrong.append(f"{path.relative_to(ROOT)} imports {node.module} by its full name, which mypy skips")
    assert wrong == []
