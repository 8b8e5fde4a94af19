"""Faults seen in models: each one as a small input, with the right result."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_rearrange import SOURCE, TARGET, mixed_lexicon
from tiny import save_tiny, tiny_model

from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_folder
from tokalign_lab.model.save import save_model
from tokalign_lab.model.to_folder import rearrange_to_folder

# --- nothing that somebody else made is deleted


def own_files(folder: Path) -> dict[str, str]:
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (folder / "notes.md").write_text("mine")
    return tree(folder)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    project = tmp_path / "project"
    before = own_files(project)
    with pytest.raises(InputError, match=r"project' exists already and holds files that are not"):
        save_model(tiny_model("llama", TARGET.size), TARGET, project)
    source = save_tiny(tmp_path / "source")
    with pytest.raises(InputError, match="exists already"):
        rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, project)
    assert tree(project) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project", "source"]


def test_a_model_that_somebody_else_saved_is_refused(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source")
    before = sorted(path.name for path in source.iterdir())
    with pytest.raises(InputError, match="exists already"):
        rearrange_to_folder(str(source), mixed_lexicon(), SOURCE, TARGET, source)
    assert sorted(path.name for path in source.iterdir()) == before


def test_our_own_folder_is_replaced_until_something_is_added_to_it(tmp_path: Path) -> None:
    model = tiny_model("llama", TARGET.size)
    save_model(model, TARGET, tmp_path / "m")
    save_model(model, TARGET, tmp_path / "m", card={"model": "second"})
    assert "second" in (tmp_path / "m" / "README.md").read_text()
    (tmp_path / "m" / "notes.md").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save_model(model, TARGET, tmp_path / "m")
    assert (tmp_path / "m" / "notes.md").read_text() == "mine"


def test_a_file_an_empty_folder_and_a_link(tmp_path: Path) -> None:
    model = tiny_model("llama", TARGET.size)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        save_model(model, TARGET, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    save_model(model, TARGET, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "tokalign.json").is_file()


def test_a_file_that_appears_while_a_folder_is_written_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with pytest.raises(InputError, match="exists already"), atomic_folder(place) as temporary:  # noqa: PT012
        (temporary / "ours").write_text("ours")
        place.mkdir()
        (place / "notes.md").write_text("mine")
    assert tree(place) == {"notes.md": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
