"""The documentation is correct: commands parse, files exist, names import, and the site builds without broken links."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

import tokalign_lab
import tokalign_lab.widgets
from tokalign_lab.adaptation.settings import AdaptRunSettings
from tokalign_lab.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RAW = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))]
RESULTS = [page for page in sorted((DOCS / "results").glob("*.md")) if page.name != "README.md"]
UsageError = typer.BadParameter.__base__  # the exception of the command line for an invalid command
# A line with these words may name a program that does not exist yet.
TO_COME = ("not measured", "not run in full yet")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def shown_commands(text: str) -> tuple[list[str], list[str]]:
    """Return the lines of shell blocks that call tokalign-lab, and the code between backticks in prose."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    in_blocks = [line for line in lines if re.match(r"(\w+=\S+ )*tokalign-lab\b", line)]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return in_blocks, re.findall(r"`(tokalign-lab [^`]+)`", prose.replace("\n", " "))


def parse(words: list[str]) -> None:
    """Parse a command as the command line does, without running it; raise UsageError if it is invalid."""
    command = get_command(app)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            raise UsageError(f"there is no command {words[:1]}")
        command, words = command.commands[words[0]], words[1:]
    if "--config" in words:  # the page shows the file, which does not exist here
        options = {name for parameter in command.params for name in parameter.opts}
        wrong = [word for word in words if word.startswith("--") and word not in options]
        if wrong:
            raise UsageError(f"there is no option {wrong[0]}")
        return
    command.make_context(command.name, list(words))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_command_on_a_page_parses(path: Path) -> None:
    in_blocks, in_prose = shown_commands(read(path))
    for line in in_blocks:
        words = shlex.split(line, comments=True)
        parse(words[words.index("tokalign-lab") + 1 :])
    for line in in_prose:
        words = line.split()[1:]
        if "..." not in words and len(words) > 2:  # `tokalign-lab runs list` in prose names a command and may end there
            parse(words)


def test_commands_are_found_and_invalid_ones_are_refused() -> None:
    assert sum(len(shown_commands(read(page))[0]) for page in PAGES) > 40
    parse(shlex.split("align smollm2-135m sp32k --text a b --out lexicon.parquet"))
    for wrong in ("align smollm2-135m sp32k --out x.parquet", "aline a b", "bpb moved --text default --max-byte 9"):
        with pytest.raises(UsageError):
            parse(shlex.split(wrong))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_file_that_is_named_exists(path: Path) -> None:
    folders = "benchmarks|configs|docs|notebooks|scripts|tests|tokalign_lab"
    lines = [line for line in read(path).splitlines() if not any(words in line for words in TO_COME)]
    named = re.findall(rf"(?<![\w/])((?:{folders})/[\w./-]*\w\.(?:py|yaml|md|sh|ipynb))\b", "\n".join(lines))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", read(path), flags=re.MULTILINE)) <= targets


def test_an_answer_of_the_faq_has_at_most_three_sentences() -> None:
    long = []
    for block in re.split(r"^### ", read(DOCS / "faq.md"), flags=re.MULTILINE)[1:]:
        question, answer = block.split("\n", 1)
        prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|^## .*", "", answer, flags=re.DOTALL | re.MULTILINE)
        if len(re.findall(r"[.!?](?=\s|\))", prose)) > 3 or not question.endswith("?"):
            long.append(question)
    assert long == []


@pytest.mark.parametrize("path", RESULTS, ids=name_of)
def test_every_page_of_figures_names_the_command_that_prints_them(path: Path) -> None:
    command = r"`(make demo|python benchmarks/(\w+\.py)[^`]*)`"
    row = next((line for line in read(DOCS / "results/README.md").splitlines() if f"]({path.name})" in line), "")
    found = re.search(command, read(path)) or re.search(command, row)
    assert found, f"neither {path.name} nor its line in docs/results/README.md names a command"
    assert found[2] is None or (ROOT / "benchmarks" / found[2]).exists()


def test_figures_of_the_fidelity_page_are_in_measured_tables() -> None:
    text = read(DOCS / "fidelity.md")
    verdicts = ("agrees", "disagrees", "cannot tell")
    rows = [line for line in text.splitlines() if line.startswith("|") and any(word in line for word in verdicts)]
    assert len(rows) > 20
    lines = [line for file in sorted(RAW.glob("*.jsonl")) for line in read(file).splitlines() if '"table"' in line]
    cells = [value for line in lines for value in json.loads(line).values()]
    measured = {value for value in cells if isinstance(value, float)}
    measured |= {float(figure) for value in map(str, cells) for figure in re.findall(r"\d+\.\d{3,}", value)}
    ours = re.findall(r"(?<![\d.,^])\d+\.\d{3}(?!\d)", text)  # figures of the papers have two decimals
    assert len(ours) > 20
    assert [figure for figure in ours if min(abs(float(figure) - one) for one in measured) > 0.00051] == []


def test_the_api_page_has_every_public_name_and_names_only_what_exists() -> None:
    paths = re.findall(r"^::: (\S+)", read(DOCS / "api.md"), flags=re.MULTILINE)
    paths = [re.sub(r"^widgets\.", "tokalign_lab.widgets.", path) for path in paths]  # the path of their code
    for path in paths:
        module, _, name = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), path
    public = {*tokalign_lab.__all__, *tokalign_lab.widgets.__all__} - {"RECIPES"}
    assert public <= {path.rpartition(".")[2] for path in paths}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does; broken links, anchors and names are errors (strict in mkdocs.yml)."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


def test_the_site_has_every_page_and_notebook(site: Path) -> None:
    pages = [page.relative_to(DOCS) for page in DOCS.glob("**/*.md")]
    notebooks = [Path("notebooks") / book.relative_to(ROOT / "notebooks") for book in ROOT.glob("notebooks/**/*.ipynb")]
    assert notebooks
    wanted = [page.with_name("index.html") if page.name == "README.md" else page.with_suffix(".html") for page in pages]
    wanted += [book.with_suffix(".html") for book in notebooks]
    assert [str(page) for page in wanted if not (site / page).exists()] == []


def test_the_reference_has_every_command_and_setting(site: Path) -> None:
    page = read(site / "reference/cli.html")
    commands = {
        name for name, one in get_command(app).commands.items() if not one.hidden and not hasattr(one, "commands")
    }
    assert {name for name in commands if f'id="{name}"' not in page} == set()
    assert "runs-resume" in page
    settings = read(site / "reference/settings.html")
    assert {name for name in AdaptRunSettings.names() if f"<code>{name}</code>" not in settings} == set()


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    script = r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?https?:"
    style = r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon)[^>]*https?:"
    pages = {page: read(page) for page in site.glob("**/*.html")}
    assert [str(page) for page, text in pages.items() if re.search(f"{script}|{style}", text)] == []
    styles = "".join(read(sheet) for sheet in site.glob("**/*.css")) + "".join(pages.values())
    assert re.findall(r"(?:@import\s+|url\()[\"']?https?:", styles) == []
    # The theme would fetch mermaid for a page with a diagram, and the number of stars of a repository.
    marks = ('class="mermaid"', 'data-md-component="source"')
    assert [mark for mark in marks if any(mark in text for text in pages.values())] == []
