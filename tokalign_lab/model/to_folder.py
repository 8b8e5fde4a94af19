"""Turn a model, given by name, into a folder with the new vocabulary: rearrange, calibrate if requested, save.

The command and the run of the same name call this. `stream` goes through the model's files shard by shard if possible.
Only calibration, which reads text with the model, and weights that are not safetensors (a `.bin`) need the model in
memory. The folder is the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tokalign_lab.documents import check_sources
from tokalign_lab.errors import InputError
from tokalign_lab.files import check_replaceable
from tokalign_lab.model.calibrate import CannotCalibrate, calibrate_on, plain_calibration_errors
from tokalign_lab.model.load import files_of, load_dequantized, load_model
from tokalign_lab.model.quantised import config_of, method_of, quantization_of
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.model.rows import padded_size
from tokalign_lab.model.save import is_saved_model, save_model
from tokalign_lab.model.shards import Shards, check_further_heads, weights_hash
from tokalign_lab.model.sizes import IN_MEMORY, bytes_of_files
from tokalign_lab.model.special_ids import lost_ids
from tokalign_lab.model.special_tokens import choose, keep_special_tokens
from tokalign_lab.model.stream import rearrange_files
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.provenance import read_record
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokalign_lab.alignment.lexicon import Lexicon


def check_choices(calibrate: Sequence[str] | None, keep_tied: bool, pad_to_multiple_of: int | None) -> None:
    """Check before the work begins that the choices are compatible.

    Raises `InputError` if a text cannot be found, calibration is to leave the head tied, or the multiple is not
    positive.
    """
    padded_size(1, pad_to_multiple_of)
    if calibrate:
        check_sources(calibrate)
        if keep_tied:
            raise InputError("Calibration unties the head, so calibrate and keep_tied exclude each other.")


def rearrange_to_folder(
    model: str,
    lexicon: Lexicon,
    source: Vocabulary,
    target: Vocabulary,
    out: Path,
    seed: int = 0,
    keep_tied: bool = False,
    pad_to_multiple_of: int | None = None,
    calibrate: Sequence[str] | None = None,
    progress: Progress = silent,
    dequantize: bool = False,
    special_tokens: str | None = None,
) -> dict[str, Any]:
    """Give a saved model the lexicon's target vocabulary and save it for transformers.

    Raises `InputError` as `rearrange`, `load_model`, `save_model`, `calibrate` and `keep_special_tokens`. Returns
    `vocab_size` (rows of the matrices), `streamed` (true if the model was never in memory), `special_tokens` ("keep" or
    "target"), `added_tokens` (how many were added to the target), `lost` (what the source had and the folder lacks, one
    sentence each) and, if it was asked for, `calibration`.

    Parameters
    ----------
    model : catalogue name, model folder, GGUF file or hub id
    lexicon, source, target, seed, keep_tied, pad_to_multiple_of : as for `rearrange`
    out : the new folder; see `save_model`
    calibrate : texts to calibrate the output on; without any it is not changed
    progress : called with each step
    dequantize : turn a quantised model into one with plain weights. Otherwise its body is not changed, and calibration
        is refused.
    special_tokens : "keep": add the source's control tokens to the target, with their rows, so that chat template, eos
        and pad do not change. "target": only the target's own. The default is "keep" for a model with a chat template.
    """
    check_choices(calibrate, keep_tied, pad_to_multiple_of)
    check_replaceable(out, is_saved_model)
    lexicon.check(source, target)
    kept, size_before = choose(special_tokens, source), target.size
    card: dict[str, Any] = {"model": model, "lexicon": lexicon.provenance}
    if kept == "keep":
        lexicon, target = keep_special_tokens(lexicon, source, target)
    result: dict[str, Any] = {"special_tokens": kept, "added_tokens": target.size - size_before}
    folder = files_of(model)
    card["source_weights"] = weights_hash(folder)
    quantised = quantization_of(folder)
    if quantised is not None and calibrate and not dequantize:
        raise CannotCalibrate(f"The model is quantised ({method_of(quantised)}); to calibrate it, also dequantize it.")
    needed = IN_MEMORY * bytes_of_files(folder)
    if calibrate and needed > psutil.virtual_memory().available:
        raise CannotCalibrate(f"It needs the whole model in memory, about {needed / 1e9:.1f} GB, which are not free.")
    in_memory = bool(calibrate) or (dequantize and quantised is not None)
    shards = None if in_memory else Shards.open(folder)
    if shards is None:
        with plain_calibration_errors() if calibrate and not dequantize else nullcontext():
            check_further_heads(folder, "rearrange it without calibrate and dequantize, from safetensors files")
    if shards is not None:
        card["lost"] = _left_behind(folder) + lost_ids(shards.outline, source, target)
        choices = (seed, keep_tied, pad_to_multiple_of)
        size = rearrange_files(shards, lexicon, source, target, out, *choices, card, progress)
        return {"vocab_size": size, "streamed": True, **result, "lost": read_record(out).get("lost", [])}
    progress(0.0, "loading the model")
    whole = load_dequantized(model) if dequantize else load_model(model, device="cpu", dtype="auto")
    progress(0.3, "moving the rows")
    card["lost"] = _left_behind(folder) + lost_ids(whole, source, target)
    moved = rearrange(whole, lexicon, source, target, seed, keep_tied, pad_to_multiple_of)
    if calibrate:
        split = lexicon.provenance.get("split")
        with plain_calibration_errors():
            done = calibrate_on(moved, target, calibrate, seed, part(progress, 0.5, 0.9), split, (whole, source))
        card["calibration"] = {"text": list(calibrate), **done.to_dict()}
    del whole
    save_model(moved, target, out, card=card, source=source)
    progress(1.0, "saved")
    made = {"vocab_size": int(moved.get_input_embeddings().weight.shape[0]), "streamed": False, **result}
    made["lost"] = read_record(out).get("lost", [])
    return made | ({"calibration": card["calibration"]} if calibrate else {})


def _left_behind(folder: Path) -> list[str]:
    """Return what is not copied, one sentence each: files for images and sounds, and code in the folder."""
    left = []
    if files := ", ".join(sorted(file.name for file in folder.glob("*processor_config.json"))):
        left.append(
            f"The new folder lacks {files} and so reads text only; to use images or sounds, copy each file from the "
            "source and set the tokens and ids in it to the new tokenizer's."
        )
    config = config_of(folder)
    if "auto_map" in config:
        left.append(
            f"The model names code of its own (auto_map), which is never run: it was read as {config['model_type']!r} "
            "of transformers, which may compute something else; compare the two before you use it."
        )
    return left
