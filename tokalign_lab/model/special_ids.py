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
from transformers import PretrainedConfig

from tokalign_lab.errors import InputError
from tokalign_lab.token_table import ROLES
from tokalign_lab.vocabulary import Vocabulary, shared_roles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROLE = re.compile(r"(bos|eos|pad)_(token_)?(id|index|idx)s?")
_SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
_LISTS = ("forced_decoder_ids", "force_words_ids", "sequence_bias")
_NAMES_AN_ID = re.compile(
    r"(\w+_)?token_(id|index|idx)(s|es)?|"
    r"(\w+_)?(bos|eos|eod|pad|unk|mask|sep|cls)_(ids?|index|idx)|"
    r"(?!.*layer)(\w+_)?(start|end|newline|patch)_ids?|"
    r"(\w+_)?(bos|eos|pad|unk|mask|sep|cls|image|video|audio|speech|start|end)_token"
)
_PLACEHOLDER = re.compile(r"image|video|vision|audio|speech|modal|(^|_)[be]o[aiv]_")


def move_special_ids(model: PreTrainedModel, source: Vocabulary, target: Vocabulary, old_rows: int) -> None:
    """Rewrite the special ids in `model.config`, its parts and `model.generation_config`, in place.

    `old_rows` is the `vocab_size` before; a part with another one, for sounds say, has ids of its own. Raises
    `InputError` when the target has no token for the place of an image or sound, or a configuration takes no other id.
    """
    mover = _Mover(source, target, {old_rows, model.config.get_text_config().vocab_size})
    if model.generation_config is not None:
        mover.move(model.generation_config, "")
    mover.move(model.config, "config.")


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

    def __init__(self, source: Vocabulary, target: Vocabulary, sizes: set[int]) -> None:
        self._source, self._target, self._sizes = source, target, sizes
        roles = set(target.roles.values())
        # a role may inherit its row from another role (a new bos from the old eos), but bos does not end a text
        self._controls = {old: new for new, old in shared_roles(source, target).items() if new not in roles}
        shared = [role for role in reversed(ROLES) if role in source.roles and role in target.roles]
        self._same_role = {source.roles[role]: target.roles[role] for role in shared}  # bos before pad

    def move(self, config: Any, place: str) -> None:
        """Rewrite the ids of one configuration and its parts; `place` is its name in errors, "" for generation."""
        held = config if isinstance(config, dict) else vars(config)
        foreign = held.get("vocab_size") not in {None, *self._sizes}  # these are ids of another vocabulary
        for name, value in list(held.items()):
            if isinstance(value, dict | PretrainedConfig) and name != "vocabulary_map":
                inner = value if isinstance(value, dict) else vars(value)
                if not foreign or inner.get("vocab_size") in self._sizes:
                    self.move(value, f"{place}{name}.")
            elif foreign:
                continue
            elif role := _ROLE.fullmatch(str(name)):
                unique = list(dict.fromkeys(self._role(role[1], value)))
                _put(config, name, None if not unique else unique[0] if len(unique) == 1 else unique, self._target)
            elif name in _SUPPRESSED:
                _put(config, name, self._suppressed(value), self._target)
            elif name in _LISTS:
                _put(config, name, None, self._target)
            elif name == "vocabulary_map" and value and any(self._moved(old) != old for old in value.values()):
                raise InputError(
                    f"The model's {place}vocabulary_map gives ids to tokens of images, which {self._target.name} does "
                    "not have at these ids; the model cannot have this vocabulary."
                )
            elif _NAMES_AN_ID.fullmatch(str(name)) and (ids := _as_list(value)):
                self._move_named(config, name, value, ids, place)

    def _move_named(self, config: Any, name: str, value: Any, ids: list[int], place: str) -> None:
        moved = [self._moved(old, name) for old in ids]
        marks_a_place = bool(place and _PLACEHOLDER.search(name))
        if marks_a_place and min(ids) >= max(*self._sizes, self._target.size):
            return  # an id that no text has, before and after
        if None in moved and marks_a_place:
            raise InputError(
                f"The model's {place}{name} is {value} ({self._said(ids[moved.index(None)])}), which "
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
            ends = [self._controls.get(old, self._alike(old)) for old in _as_list(value) if self._is_mark(old)]
            ids += [end for end in ends if end is not None]
        return ids

    def _suppressed(self, value: Any) -> list[Any] | None:
        """Move the ids that generation must not write, or sequences of them; those without the same token go."""
        kept: list[Any] = []
        for one in value or ():
            moved = [self._moved(old) for old in _as_list(one)]
            if moved and None not in moved:
                kept.append(moved if isinstance(one, list) else moved[0])
        return kept or None

    def _is_mark(self, old: int) -> bool:
        """Whether an id is a special or an added token of the source: no text ends at an ordinary one."""
        return 0 <= old < self._source.size and (
            bool(self._source.is_control[old]) or old in self._source.tokenizer.added_tokens_decoder
        )

    def _alike(self, old: int) -> int | None:
        """Return the target's control token of the same string, or its token of the same bytes."""
        if not 0 <= old < self._source.size:
            return None
        spelled = self._source.token_bytes[old]
        if spelled is not None:
            return self._target.id_of_bytes(spelled)
        found = self._target.id_of_raw(self._source.raw_token(old))
        return found if found is not None and self._target.is_control[found] else None

    def _moved(self, old: int, name: str = "") -> int | None:
        for role in ROLES:  # one id may have several roles; the name gives the right one
            if role in name and self._source.roles.get(role) == old and role in self._target.roles:
                return self._target.roles[role]
        return self._same_role.get(old, self._controls.get(old, self._alike(old)))

    def _said(self, old: int) -> str:
        return self._source.raw_token(old) if 0 <= old < self._source.size else "a row without a token"


def _put(config: Any, name: str, value: Any, target: Vocabulary) -> None:
    """Set an id; if a configuration requires one and there is none, use the token that separates texts."""
    if isinstance(config, dict):
        config[name] = value
        return
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
