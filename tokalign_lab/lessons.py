"""The quick start and the lessons, as notebooks that a user can edit.

The notebooks in the package are copied, because an installed package may be read-only and an update would overwrite a
learner's edits. A second call updates the notebooks that were not edited; a record of the copies shows which ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tokalign_lab.errors import InputError, plain_disk_errors
from tokalign_lab.files import atomic_file, sha256_of, write_json

LESSONS = Path(__file__).parent / "notebooks"
RECORD = ".tokalign-lab-notebooks.json"


def copy_lessons(folder: Path) -> dict[str, list[str]]:
    """Copy the notebooks into a new or empty folder, or update an earlier copy; edited notebooks are not changed.

    Returns "copied" and "kept": names of the notebooks that were written, and of those that were edited. Raises
    `InputError` if `folder` is a file, has files but no record of this function, or its record is damaged. Raises
    `DiskError` if the disk is full or read-only.
    """
    with plain_disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"'{folder}' is not a folder; choose another place for the notebooks.") from None
        except FileNotFoundError:  # nobody can create folders in /proc and the like
            raise InputError(f"'{folder}' cannot be made there; choose another place for the notebooks.") from None
        known = _record_of(folder)
        copied, kept = [], []
        write_json(folder / RECORD, known)  # if this is interrupted, the next call still knows the folder
        for lesson in sorted(LESSONS.glob("0*.ipynb")):
            copy, new = folder / lesson.name, sha256_of(lesson)
            if copy.exists() and sha256_of(copy) not in (new, known.get(lesson.name)):
                kept.append(lesson.name)
                continue
            with atomic_file(copy) as path:
                shutil.copyfile(lesson, path)
            known[lesson.name] = new
            copied.append(lesson.name)
        write_json(folder / RECORD, known)
    return {"copied": copied, "kept": kept}


def _record_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each notebook that was copied into `folder`, by name; empty for an empty folder."""
    record = folder / RECORD
    if not record.is_file():
        if any(folder.iterdir()):
            raise InputError(
                f"'{folder}' is not empty and was not made by `tokalign-lab notebooks`; choose a new or empty folder."
            )
        return {}
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in known.items()}
    except (ValueError, AttributeError):
        raise InputError(f"The file {record} is damaged; choose another folder for the notebooks.") from None
