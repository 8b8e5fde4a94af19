"""Publish a model's folder, with its card, on the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from tokalign_lab.catalog.resolve import is_hub_id
from tokalign_lab.errors import InputError, first_line
from tokalign_lab.model.check import check_folder
from tokalign_lab.model.load import files_of
from tokalign_lab.progress import Progress, part, silent

# what a model's folder consists of; other files in it may be the user's own
_FILES = (".json", ".safetensors", ".jinja", ".model", ".txt", ".md")


def push_to_hub(model: str, repo_id: str, private: bool = False, progress: Progress = silent) -> dict[str, str]:
    """Upload a model's folder to a repository on the hub, which is created if it does not exist.

    Only files directly in the folder are uploaded: weights, configurations, tokenizer, card and licence texts. Raises
    `InputError` if there is no such model, a check of it fails, or the hub refuses the upload. Returns `hub`, the
    address of the upload.

    Parameters
    ----------
    model : model folder, catalogue name or hub id
    repo_id : the repository, `organisation/name`
    private : whether a new repository is private
    progress : called with each check, and then with the upload
    """
    from huggingface_hub import HfApi

    if not is_hub_id(repo_id):
        raise InputError(f"The hub id {repo_id!r} must have the form organisation/name.")
    folder = files_of(model)
    if not folder.is_dir():
        raise InputError(f"The model {model!r} is one file; only a model's folder can be published.")
    failures = [one for one in check_folder(str(folder), part(progress, 0.0, 0.5)).findings if one.severity == "fail"]
    if failures:
        raise InputError(f"The model {model!r} is not published, because a check fails: {failures[0].evidence}")
    names = [path.name for path in folder.iterdir() if path.suffix in _FILES and path.is_file()]
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
