"""The examples in README and docstrings run unchanged."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import tokalign_lab
from tokalign_lab.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REPOSITORY = re.compile(
    r"https://(?:github\.com/tokalign-lab/tokalign-lab/(?:blob|tree)|raw\.githubusercontent\.com/tokalign-lab/tokalign-lab)/main/(.+)"
)


def test_the_example_of_the_package_runs() -> None:
    failed, tried = doctest.testmod(tokalign_lab, verbose=False)
    assert tried == 3
    assert failed == 0


def test_every_public_name_exists() -> None:
    for name in tokalign_lab.__all__:
        assert getattr(tokalign_lab, name) is not None
        assert name in dir(tokalign_lab)


def test_the_python_example_runs(capsys) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    smaller = example.replace("2_000_000", "330_000").replace("held_out[:3]", "held_out[:1]")
    assert smaller.count("330_000") == smaller.count("[:1]") == 1
    exec(compile(smaller, "README.md", "exec"), {})
    assert 0.5 < float(capsys.readouterr().out) < 4  # bits per byte of a rearranged model, before any tuning


def test_every_command_that_is_shown_exists() -> None:
    from typer.main import get_command

    root = get_command(app)
    blocks = "".join(re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL))
    shown = re.findall(r"^tokalign-lab (.*?)(?:\s+#.*)?$", blocks, flags=re.MULTILINE)
    assert len(shown) >= 6
    for line in shown:
        words = shlex.split(line)
        command = root.commands[words[0]]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_every_make_target_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 20
    for link in links:
        found = REPOSITORY.fullmatch(link)
        assert found, f"{link} is relative or of another host, so that it breaks on a package index"
        assert (ROOT / found[1]).exists(), link


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 120


def test_every_link_in_the_docs_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))]
    local = [(page, link) for page, link in links if not link.startswith(("http://", "https://"))]
    assert len(local) > 5
    assert [f"{page.name}: {link}" for page, link in local if not (page.parent / link).exists()] == []
