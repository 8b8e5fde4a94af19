"""Write a tokenizer so that everyone who loads the folder gets the same ids, and check this.

`AutoTokenizer` depends on the model's type as well as on the tokenizer's files. For some types (Qwen2) transformers 5
builds that type's own tokenizer from the vocabulary and the merges, with its own pre-tokenizer: a SentencePiece
tokenizer then loses its spaces without a warning. transformers 4.57 does not know the class names that transformers 5
writes. `PreTrainedTokenizerFast` is known to both and reads `tokenizer.json` unchanged. If the type's tokenizer is used
even so, `auto_map` also names a class in the folder, which makes transformers ignore the type. That class is
`PreTrainedTokenizerFast` under another name, and is imported only with `trust_remote_code=True`.

The folder is then loaded as its user will load it, and compared.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer
from tokenizers.models import BPE

from tokalign_lab.errors import InputError, first_line
from tokalign_lab.files import write_json
from tokalign_lab.model.hard_texts import TEXTS
from tokalign_lab.model.quantised import config_of
from tokalign_lab.token_table import ROLES, encode_plainly

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODE_FILE = "target_tokenizer.py"
_CODE = '''"""The tokenizer of this folder, as tokenizer.json has it."""

from transformers import PreTrainedTokenizerFast


class TargetTokenizer(PreTrainedTokenizerFast):
    """Nothing is added; `AutoTokenizer` would build another tokenizer for this type of model."""
'''
# settings of classes that build their own tokenizer; with the class below they would override tokenizer.json
_OF_A_CLASS = ("backend", "is_local", "auto_map", "add_bos_token", "add_eos_token", "local_files_only", "legacy")
_TABLE = 1_000  # entries; lists and dictionaries of settings are shorter
_OF_A_TOKEN = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def for_prompts(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Copy a tokenizer for use with a language model, which continues a text.

    The copy adds no special tokens after a text (encoders and translation models add eos), and has no truncation,
    padding and BPE dropout, which some files keep from the last use of the tokenizer or from training. The tokens that
    it adds before a text have the ids of the vocabulary; files with renumbered tokens can have their former ids.
    """
    # a class may keep tables of its tokens next to the backend; they are only read, and copying them takes seconds
    tables = (value for value in (*vars(tokenizer).values(), *tokenizer.init_kwargs.values()) if _is_table(value))
    made = copy.deepcopy(tokenizer, {id(table): table for table in tables})
    backend = made.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None) is not None:
        backend.model.dropout = None
    if backend.post_processor is not None:
        processor = json.loads(backend.post_processor.__getstate__())
        if _drop_what_follows_a_text(processor) | _renumber(processor, backend):
            state = json.loads(Tokenizer(BPE()).to_str()) | {"post_processor": processor}
            backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor
    return made


