"""Programs of other authors, run unchanged in separate environments, to compare them with ours.

    python3 -m venv PEERS
    PEERS/bin/pip install torch==2.13.0
    PEERS/bin/pip install deepfocus==1.0.1 mergekit==0.1.5 wechsel==0.0.4 glovpy==0.2.0

(fastText is compiled, so this needs a C++ compiler.) Each program gets the folder of the source model, the folder of
the target tokenizer and, except mergekit, the same text that we train on. It makes embedding rows in float32; we put
only these into the source model, and measure its bits per byte with our own code. A program that fails raises
`PeerFailed` with the last line that it printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent


class PeerFailed(RuntimeError):
    """Another program failed; the message is the last line that it printed."""


@dataclass(frozen=True)
class PeerRows:
    """Rows made by another program.

    Attributes
    ----------
    input : np.ndarray
        Rows of the input embedding, float32 (ids, d).
    output : np.ndarray or None
        Rows of the head; None if it is tied.
    seconds : float
        Wall time of the whole program.
    """

    input: NDArray[np.float32]
    output: NDArray[np.float32] | None
    seconds: float


def run_focus(python: Path, source: Path, target: Path, text: Path, seed: int) -> PeerRows:
    """Run FOCUS as `deepfocus` ships it (`deepfocus_rows.py`)."""
    return _run_script(python, "deepfocus_rows.py", source, target, text, seed)


def run_wechsel(python: Path, source: Path, target: Path, text: Path) -> PeerRows:
    """Run WECHSEL within one language as `wechsel` ships it (`wechsel_rows.py`)."""
    return _run_script(python, "wechsel_rows.py", source, target, text, 0)


def run_tokensurgeon(python: Path, source_model: Any, source: Path, donor_model: Any, donor: Path) -> PeerRows:
    """Run OMP as `mergekit-tokensurgeon` ships it, on models that are first saved in float32.

    Parameters
    ----------
    python
        Interpreter of the peers' environment, in the same folder as the program.
    source_model, donor_model
        Models loaded in float32; mergekit keeps the dtype of its input.
    source, donor
        Folders of their tokenizers.
    """
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as work:
        folders = [Path(work) / name for name in ("source", "donor", "result")]
        for model, tokenizer, folder in zip((source_model, donor_model), (source, donor), folders, strict=False):
            model.save_pretrained(folder)
            for file in [*tokenizer.glob("*token*"), *tokenizer.glob("*.jinja")]:
                shutil.copy(file, folder)
        program = python.parent / "mergekit-tokensurgeon"
        options = ["--approximation-method", "omp", "--k", "64"]
        seconds = _run([program, *folders, *options], Path(work), {})
        made = AutoModelForCausalLM.from_pretrained(folders[2], dtype="float32")
        head = made.get_output_embeddings().weight
        rows = made.get_input_embeddings().weight
        output = None if head is rows else head.detach().numpy()
        return PeerRows(rows.detach().numpy(), output, seconds)


def run_gold(
    python: Path,
    student: Path,
    teacher: Path,
    text: Path,
    result: Path,
    steps: int,
    batch_size: int,
    length: int,
    learning_rate: float,
    seed: int,
) -> float:
    """Run cross-tokenizer distillation by TRL's GOLD (`gold_train.py` describes its environment and its limits).

    Parameters
    ----------
    python
        Interpreter of that environment.
    student, teacher
        Model folders with their tokenizers.
    text
        Passages, one per line: JSONL with the field `text`.
    result
        The folder for the tuned student and `losses.json`.
    steps, batch_size, length, learning_rate, seed
        Optimiser steps, passages per step, maximum tokens of a passage, peak rate of a cosine schedule, seed.

    Returns
    -------
    float
        Seconds of the whole program.
    """
    options: dict[str, Any] = {
        "--student": student, "--teacher": teacher, "--text": text, "--result": result, "--steps": steps,
        "--batch-size": batch_size, "--length": length, "--learning-rate": learning_rate, "--seed": seed,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        pairs = [part for option in options.items() for part in option]
        return _run([python, HERE / "gold_train.py", *pairs], Path(work), {"TRL_EXPERIMENTAL_SILENCE": "1"})


def _run_script(python: Path, script: str, source: Path, target: Path, text: Path, seed: int) -> PeerRows:
    with tempfile.TemporaryDirectory() as work:
        result = Path(work) / "rows.npz"
        arguments = ["--source", source, "--target", target, "--text", text, "--seed", str(seed), "--result", result]
        # One thread, because several threads of fastText give different results in each run.
        seconds = _run([python, HERE / script, *arguments], Path(work), {"OMP_NUM_THREADS": "1"})
        with np.load(result) as arrays:
            output = arrays.get("output")
            return PeerRows(arrays["input"], output, seconds)


def _run(command: list[Any], work: Path, variables: dict[str, str]) -> float:
    """Run a program offline with a separate cache; return the seconds it took."""
    offline = {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(work / "cache"), "HF_HOME": str(work / "hf")}
    log = work / "log.txt"
    started = time.perf_counter()
    with open(log, "w") as file:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=file, stderr=file, env={**os.environ, **offline, **variables}
        )
    if process.wait():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise PeerFailed(f"exit code {process.returncode}: {lines[-1].strip() if lines else 'it wrote nothing'}")
    return time.perf_counter() - started
