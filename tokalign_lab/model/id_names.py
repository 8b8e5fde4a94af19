"""Find the entries of a configuration that contain token ids.

transformers declares the entries of each type of configuration, and the names of those with ids follow a pattern; a
test with renumbered ids (`benchmarks/architectures.py`) shows that none is missed. A configuration may also have
undeclared entries, from an older version, custom code or a server. For these, the words of the name and the value
decide.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from transformers import GenerationConfig

_DECLARED = re.compile(
    r"(\w+_)?token_(id|index|idx)(s|es)?|"
    r"(\w+_)?(bos|eos|eod|pad|unk|mask|sep|cls)_(ids?|index|idx)|"
    r"(?!.*layer)(\w+_)?(start|end|newline|patch)_ids?|"
    r"(?!(n|num|max|min|no)_)(\w+_)?(bos|eos|pad|unk|mask|sep|cls|image|video|audio|speech|start|end)_token|"
    r"(begin_)?suppress_tokens|bad_words_ids|force_words_ids|forced_decoder_ids|sequence_bias|logit_bias"
)
_NUMBERS = {"id", "ids", "idx", "index", "token", "tok"}  # several indexes are of layers
# one of these is a count, several are ids
_SEVERAL = {"tokens", "toks", "vocab", "vocabulary", "stop", "stops", "terminators", "suppress", "banned"}
_EDGE_OF_A_TEXT = re.compile("[be]o[acdimpstv]|unk")
_MARKS = {"start", "begin", "end", "stop", "pad", "newline", "sep", "separator", "break", "placeholder"}
_MARKED = {"im", "image", "img", "vision", "visual", "video", "audio", "speech", "sound", "tool", "think", "turn"}
# words of sizes and counts, and of numbered parts of a model that are not tokens
_NO_TOKENS = {
    "n", "num", "number", "count", "min", "max", "size", "sizes", "len", "length", "lengths", "per", "dim", "dims",
    "width", "height", "depth", "ratio", "rate", "scale", "factor", "multiple", "limit", "budget", "window",
    "position", "positions", "offset", "stride", "pattern", "period", "interval", "top", "topk", "bits",
    "layer", "layers", "head", "heads", "expert", "experts", "block", "blocks", "group", "groups", "channel",
    "channels", "stage", "stages", "feature", "features", "kernel", "conv", "attn", "attention", "hook", "label",
    "labels", "out", "codebook", "embedding", "type", "types", "shift", "job", "run",
    "gpu", "device", "process", "epoch", "step", "steps", "seed", "version",
}  # fmt: skip
_FIRST_OF_VALUES = 256  # a smaller number is too often something else


def is_declared(config: Any, name: str) -> bool:
    """Whether transformers declares an entry of a configuration; its name then decides whether it contains ids."""
    if isinstance(config, GenerationConfig):
        return name in vars(GenerationConfig())
    return name.startswith("_") or (
        dataclasses.is_dataclass(config) and name in {field.name for field in dataclasses.fields(config)}
    )


def holds_ids(config: Any, name: str, value: Any) -> bool:
    """Whether an entry contains token ids in any form (an int, a list, a mapping); see the docstring of this module.

    Parameters
    ----------
    config : a configuration of transformers, or a plain mapping inside one
    name, value : the entry
    """
    if not isinstance(value, int | list | tuple | dict) or isinstance(value, bool):
        return False
    if _DECLARED.fullmatch(name):
        return True
    if is_declared(config, name) or words_of(name) & _NO_TOKENS or _is_numbering(value):
        return False
    words, several = words_of(name), not isinstance(value, int)
    return bool(
        words & _NUMBERS
        or (several and words & _SEVERAL)
        or (words & _MARKS and words & _MARKED)
        or any(_EDGE_OF_A_TEXT.fullmatch(word) for word in words)
    )


def may_be_an_id(config: Any, name: str, value: Any) -> bool:
    """Whether an entry is a number that could be an id, although its name does not show it."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= _FIRST_OF_VALUES
    return is_number and not is_declared(config, name) and not words_of(name) & _NO_TOKENS


def words_of(name: str) -> set[str]:
    """Return the words of a name such as `image_newline_idx`, `imageTokenId` or `lang2id`."""
    return {word.lower() for word in re.findall("[A-Z]?[a-z]+", name)}


def _is_numbering(value: Any) -> bool:
    """Whether a mapping numbers its keys from 0 (labels, languages), which ids of tokens do not."""
    return isinstance(value, dict) and sorted(map(str, value.values())) == sorted(map(str, range(len(value))))
