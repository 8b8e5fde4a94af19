"""Held-out documents that were read before: by the alignment of a lexicon, or when a model was tuned.

The same text gives other parts with another seed, held-out share or sample, so documents that are held out now may have
been in the train part then. A measurement on them would flatter, so it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokalign_lab.documents import Document, read_parts, text_hash
from tokalign_lab.errors import InputError
from tokalign_lab.provenance import read_record
from tokalign_lab.settings.kinds import SplitSettings, TextSettings, text_of

if TYPE_CHECKING:
    from tokalign_lab.alignment.lexicon import Lexicon

_BEGINNING = 200  # characters of a held-out document that are searched in a train document of the same name


def check_not_aligned_on(lexicon: Lexicon, name: str, settings: TextSettings, held_out: Sequence[Document]) -> None:
    """Raise `InputError` if a lexicon was aligned on held-out documents, because it split the same text otherwise."""
    split, trained_on = lexicon.provenance.get("split", {}), lexicon.provenance.get("text_hash", "")
    _check_other_split(split, trained_on, f"'{name}' was aligned", settings, held_out)


def check_not_tuned_on(model: str, settings: TextSettings, held_out: Sequence[Document]) -> None:
    """Raise `InputError` if a model was tuned on held-out documents, because it split the same text otherwise."""
    from tokalign_lab.model.load import files_of  # imports torch

    made = read_record(files_of(model)).get("training", {})
    split = {name: made[name] for name in SplitSettings.names() if name in made}
    for max_bytes in {None, settings.max_bytes} if split else ():  # which of them it was is not recorded
        of_model = {**split, "max_bytes": max_bytes}
        _check_other_split(of_model, made.get("text_hash", ""), f"'{model}' was tuned", settings, held_out)


def _check_other_split(
    split: Mapping[str, Any], trained_on: str, made: str, settings: TextSettings, held_out: Sequence[Document]
) -> None:
    """Refuse held-out documents that are in the train part of another split, if that part has the hash `trained_on`."""
    other = TextSettings.from_dict({**split, "text": settings.text})
    if not split or other.to_dict() == text_of(settings.to_dict()):
        return
    train, _ = read_parts(other, needed=())
    read = {document.name: document.text for document in train}
    again = [document for document in held_out if document.text[:_BEGINNING] in read.get(document.name, "")]
    if again and text_hash(train) == trained_on:
        chosen = ", ".join(f"{option} {value}" for option, value in split.items())
        raise InputError(
            f"{made} on documents that are held out here, such as {again[0].name}, because it split the text otherwise "
            f"({chosen}); use one split, or give another text."
        )
