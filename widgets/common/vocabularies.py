"""What panels load: alignments, and vocabularies, each once.

A cell and panels that load in the background may ask for a vocabulary at the same time.
"""

from __future__ import annotations

import threading
from pathlib import Path

from tokalign_lab import catalog
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.runs.control import find_run
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.vocabulary import Vocabulary

_lock = threading.Lock()
_loaded: dict[str, Vocabulary] = {}  # of the catalogue's names only: what a path holds may change


def opened(run: RunFolder | Path | str, alignment: Alignment | None) -> tuple[RunFolder, Alignment]:
    """Return an align run, found by its folder or name, and its alignment, loaded where it is not given.

    Raises `InputError` if there is no such run, or it has made no lexicon.
    """
    run = run if isinstance(run, RunFolder) else find_run(run)
    return run, alignment or Alignment.load(run.path / "alignment")


def vocabularies_of(lexicon: Lexicon) -> tuple[Vocabulary, Vocabulary]:
    """Return source and target of a lexicon: those that its file brought along, else loaded by its names."""
    if lexicon.vocabularies is not None:
        return lexicon.vocabularies
    source, target = (vocabulary_of(lexicon.provenance[side]["name"]) for side in ("source", "target"))
    return source, target


def vocabulary_of(name: str) -> Vocabulary:
    """Load the tokenizer called `name` (see `catalog.load_tokenizer`); safe from any thread.

    Raises
    ------
    InputError
        If nothing of that name exists or it cannot be read.
    """
    with _lock:
        if name in _loaded:
            return _loaded[name]
        vocabulary = catalog.load_vocabulary(name)
        if catalog.is_known(name):
            _loaded[name] = vocabulary
        return vocabulary
