"""Tokenize and continue text with llama.cpp, in a separate process.

llama.cpp ends its process when one of its assertions fails. So `ask` starts this module as a program, which reads a
request from one file and writes the answer to another. The runtime is the package `cyllama` (extra `gguf`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Output of llama.cpp for a GGUF file.

    Attributes
    ----------
    runtime : package, its version, and the build of llama.cpp in it
    ids : token ids of each text, with the special tokens that llama.cpp adds
    chosen : for each sequence, the most likely id after the prompt and after each later id except the last
    """

    runtime: str
    ids: list[list[int]]
    chosen: list[list[int]]


class LlamaCppError(RuntimeError):
    """llama.cpp could not read the file, or ended while it worked; the message is its own first line."""


def is_installed() -> bool:
    """Whether the runtime can be imported."""
    return importlib.util.find_spec("cyllama") is not None


def ask(gguf: Path, texts: Sequence[str], sequences: Sequence[tuple[list[int], list[int]]]) -> Answer:
    """Let llama.cpp tokenize texts, and choose the most likely next id at each position of some sequences.

    Raises `LlamaCppError` when llama.cpp fails.

    Parameters
    ----------
    gguf : the model's file
    texts : the texts; special tokens spelled in a text are read as special tokens
    sequences : ids of a prompt, and the ids that follow it
    """
    question = {"gguf": str(gguf), "texts": list(texts), "sequences": list(sequences)}
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "question.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps(question), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(asked), str(answered)],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise LlamaCppError(lines[-1 if "Traceback" in done.stderr else 0])
        return Answer(**json.loads(answered.read_text(encoding="utf-8")))


def _main(asked: str, answered: str) -> None:
    from importlib.metadata import version

    import cyllama
    from cyllama.llama import llama_cpp

    question = json.loads(Path(asked).read_text(encoding="utf-8"))
    build = json.loads(Path(cyllama.__file__).with_name("build_config.json").read_text(encoding="utf-8"))
    runtime = f"cyllama {version('cyllama')} (llama.cpp {build['versions']['llama_cpp_version']})"
    llama_cpp.disable_logging()
    llama_cpp.ggml_backend_load_all()
    options = llama_cpp.LlamaModelParams()
    options.n_gpu_layers = 0
    model = llama_cpp.LlamaModel(question["gguf"], options)
    vocabulary = model.get_vocab()
    ids = [list(vocabulary.tokenize(text, True, True)) for text in question["texts"]]
    chosen = [_chosen(llama_cpp, model, *sequence) for sequence in question["sequences"]]
    Path(answered).write_text(json.dumps({"runtime": runtime, "ids": ids, "chosen": chosen}), encoding="utf-8")


def _chosen(llama_cpp: Any, model: Any, prompt: list[int], following: list[int]) -> list[int]:
    options = llama_cpp.LlamaContextParams()
    options.n_ctx = len(prompt) + len(following)
    context, sampler = llama_cpp.LlamaContext(model, options), llama_cpp.LlamaSampler()
    sampler.add_greedy()
    context.decode(llama_cpp.llama_batch_get_one(prompt, 0))
    chosen = [sampler.sample(context, -1)]
    for place, token_id in enumerate(following[:-1], start=len(prompt)):
        context.decode(llama_cpp.llama_batch_get_one([token_id], place))
        chosen.append(sampler.sample(context, -1))
    return chosen


if __name__ == "__main__":
    _main(*sys.argv[1:])
