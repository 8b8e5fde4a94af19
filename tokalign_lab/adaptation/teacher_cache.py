"""A teacher's predictions for the training text, stored on disk once and read by every run.

Each position has its k best tokens (int32), their log probabilities (float16) and the log of the probability of all
others (float32). With k = 64 these are 388 bytes; the full prediction over 262k tokens would take a megabyte. The log
probabilities are at temperature 1. The probability of the others is summed for one temperature T, because the sum of
p^(1/T) over tokens that are not stored cannot be computed from the sum of p. So T is part of the key; weight and
direction are not. float16 rounds a log probability by at most one part in 2048.

The name of the folder is a hash of the inputs: the teacher's weights and settings, the ids and positions of the blocks,
whether documents are separated, k and T. It is written under another name, block by block, and renamed when it is
complete. After a kill, writing continues from the last complete batch if the checksums up to there match; else it
starts again.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from tokalign_lab.adaptation.data import Mix, PackedBlocks
from tokalign_lab.adaptation.distillation import KeptPredictions
from tokalign_lab.adaptation.teacher import Teacher
from tokalign_lab.errors import InputError
from tokalign_lab.files import cache_folder, damage, hash_of, seal, write_json
from tokalign_lab.locks import lock_or_refuse
from tokalign_lab.progress import Progress, silent
from tokalign_lab.provenance import installed_versions, now

_log = logging.getLogger("tokalign_lab")

_FILES: dict[str, np.dtype[Any]] = {
    "input_ids": np.dtype("<i4"),
    "log_probs": np.dtype("<f2"),
    "log_rest": np.dtype("<f4"),
}
_READ_BYTES = 2**20
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}


class TeacherCache:
    """Predictions on disk, memory-mapped.

    Attributes
    ----------
    length : tokens per block; a block has one prediction fewer
    numbers : int64 (blocks,), ascending: the stored blocks of the text
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "teacher.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.length: int = meta["length"]
        self.numbers = np.load(folder / "numbers.npy")
        self._arrays = {
            name: np.memmap(folder / name, dtype, "r").reshape(_shape(name, len(self.numbers), self.length, meta["k"]))
            for name, dtype in _FILES.items()
        }

    def predictions(self, blocks: Sequence[int], device: torch.device | str = "cpu") -> KeptPredictions:
        """Return the stored predictions of some blocks: len(blocks) * (length - 1) positions, block by block.

        Raises `InputError` for a block that is not stored.
        """
        wanted = np.asarray(blocks, dtype=np.int64)
        places = np.searchsorted(self.numbers, wanted).clip(max=len(self.numbers) - 1)
        missing = wanted[self.numbers[places] != wanted]
        if len(missing):
            raise InputError(f"The teacher's predictions of block {missing[0]} were not kept; keep them again.")
        ids, log_probs, log_rest = (
            torch.from_numpy(np.array(self._arrays[name][places])).to(device).flatten(0, 1) for name in _FILES
        )
        return KeptPredictions(ids.long(), log_probs.float(), log_rest)


