"""Checks that matrices, configurations and tokenizer agree on the ids.

What goes wrong in converted models: rows and `vocab_size` disagree after padding (mergekit #342 and #428, vLLM #7252),
the tokenizer has added tokens beyond the rows (mergekit PR #657), bos and eos are the source's (the papers'
`convert.py`), a tied model has a head in its files, or an untied one lacks it and gets random numbers without a warning
(transformers #35141).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tokalign_lab.evaluation.finding import Finding, sentence, several, worst
from tokalign_lab.model.folder_case import FolderCase
from tokalign_lab.vocabulary import Vocabulary


def sizes(case: FolderCase) -> Finding:
    """Whether both matrices, the bias and `vocab_size` have one size."""
    configured = int(case.model.config.get_text_config().vocab_size)
    rows = {part: int(matrix.shape[0]) for part, matrix in case.matrices.items()}
    rows |= {f"{name} in the files": there[0] for name, (there, _) in case.misfits.items()}
    values = {"vocab_size": configured, **rows}
    if "output" not in case.matrices:
        return Finding("sizes", "fail", "The model has no output head.", "Use a causal language model.", values)
    counted = ", ".join(f"{part} {n:,}" for part, n in rows.items())
    if set(rows.values()) != {configured}:
        evidence = f"The configuration has vocab_size {configured:,}; rows: {counted}."
        return Finding("sizes", "fail", evidence, "Set vocab_size to the matrices' rows.", values)
    return Finding("sizes", "ok", f"vocab_size {configured:,}; rows: {counted}.", values=values)


def ids(case: FolderCase) -> Finding:
    """Whether each id of the tokenizer has a row."""
    vocabulary, rows = case.vocabulary, case.rows
    beyond = [i for i in range(rows, vocabulary.size) if not vocabulary.is_hole[i]]
    holes = int(vocabulary.is_hole[:rows].sum())
    values = {"tokenizer": vocabulary.size, "rows": rows, "beyond": len(beyond), "holes": holes}
    values["padding"] = max(0, rows - vocabulary.size)
    evidence = f"{several(vocabulary.size - int(vocabulary.is_hole.sum()), 'token')} for {several(rows, 'row')}"
    if not beyond:
        more = f"; {values['padding']:,} rows of padding, {several(holes, 'hole')}"
        return Finding("ids", "ok", f"{evidence}{more}.", values=values)
    text = [i for i in beyond if not vocabulary.is_control[i]]
    return Finding(
        "ids",
        "fail" if text else "warn",  # a control token occurs only if someone writes it
        f"{evidence}; {several(len(beyond), 'id')} from {beyond[0]:,} on have none, {len(text):,} of them are text.",
        "Remove these tokens from the tokenizer, or rearrange the model for it.",
        values,
        [vocabulary.label(i) for i in beyond[:5]],
    )


def special_ids(case: FolderCase) -> Finding:
    """Whether the ids that the configurations name exist, and agree with the tokenizer."""
    vocabulary, model = case.vocabulary, case.model
    problems: list[tuple[str, str]] = []
    named: dict[str, Any] = {}
    for place, config in (("config", model.config.get_text_config()), ("generation_config", model.generation_config)):
        for name, value in sorted(vars(config).items()) if config is not None else ():
            if name.endswith("_token_id") and value is not None:
                held = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
                named[f"{place}.{name}"] = held
                problems += [
                    ("fail", f"{place}.{name} {i} has no row")
                    for i in held
                    if not isinstance(i, int) or not 0 <= i < case.rows
                ]
    if not problems:
        problems = _against_the_tokenizer(case, named)
    index = getattr(model.get_input_embeddings(), "padding_idx", None)
    if index is not None and not 0 <= index < case.rows:
        problems.append(("fail", f"padding_idx {index} has no row"))
    severity = worst(severity for severity, _ in problems)
    if severity == "ok":
        roles = ", ".join(f"{role} {vocabulary.raw_token(i)} ({i})" for role, i in vocabulary.roles.items())
        return Finding("special ids", "ok", f"Configurations and tokenizer agree: {roles}.", values=named)
    evidence = sentence(problem for _, problem in problems)
    advice = "Set the ids in config.json and generation_config.json to the tokenizer's."
    return Finding("special ids", severity, evidence, advice, named)


def _against_the_tokenizer(case: FolderCase, named: dict[str, Any]) -> list[tuple[str, str]]:
    vocabulary = case.vocabulary
    problems = _around_a_prompt(vocabulary)
    ends = named.get("generation_config.eos_token_id", [])
    eos = vocabulary.roles.get("eos")
    if not ends:
        problems.append(("warn", "no eos in generation_config: generation ends only at its length"))
    elif eos is not None and eos not in ends:
        problems.append(("fail", f"generation ends at {ends}, but the tokenizer's eos is {eos}"))
    for i in ends:
        if i >= vocabulary.size or not (vocabulary.is_control[i] or i in vocabulary.tokenizer.added_tokens_decoder):
            what = vocabulary.label(i) if i < vocabulary.size else "padding"
            problems.append(("fail", f"generation ends at {i} ({what}), which is no special token"))
    for role in ("bos", "eos", "pad"):
        wanted = vocabulary.roles.get(role)
        for place in ("config", "generation_config"):
            held = named.get(f"{place}.{role}_token_id", [])
            if wanted is not None and held and wanted not in held and (place, role) != ("generation_config", "eos"):
                problems.append(("warn", f"{place} has {role} {held}, the tokenizer {wanted}"))
    return problems


def _around_a_prompt(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Report ids that the tokenizer adds to a prompt and should not: ordinary tokens, and an end before the answer."""
    (plain,), called = vocabulary.encode(["a"]), vocabulary.tokenizer("a")["input_ids"]
    text, special = plain.tolist(), {*np.flatnonzero(vocabulary.is_control).tolist(), *vocabulary.roles.values()}
    start = next((n for n in range(len(called)) if text and called[n : n + len(text)] == text), None)
    if start is None:
        return []
    after = called[start + len(text) :]
    wrong = [i for i in called[:start] + after if i not in special]
    problems = [
        ("fail", f"the tokenizer adds {vocabulary.label(i)} ({i}) to a prompt, no special token") for i in wrong
    ]
    ended = vocabulary.roles.get("eos") in after
    return problems + [("warn", "the tokenizer adds eos after a prompt, so the text ends before its answer")] * ended


