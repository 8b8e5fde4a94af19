"""Check with the installed `gguf` package whether llama.cpp's converter will probably accept a folder.

The package has the architectures with the names of their tensors, and reads vocabularies. It lacks the converter's list
of pre-tokenizers, which the converter recognises by a hash: a new byte-level tokenizer needs an entry there. Ids must
be below `vocab_size` (llama.cpp asserts it; mergekit #428), and holes are best avoided. Only a conversion proves that
the ids are the same (`export`), so a folder without problems is "not verified" here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tokalign_lab.errors import first_line
from tokalign_lab.evaluation.finding import Finding, sentence, several
from tokalign_lab.model.folder_case import FolderCase

_ALIASES = {"mistral": "llama", "phi": "phi2"}  # as llama.cpp's converter registers them
_SUFFIXES = (".weight", ".bias")


def gguf_readiness(case: FolderCase) -> Finding:
    """Whether architecture, tensors, ids and tokenizer can be converted."""
    problems: list[str] = []
    architecture = _architecture(case)
    if architecture is None:
        problems.append(f"gguf knows no architecture for {case.model.config.model_type!r}")
    else:
        unknown = _unknown_tensors(case, architecture)
        if unknown:
            problems.append(f"{several(len(unknown), 'tensor')} have no name there, such as {unknown[0]}")
    vocabulary = case.vocabulary
    beyond = int((~vocabulary.is_hole[case.rows :]).sum())
    holes = int(vocabulary.is_hole[: case.rows].sum())
    if beyond:
        problems.append(f"{several(beyond, 'id')} beyond vocab_size {case.rows:,}")
    if holes:
        problems.append(f"{several(holes, 'hole')} in the ids, the first at {int(np.argmax(vocabulary.is_hole)):,}")
    kind, trouble = _tokenizer(case)
    problems += [trouble] if trouble else []
    padding = max(0, case.rows - vocabulary.size)
    values: dict[str, Any] = {"architecture": architecture, "tokenizer": kind, "beyond": beyond, "holes": holes}
    values["padding"] = padding
    if problems:
        advice = "Correct this before converting, or see whether a newer converter knows more."
        return Finding("GGUF", "warn", sentence(problems), advice, values)
    more = "; its pre-tokenizer must be one that the converter knows by hash" if kind == "gpt2" else ""
    evidence = f"Architecture {architecture}, tokenizer {kind}{more}; {padding:,} rows become unused tokens."
    advice = "`tokalign-lab export MODEL --gguf FILE` converts it and compares the ids in llama.cpp."
    return Finding("GGUF", "not verified", evidence, advice, values)


def _architecture(case: FolderCase) -> str | None:
    from gguf import MODEL_ARCH_NAMES

    kind = str(case.model.config.get_text_config().model_type)
    names = (_ALIASES.get(kind, kind), kind.replace("_", ""), kind.removesuffix("_text"))
    return next((name for name in names if name in MODEL_ARCH_NAMES.values()), None)


def _unknown_tensors(case: FolderCase, architecture: str) -> list[str]:
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    number = next(number for number, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(number, case.model.config.get_text_config().num_hidden_layers)
    prefix = f"{case.model.base_model_prefix}."
    return [
        name
        for name, _ in case.model.named_parameters()
        if names.get_name(name, try_suffixes=_SUFFIXES) is None
        and names.get_name(name.removeprefix(prefix), try_suffixes=_SUFFIXES) is None  # bloom is known without it
    ]


def _tokenizer(case: FolderCase) -> tuple[str, str]:
    """Return gguf's name for the kind of tokenizer, and the problem with it."""
    from gguf.vocab import SpecialVocab

    kind = case.vocabulary.kind
    try:
        if kind == "byte-level":
            if not SpecialVocab(case.folder, load_merges=True).merges:
                return "gpt2", "gguf finds no merges in tokenizer.json"
            return "gpt2", ""
        if kind == "sentencepiece":
            there = (case.folder / "tokenizer.model").is_file()
            return "llama", "" if there else "without a tokenizer.model llama.cpp splits text differently"
    except Exception as error:  # the package raises its own kinds
        return kind, f"gguf cannot read the tokenizer: {first_line(error)}"
    return kind, f"gguf has no way for a {kind} tokenizer"