def keep_predictions(
    teacher: Teacher,
    blocks: PackedBlocks | Mix,
    numbers: Sequence[int],
    k: int,
    temperature: float = 1.0,
    apart: bool = False,
    progress: Progress = silent,
    interrupt: Callable[[], None] = lambda: None,
) -> TeacherCache:
    """Run a teacher on the training text and store its predictions; stored predictions are reused.

    Raises `InputError` if k does not fit the vocabulary, or another process writes the same predictions.

    Parameters
    ----------
    teacher : the teacher
    blocks : the training text, in sequences that the teacher can read
    numbers : the blocks that the run trains on, at least one
    k : tokens to store at each position
    temperature : the temperature of the student's training
    apart : separate the documents of a block
    progress : called with the share of blocks that were read
    interrupt : called between batches; its exceptions stop the work, and the next call continues it
    """
    if not 1 <= k < teacher.vocabulary.size:
        raise InputError(f"k is {k}; keep at least 1 token and fewer than the {teacher.vocabulary.size} there are.")
    chosen = np.unique(np.asarray(numbers, dtype=np.int64))
    length = len(blocks.block(int(chosen[0]))[0])
    about = {
        "fingerprint": teacher.fingerprint(),
        "blocks": hash_of(np.asarray(blocks.block(int(i)), "<i8").tobytes() for i in chosen),
        "numbers": hash_of([chosen.astype("<i8").tobytes()]),
        "length": length,
        "k": k,
        "temperature": float(temperature),
        "apart": apart,
    }
    folder = cache_folder() / "teacher" / hash_of([json.dumps(about, sort_keys=True).encode()])[:32]
    if folder.is_dir() and (reason := damage(folder)):
        _log.warning("%s in the cache is damaged (%s); rebuilding it", folder, reason)
        shutil.rmtree(folder)
    if not folder.is_dir():
        unfinished = folder.with_name(f".{folder.name}.part")
        folder.parent.mkdir(parents=True, exist_ok=True)
        refusal = f"Another process is writing the teacher's predictions to '{unfinished}'; wait until it has ended."
        locked = folder.with_name(f".{folder.name}.lock")  # not in the folder, which is renamed
        with lock_or_refuse(locked, refusal):
            if not folder.is_dir():  # another process may have finished it in the meantime
                unfinished.mkdir(exist_ok=True)
                _write(teacher, blocks, chosen, k, temperature, apart, unfinished, progress, interrupt)
                np.save(unfinished / "numbers.npy", chosen)
                teacher_name = {"teacher": teacher.vocabulary.name, "tokenizer": teacher.vocabulary.fingerprint}
                made = {"made": now(), "versions": installed_versions()}
                write_json(unfinished / "teacher.json", {**about, **teacher_name, **made})
                (unfinished / "done.json").unlink()
                seal(unfinished)
                os.replace(unfinished, folder)
            locked.unlink()
    return TeacherCache(folder)


def _write(
    teacher: Teacher,
    blocks: PackedBlocks | Mix,
    chosen: np.ndarray[Any, np.dtype[np.int64]],
    k: int,
    temperature: float,
    apart: bool,
    folder: Path,
    progress: Progress,
    interrupt: Callable[[], None],
) -> None:
    """Write the files of `folder`, beginning after the last complete batch."""
    length = len(blocks.block(int(chosen[0]))[0])
    batch = max(1, _BATCH_TOKENS.get(teacher.device.type, _BATCH_TOKENS["cpu"]) // length)
    done, sums = _done(folder, length, k)
    files = {name: _opened(folder / name, done * _block_bytes(name, length, k)) for name in _FILES}
    try:
        while done < len(chosen):
            interrupt()
            progress(done / len(chosen), "the teacher reads the text")
            here = chosen[done : done + batch]
            ids, positions = (
                torch.from_numpy(np.stack(part)) for part in zip(*(blocks.block(int(i)) for i in here), strict=True)
            )
            made = teacher.best(ids, k, temperature, positions if apart else None)
            for (name, file), values in zip(files.items(), made, strict=True):
                content = values.cpu().numpy().astype(_FILES[name]).tobytes()
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                sums[name] = zlib.crc32(content, sums[name])
            done += len(here)
            write_json(folder / "done.json", {"blocks": done, "crc32": sums})
    finally:
        for file in files.values():
            file.close()
    progress(1.0, "the teacher's predictions are kept")


def _done(folder: Path, length: int, k: int) -> tuple[int, dict[str, int]]:
    """Return the number of complete blocks in an unfinished folder, and the CRC-32 of each file up to there."""
    nothing = 0, dict.fromkeys(_FILES, 0)
    state = folder / "done.json"
    if not state.exists():
        return nothing
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
        done, sums = int(found["blocks"]), {name: int(found["crc32"][name]) for name in _FILES}
        whole = all(_checksum(folder / name, done * _block_bytes(name, length, k)) == sums[name] for name in _FILES)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        _log.warning("The unfinished predictions in %s are damaged; making them again", folder)
        return nothing
    return done, sums


def _checksum(path: Path, size: int) -> int | None:
    """Return the CRC-32 of the first bytes of a file; None if it has fewer."""
    found, left = 0, size
    with path.open("rb") as file:
        while block := file.read(min(left, _READ_BYTES)):
            found, left = zlib.crc32(block, found), left - len(block)
    return None if left else found


def _opened(path: Path, size: int) -> IO[bytes]:
    """Open a file to continue after `size` bytes; later bytes are unfinished and dropped."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


def _shape(name: str, blocks: int, length: int, k: int) -> tuple[int, ...]:
    return (blocks, length - 1) if name == "log_rest" else (blocks, length - 1, k)


def _block_bytes(name: str, length: int, k: int) -> int:
    return math.prod(_shape(name, 1, length, k)) * _FILES[name].itemsize
