"""tokalign-lab: replace the tokenizer of a language model, and see every step.

>>> import tokalign_lab as tl
>>> source, target = tl.load_vocabulary("smollm2-135m"), tl.load_vocabulary("sp32k")
>>> tl.overlap(source, target).bytes_count
21873

The names below are the public API. Each is imported from its module on first use, so that `import tokalign_lab` is
fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from tokalign_lab.alignment.lexicon import Lexicon as Lexicon
    from tokalign_lab.alignment.recipes import RECIPES as RECIPES
    from tokalign_lab.alignment.recipes import align as align
    from tokalign_lab.catalog import load_vocabulary as load_vocabulary
    from tokalign_lab.corpus import tokenize_pair as tokenize_pair
    from tokalign_lab.documents import read_documents as read_documents
    from tokalign_lab.documents import split_documents as split_documents
    from tokalign_lab.errors import InputError as InputError
    from tokalign_lab.evaluation.bits_per_byte import bits_per_byte as bits_per_byte
    from tokalign_lab.evaluation.breakdown import breakdown as breakdown
    from tokalign_lab.evaluation.diagnosis import diagnose as diagnose
    from tokalign_lab.evaluation.diagnosis import with_new_rows as with_new_rows
    from tokalign_lab.evaluation.held_out import held_out_precision as held_out_precision
    from tokalign_lab.evaluation.lexicon_scores import score_lexicon as score_lexicon
    from tokalign_lab.evaluation.tasks import score_tasks as score_tasks
    from tokalign_lab.model.calibrate import calibrate as calibrate
    from tokalign_lab.model.load import load_model as load_model
    from tokalign_lab.model.rearrange import rearrange as rearrange
    from tokalign_lab.model.save import save_model as save_model
    from tokalign_lab.vocabulary import Vocabulary as Vocabulary
    from tokalign_lab.vocabulary import overlap as overlap

_MODULES = {
    "InputError": "errors",
    "Lexicon": "alignment.lexicon",
    "RECIPES": "alignment.recipes",
    "Vocabulary": "vocabulary",
    "align": "alignment.recipes",
    "bits_per_byte": "evaluation.bits_per_byte",
    "breakdown": "evaluation.breakdown",
    "calibrate": "model.calibrate",
    "diagnose": "evaluation.diagnosis",
    "held_out_precision": "evaluation.held_out",
    "load_model": "model.load",
    "load_vocabulary": "catalog",
    "overlap": "vocabulary",
    "read_documents": "documents",
    "rearrange": "model.rearrange",
    "save_model": "model.save",
    "score_lexicon": "evaluation.lexicon_scores",
    "score_tasks": "evaluation.tasks",
    "split_documents": "documents",
    "tokenize_pair": "corpus",
    "with_new_rows": "evaluation.diagnosis",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tokalign-lab")
    if name not in _MODULES:
        raise AttributeError(f"module 'tokalign_lab' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tokalign_lab.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