def tied_head(case: FolderCase) -> Finding:
    """Whether the files hold a head if and only if the configuration is untied."""
    should = bool(case.model.config.get_text_config().tie_word_embeddings)
    lost = sorted(case.missing & case.head_names)
    values: dict[str, Any] = {"tie_word_embeddings": should}
    if lost:
        evidence = f"The configuration is untied, but the files hold no {lost[0]}: it is random after every load."
        return Finding("tied head", "fail", evidence, "Set tie_word_embeddings, or save the head.", values)
    tied = case.matrices["output"] is case.matrices["input"]
    if should and not tied:
        evidence = "The configuration is tied, but the files hold a head that differs."
        return Finding("tied head", "fail", evidence, "Set tie_word_embeddings to false.", values)
    if case.shards is None:
        return Finding("tied head", "ok", "The weights are not safetensors; they load as configured.", values=values)
    values["names"] = case.shards.names
    if tied and len(case.shards.names["output"]) > 1:
        evidence = f"The files hold tied rows twice: {' and '.join(case.shards.names['output'])}."
        return Finding("tied head", "warn", evidence, "The second copy only takes space; save the model again.", values)
    names = " and ".join(dict.fromkeys(case.shards.names["input"] + case.shards.names["output"]))
    return Finding("tied head", "ok", f"{'Tied' if tied else 'Untied'}, as configured: {names}.", values=values)
