"""Check a model's folder: test everything that a user relies on.

A converted model can load and still be wrong: it never stops because its eos is the source's, its last ids have no
rows, its head was replaced by random numbers, or its tokenizer can never produce half of the tokens. The checks cover
faults in folders that the papers' code converts, and faults that users report of other tools (transplants, padded
vocabularies, GGUF conversion). They work for any folder. Each check gives a `Finding`. A check that depends on a failed
one is listed as left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokalign_lab.errors import InputError, first_line
from tokalign_lab.evaluation.finding import Finding, Findings
from tokalign_lab.model.folder_case import FolderCase
from tokalign_lab.model.generation_check import generation
from tokalign_lab.model.gguf_check import gguf_readiness
from tokalign_lab.model.id_checks import ids, sizes, special_ids, tied_head
from tokalign_lab.model.quantised import method_of, quantization_of, scales_among
from tokalign_lab.model.row_checks import breaker_tokens, finite_weights, row_lengths, zero_rows
from tokalign_lab.model.shards import files_of_tensors
from tokalign_lab.model.tokenizer_checks import carried_over, chat_template, round_trips, unreachable_tokens
from tokalign_lab.progress import Progress, silent


@dataclass(frozen=True)
class Check(Findings):
    """Result of one check.

    Attributes
    ----------
    findings : list of Finding
        The worst first; severities "fail", "warn", "ok", "not verified".
    left_out : dict
        Name of a check that could not be made -> the check that failed before it.
    """

    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return super().to_dict() | {"left_out": self.left_out}


# name, function, and the checks that it depends on
_CHECKS: tuple[tuple[str, Callable[[FolderCase], Finding], tuple[str, ...]], ...] = (
    ("round trips", round_trips, ()),
    ("unreachable tokens", unreachable_tokens, ()),
    ("chat template", chat_template, ()),
    ("carried over", carried_over, ()),
    ("sizes", sizes, ("loads",)),
    ("ids", ids, ("loads", "sizes")),
    ("special ids", special_ids, ("loads", "sizes")),
    ("tied head", tied_head, ("loads", "sizes")),
    ("finite weights", finite_weights, ("loads", "sizes")),
    ("zero rows", zero_rows, ("loads", "sizes", "finite weights")),
    ("row lengths", row_lengths, ("loads", "sizes", "finite weights")),
    ("breaker tokens", breaker_tokens, ("loads", "sizes", "tied head", "finite weights")),
    ("generation", generation, ("loads", "sizes", "tied head", "finite weights")),
    ("GGUF", gguf_readiness, ("loads", "sizes")),
)


def check_folder(name: str, progress: Progress = silent) -> Check:
    """Check a model's folder.

    Raises `InputError` when there is no such model.

    Parameters
    ----------
    name : model folder, or catalogue name, GGUF file or hub id
    progress : called with each check
    """
    case, findings, left_out = FolderCase(name), {}, {}
    findings["loads"] = loads(case)
    for number, (check, look, rests_on) in enumerate(_CHECKS):
        progress(number / len(_CHECKS), check)
        stopped = {other for other, one in findings.items() if one.severity == "fail" or "unread" in one.values}
        broken = [other for other in rests_on if other in left_out or other in stopped]
        if broken or (not rests_on and case.vocabulary is None):
            left_out[check] = (broken or ["loads"])[0]
        else:
            try:
                findings[check] = look(case)
            except InputError as error:
                findings[check] = Finding(check, "fail", str(error), "Correct the folder and check again.")
    progress(1.0, "checked")
    return Check(list(findings.values()), left_out)


def loads(case: FolderCase) -> Finding:
    """Whether transformers loads tokenizer and model, with all weights."""
    advice = "Save the whole model again."
    scales, settings = scales_among(case.unexpected), quantization_of(case.folder)
    if settings is not None and case.tokenizer_error is None and (case.model_error or scales):
        try:
            files_of_tensors(case.folder)
        except InputError as damage:  # which has nothing to do with the method
            return Finding("loads", "fail", str(damage), advice)
        reason = first_line(case.model_error) if case.model_error else f"it leaves out {len(scales)} scales"
        evidence = f"The model is quantised ({method_of(settings)}), and transformers does not read it here: {reason}."
        return Finding("loads", "warn", evidence, "Check it where the method's package runs.", {"unread": reason})
    if scales:
        evidence = f"transformers leaves out {len(scales)} scales of quantised weights, such as {scales[0]}."
        return Finding("loads", "fail", evidence, "Give config.json the settings of its quantization.")
    for what, error in (("tokenizer", case.tokenizer_error), ("model", case.model_error)):
        if error is not None:
            return Finding("loads", "fail", f"The {what} cannot be loaded: {first_line(error)}.", advice)
    model = case.model
    wanted = sorted(case.missing - case.head_names)
    misfits = sorted(case.misfits.keys() - case.vocabulary_names)
    if wanted or misfits:
        first = (wanted or misfits)[0]
        evidence = f"{len(wanted)} weights are missing and {len(misfits)} have another shape; the first is {first}."
        return Finding("loads", "fail", evidence, advice, {"missing": wanted, "misfits": misfits})
    values = {"weights": sum(weight.numel() for weight in model.parameters()), "unexpected": sorted(case.unexpected)}
    evidence = f"{type(model).__name__}, {values['weights']:,} weights in {str(model.dtype).removeprefix('torch.')}"
    if case.unexpected:
        evidence += f"; {len(case.unexpected)} tensors are not used, such as {sorted(case.unexpected)[0]}"
        advice = "transformers does not use them. Find out whether another program does before you remove them."
        return Finding("loads", "warn", f"{evidence}.", advice, values)
    tokens = f"{case.vocabulary.size:,} ids of a {case.vocabulary.kind} tokenizer"
    return Finding("loads", "ok", f"{evidence}; {tokens}.", values=values)
