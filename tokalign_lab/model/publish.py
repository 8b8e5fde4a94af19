"""Publish a model's folder, with its card, on the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from tokalign_lab.catalog.resolve import is_hub_id
from tokalign_lab.errors import InputError, first_line
from tokalign_lab.model.check import check_folder
from tokalign_lab.model.load import files_of
from tokalign_lab.model.save import model_files
from tokalign_lab.progress import Progress, part, silent


def check_repo_id(repo_id: str) -> None:
    """Raise `InputError` if a repository's name is not of the form `organisation/name`."""
    if not is_hub_id(repo_id):
        raise InputError(f"The hub id {repo_id!r} must have the form organisation/name.")


def push_to_hub(model: str, repo_id: str, private: bool = False, progress: Progress = silent) -> dict[str, str]:
    """Upload a model's folder to a repository on the hub, which is created if it does not exist.

    Only the weights and files of the names that `save_model` writes are uploaded (`model_files`); others may be the
    user's own. Raises `InputError` if there is no such model, it has no safetensors weights, a check of it fails, or
    the hub refuses the upload. Returns `hub`, the address of the upload.

    Parameters
    ----------
    model : model folder, catalogue name or hub id
    repo_id : the repository, `organisation/name`
    private : whether a new repository is private
    progress : called with each check, and then with the upload
    """
    from huggingface_hub import HfApi

    check_repo_id(repo_id)
    folder = files_of(model)
    names = model_files(folder) if folder.is_dir() else []
    if not any(name.endswith(".safetensors") for name in names):
        raise InputError(f"The model {model!r} is not a folder with safetensors weights, so it is not published.")
    failures = [one for one in check_folder(str(folder), part(progress, 0.0, 0.5)).findings if one.severity == "fail"]
    if failures:
        raise InputError(f"The model {model!r} is not published, because a check fails: {failures[0].evidence}")
    progress(0.5, f"uploading {len(names)} files to {repo_id}")
    try:
        hub = HfApi()
        hub.create_repo(repo_id, private=private, exist_ok=True)
        made: Any = hub.upload_folder(
            repo_id=repo_id, folder_path=folder, allow_patterns=names, commit_message="Upload a model by tokalign-lab"
        )
    except Exception as error:  # huggingface_hub and its network each raise their own kinds
        raise InputError(f"The hub does not take {model!r} as {repo_id!r}: {first_line(error)}.") from error
    progress(1.0, "published")
    return {"hub": str(made)}