def _is_table(value: object) -> bool:
    return isinstance(value, list | dict) and len(value) > _TABLE


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer into a model's folder, which has its `config.json` already.

    Raises `InputError` if `AutoTokenizer` still reads another tokenizer from the folder.

    Parameters
    ----------
    tokenizer : a fast tokenizer, as it should be read back; see `for_prompts`
    folder : the folder
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    settings = {name: value for name, value in written.items() if name not in _OF_A_CLASS}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_input_names"] = ["input_ids", "attention_mask"]  # the class would add token_type_ids
    # llama.cpp's converter would guess these; transformers goes by tokenizer.json
    settings["add_bos_token"] = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    settings["add_eos_token"] = False  # see `for_prompts`
    extra = settings.pop("extra_special_tokens", None)
    if extra:  # transformers 4.57 wants a mapping under this name; both read the older one
        settings["additional_special_tokens"] = list(extra.values() if isinstance(extra, dict) else extra)
    usual = type(tokenizer).SPECIAL_TOKENS_ATTRIBUTES
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if name not in usual}
    if named:  # of the model's own, such as image_token; transformers 4.57 would not read them without this
        settings["extra_special_tokens"] = named
    settings["added_tokens_decoder"] = {  # llama.cpp's converter looks for added tokens here
        str(token_id): {name: getattr(token, name) for name in _OF_A_TOKEN}
        for token_id, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    write_json(path, settings)
    difference = difference_of(tokenizer, folder)
    if difference is not None:
        (folder / CODE_FILE).write_text(_CODE, encoding="utf-8")
        write_json(path, {**settings, "auto_map": {"AutoTokenizer": [None, f"{Path(CODE_FILE).stem}.TargetTokenizer"]}})
        difference = difference_of(tokenizer, folder)
    if difference is not None:
        kind = config_of(folder).get("model_type")
        because = f", because its model is of type {kind!r}" if kind else ""
        raise InputError(
            f"AutoTokenizer makes another tokenizer of the folder{because}: {difference}; choose another tokenizer."
        )


def difference_of(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str | None:
    """Load a folder with `AutoTokenizer` and describe how the result differs from a tokenizer; None if it does not.

    Compares the tokens of all ids, which of them are special, the roles, the chat template, and for `TEXTS` the ids
    (with special tokens and without) and the text that they decode to.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers each raise their own kinds
        return f"it cannot be loaded ({first_line(error)})"
    if not getattr(loaded, "is_fast", False):
        return "it is not a fast tokenizer"
    if loaded.get_vocab() != tokenizer.get_vocab():
        return "its tokens have other ids"
    if _special(loaded) != _special(tokenizer):
        return "other tokens are special"
    for role in ROLES:
        if getattr(loaded, f"{role}_token_id") != getattr(tokenizer, f"{role}_token_id"):
            return f"{role} is another token"
    if loaded.chat_template != tokenizer.chat_template:
        return "its chat template is another one"
    plain = zip(TEXTS, encode_plainly(loaded, TEXTS), encode_plainly(tokenizer, TEXTS), strict=True)
    for text, here, there in plain:
        called = [made(text)["input_ids"] for made in (loaded, tokenizer)]
        back = [made.decode(called[1]) for made in (loaded, tokenizer)]
        if here.tolist() != there.tolist() or called[0] != called[1] or back[0] != back[1]:
            return f"it gives other ids for {text[:40]!r}"
    return None


def _special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _renumber(processor: dict[str, Any], backend: Any) -> bool:
    """Set the ids in a post-processor's templates to those of their tokens; returns whether one was another."""
    changed = False
    for part in processor.get("processors", [processor]):
        for token in part.get("special_tokens", {}).values() if part["type"] == "TemplateProcessing" else ():
            ids = [backend.token_to_id(one) for one in token["tokens"]]
            if ids != token["ids"] and None not in ids:
                token["ids"], changed = ids, True
    return changed


def _drop_what_follows_a_text(processor: dict[str, Any]) -> bool:
    """Remove special tokens after the last text from a post-processor's templates; returns whether there were any."""
    if processor["type"] == "Sequence":
        return any([_drop_what_follows_a_text(part) for part in processor["processors"]])
    if processor["type"] in ("BertProcessing", "RobertaProcessing"):
        (first, first_id), text = processor["cls"], {"Sequence": {"id": "A", "type_id": 0}}
        begin = {"SpecialToken": {"id": first, "type_id": 0}}
        processor.clear()
        tokens = {first: {"id": first, "ids": [first_id], "tokens": [first]}}
        pair = [begin, text, {"Sequence": {"id": "B", "type_id": 0}}]
        processor |= {
            "type": "TemplateProcessing", "single": [begin, text], "pair": pair, "special_tokens": tokens,
        }  # fmt: skip
        return True
    if processor["type"] != "TemplateProcessing":
        return False
    dropped = False
    for template in (processor["single"], processor["pair"]):
        while template and "SpecialToken" in template[-1]:
            template.pop()
            dropped = True
    return dropped
