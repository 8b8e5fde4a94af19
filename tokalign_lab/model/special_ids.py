"""Move the ids in a model's configuration to the new vocabulary.

A model that keeps its source's `eos_token_id` never stops, or stops at "!": the Pythia that the papers' code converts
does. `config` and `generation_config` each name bos, eos and pad, eos may be a list, and some models name more: the
token in place of an image, the one that begins it. Each becomes the target's id of the same role, of the same control
string or of the same bytes, or is dropped.

Dropping an id must not change what the model computes. Dropping the id in place of an image would, and so would pad if
positions are counted from it. Without the same token in the target such a model is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn

from tokalign_lab.errors import InputError
from tokalign_lab.vocabulary import Vocabulary, shared_roles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROLES = ("bos", "eos", "pad")
_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "forced_decoder_ids", "sequence_bias")
_NAMES_AN_ID = re.compile(r"(\w+_)?token_(id|index)(s|es)?|(bos|eos|pad|unk|mask|sep|cls)_(id|index)")
_PLACEHOLDER = re.compile(r"image|video|vision|audio|speech|modal|(^|_)[be]o[aiv]_")


def move_special_ids(model: PreTrainedModel, source: Vocabulary, target: Vocabulary) -> None:
    """Rewrite the special ids in `model.config`, its parts and `model.generation_config`, in place.

    Raises `InputError` when the target has no token for the place of an image or sound, or a configuration takes no
    other id.
    """
    rows = model.config.get_text_config().vocab_size
    mover = _Mover(source, target, rows)
    if model.generation_config is not None:
        mover.move(model.generation_config, "")
    parts = [("", model.config)]
    parts += [(f"{name}.", part) for name in model.config.sub_configs if (part := getattr(model.config, name, None))]
    for name, config in parts:
        if getattr(config, "vocab_size", rows) == rows:  # another vocabulary, of sounds say, has its own ids
            mover.move(config, f"config.{name}")


def check_positions(model: PreTrainedModel, target: Vocabulary) -> None:
    """Refuse a model that counts positions from its pad id, unless the target's pad has the same id.

    In RoBERTa the first token has the position of pad's id plus one, and pad has none; XGLM has no position at pad's
    id. Such a module has a `padding_idx` of its own, next to the token embedding's. Raises `InputError` when the ids
    differ.
    """
    token_embedding = model.get_input_embeddings()
    for name, module in model.named_modules():
        old = getattr(module, "padding_idx", None)
        counts = "position" in name.rpartition(".")[2] and module is not token_embedding
        if old is not None and counts and not _is_sinusoidal(module) and target.roles.get("pad") != old:
            raise InputError(
                f"The model counts positions from its pad id {old} ({name}), but pad of {target.name} is "
                f"{target.roles.get('pad', 'no token')}; use a tokenizer whose pad has this id."
            )


def _is_sinusoidal(module: nn.Module) -> bool:
    """Whether a module is a sinusoidal table, which is made without `padding_idx` (Marian, Pegasus)."""
    return isinstance(module, nn.Embedding) and type(module) is not nn.Embedding


class _Mover:
    """Moves ids from one vocabulary to another."""

    def __init__(self, source: Vocabulary, target: Vocabulary, rows: int) -> None:
        self._source, self._target, self._rows = source, target, rows
        roles = set(target.roles.values())
        # a role may inherit its row from another role (a new bos from the old eos), but bos does not end a text
        self._controls = {old: new for new, old in shared_roles(source, target).items() if new not in roles}
        self._same_role = {source.roles[role]: target.roles[role] for role in source.roles if role in target.roles}

    def move(self, config: Any, place: str) -> None:
        """Rewrite the ids of one configuration; `place` is its name in errors, "" for the generation's."""
        for name, value in list(vars(config).items()):
            role = next((role for role in _ROLES if re.fullmatch(rf"{role}_(token_)?(id|index)", name)), None)
            if role is not None:
                unique = list(dict.fromkeys(self._role(role, value)))
                _put(config, name, None if not unique else unique[0] if len(unique) == 1 else unique, self._target)
            elif name in _LISTS:
                setattr(config, name, None)
            elif _NAMES_AN_ID.fullmatch(name) and (held := _as_list(value)):
                moved = [self._moved(old) for old in held]
                marks_a_place = bool(place and _PLACEHOLDER.search(name))
                if marks_a_place and min(held) >= max(self._rows, self._target.size):
                    continue  # an id that no text has, before and after
                if None in moved and marks_a_place:
                    raise InputError(
                        f"The model's {place}{name} is {value} ({self._said(held[moved.index(None)])}), which "
                        f"{self._target.name} has no token for; keep the source's special tokens."
                    )
                kept = [new for new in moved if new is not None]
                _put(config, name, kept if isinstance(value, list) else kept[0] if kept else None, self._target)

    def _role(self, role: str, value: int | list[int] | None) -> list[int]:
        target = self._target
        ids = [target.roles[role]] if role in target.roles else []
        if role == "bos" and not ids and target.start_id is not None:
            ids = [target.start_id]  # Qwen's own configurations name their eos here: texts begin with it
        if role == "eos":  # a chat model also ends at its end-of-turn token
            ends = [self._controls.get(old, self._of_the_same_string(old)) for old in _as_list(value)]
            ids += [end for end in ends if end is not None]
        return ids

    def _of_the_same_string(self, old: int) -> int | None:
        """Return the target's control token that is written as a control token of the source."""
        if not 0 <= old < self._source.size or not self._source.is_control[old]:
            return None
        found = self._target.id_of_raw(self._source.raw_token(old))
        return found if found is not None and self._target.is_control[found] else None

    def _moved(self, old: int) -> int | None:
        found = self._same_role.get(old, self._controls.get(old))
        if found is not None or not 0 <= old < self._source.size:
            return found
        spelled = self._source.token_bytes[old]
        return None if spelled is None else self._target.id_of_bytes(spelled)

    def _said(self, old: int) -> str:
        return self._source.raw_token(old) if 0 <= old < self._source.size else "a row without a token"


def _put(config: Any, name: str, value: Any, target: Vocabulary) -> None:
    """Set an id; if a configuration requires one and there is none, use the token that separates texts."""
    options = [value] if value is not None else [None, target.roles.get("eos"), target.start_id]
    for option in options:
        try:
            setattr(config, name, option)
            if hasattr(config, "validate"):
                config.validate()
            return
        except Exception as error:  # huggingface_hub's own kinds
            refusal = error
    raise InputError(
        f"A configuration of type {config.model_type!r} takes no other {name} than its own, so this model cannot have "
        f"the vocabulary of {target.name}."
    ) from refusal


def _as_list(value: Any) -> list[int]:
    held = value if isinstance(value, list) else [value]
    return [one for one in held if isinstance(one, int) and not isinstance(one, bool)]
