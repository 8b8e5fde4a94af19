"""Modules and packages import only from lower layers (see CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The layers from the bottom up. Names on one line may not import each other, but modules of one package may.
LAYERS = [
    {"errors", "progress", "provenance"},
    {"device", "files", "locks", "passages", "settings", "spelling"},
    {"token_table"},
    {"vocabulary"},
    {"catalog", "merges"},
    {"documents"},
    {"corpus", "tokenizer_training"},
    {"vectors"},
    {"alignment", "projection"},
    {"evaluation"},
    {"cross_tokenizer"},
    {"model"},
    {"adaptation", "disjoint"},
    {"pipeline"},
    {"runs"},
    {"plots"},
    {"console", "doctor", "draft", "estimate", "lessons"},
    {"report", "app"},
    {"demo", "record"},
    {"cli"},
    {"__main__"},
]
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}
# The packages of widgets/, from the bottom up; its own modules (the lab) may import all of them.
WIDGET_LAYERS = [{"common"}, {"training"}, {"runs"}, {"lexicon"}, {"compare", "maps", "pair"}]
WIDGET_LAYER_OF = {package: layer for layer, packages in enumerate(WIDGET_LAYERS) for package in packages}


def imports(path: Path) -> set[str]:
    """Return the modules and packages of tokalign_lab that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tokalign_lab":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def test_modules_import_only_downwards() -> None:
    wrong = []
    for path in sorted((ROOT / "tokalign_lab").rglob("*.py")):
        name = path.relative_to(ROOT / "tokalign_lab").parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        for other in imports(path) - {name}:
            if LAYER_OF.get(other, len(LAYERS)) >= LAYER_OF[name]:
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert wrong == []


def test_every_module_has_a_layer() -> None:
    names = {path.stem for path in (ROOT / "tokalign_lab").glob("*.py")} - {"__init__"}
    names |= {path.parent.name for path in (ROOT / "tokalign_lab").glob("*/__init__.py")}
    assert names == set(LAYER_OF)


def test_contributing_lists_every_module_in_the_order_of_imports() -> None:
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = [name.rstrip("/") for row in rows for name in re.findall(r"`(\w+/?)`", row)]
    assert sorted(names) == sorted({*LAYER_OF, "widgets"} - {"__main__"})
    layers = [LAYER_OF[name] for name in names if name != "widgets"]
    assert layers == sorted(layers)


def test_functions_named_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    numbers = [int(row) for row in re.findall(r"^\| from `.* \| (\d+) \|$", text, flags=re.MULTILINE)]
    section = text.split("### Two traces")[1].split("\n## ")[0]
    traces = [re.findall(r"`((?:\w+\.)+\w+)`", part) for part in re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]]
    assert [len(trace) for trace in traces] == numbers
    for name in (name for trace in traces for name in trace):
        parts = name.split(".")
        folder = ROOT if parts[0] == "widgets" else ROOT / "tokalign_lab"
        place = next(i for i in range(len(parts), 0, -1) if folder.joinpath(*parts[:i]).with_suffix(".py").exists())
        body = ast.parse(folder.joinpath(*parts[:place]).with_suffix(".py").read_text(encoding="utf-8")).body
        for part in parts[place:]:
            found = [node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part]
            assert found, name
            body = found[0].body


def test_packages_of_widgets_import_only_downwards() -> None:
    wrong = []
    for path in sorted((ROOT / "widgets").glob("*/*.py")):
        package = path.parent.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                other = (node.module or "").split(".")[0]
                if WIDGET_LAYER_OF.get(other, len(WIDGET_LAYERS)) >= WIDGET_LAYER_OF[package]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {other}")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokalign_lab.widgets"):
                wrong.append(f"{path.relative_to(ROOT)} imports {node.module} by its full name, which mypy skips")
    assert wrong == []
