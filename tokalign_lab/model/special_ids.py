"""Convert the ids in a model's configuration to the new vocabulary.

A model that keeps its source's `eos_token_id` never stops, or stops at "!", as a Pythia does that the papers' code
converts. `config` and `generation_config` each name bos, eos and pad, and eos may be a list. Some models name more ids,
such as the token that stands for an image. Each id becomes the target's id of the same role, control string or bytes.
If there is none, it is dropped, and `lost_ids` reports it. `id_names` decides which entries contain ids.

Dropping an id must not change the model's output. Dropping the id that stands for an image would change it, and so
would dropping pad if positions are counted from it. If the target lacks this token, the model is refused.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from transformers import GenerationConfig, PretrainedConfig

from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.errors import InputError
from tokalign_lab.model.id_names import holds_ids, is_declared, may_be_an_id, words_of
from tokalign_lab.token_table import ROLES
from tokalign_lab.vocabulary import Vocabulary, shared_roles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROLE = re.compile(r"(bos|eos|pad)_(token_)?(id|index|idx)s?")
_PLACEHOLDER = re.compile(r"image|video|vision|audio|speech|modal|(^|_)[be]o[aiv]_")
_BIASES = {"bias", "biases"}
_SEQUENCES = {"bad_words_ids", "force_words_ids", "sequence_bias"}  # of words as the tokenizer writes them
_GONE = object()  # an id that the target lacks, or a value with one


def lost_ids(model: PreTrainedModel, source: Vocabulary, target: Vocabulary) -> list[str]:
    """List the ids that `move_special_ids` will drop, and those it is unsure about: one sentence each.

    The model has its old vocabulary, and is not changed. Raises `InputError` as `move_special_ids`.
    """
    config, generation = copy.deepcopy((model.config, model.generation_config))
    mover = move_special_ids(config, generation, source, target, config.get_text_config().vocab_size)
    lost = []
    if mover.lost:
        named = "; ".join(mover.lost)
        lost.append(
            f"{target.name} has no token for these ids of the configuration, so they are left out (or replaced by eos "
            f"where one is required): {named}; rearrange with special_tokens='keep' to keep those of special tokens."
        )
    return lost + mover.unsure


def move_special_ids(config: Any, generation: Any, source: Vocabulary, target: Vocabulary, old_rows: int) -> _Mover:
    """Rewrite the special ids in a model's configuration, its parts and its generation configuration, in place.

    `old_rows` is the `vocab_size` before; a part with another vocabulary (for audio, for example) has separate ids.
    Raises `InputError` when the target has no token for the place of an image or sound, or a configuration takes no
    other id.
    """
    mover = _Mover(source, target, {old_rows, config.get_text_config().vocab_size}, type(config.get_text_config()))
    if generation is not None:
        mover.move(generation, "generation_config.")
        mover.drop_forced(generation)
    mover.move(config, "config.")
    return mover


def check_positions(model: PreTrainedModel, target: Vocabulary) -> None:
    """Refuse a model that counts positions from its pad id, unless the target's pad has the same id.

    In RoBERTa the first token has the position of pad's id plus one, and pad has none; XGLM has no position at pad's
    id. Such a module has its own `padding_idx`, in addition to the token embedding's. Raises `InputError` when the ids
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
    """Converts ids from one vocabulary to another; `lost` and `unsure` collect what `lost_ids` reports."""

    def __init__(self, source: Vocabulary, target: Vocabulary, sizes: set[int], usual: type) -> None:
        self._source, self._target, self._sizes = source, target, sizes
        self._usual = usual  # its defaults also get into a generation_config
        roles = set(target.roles.values())
        # a role may inherit its row from another role (a new bos from the old eos), but bos does not end a text
        self._controls = {old: new for new, old in shared_roles(source, target).items() if new not in roles}
        shared = [role for role in reversed(ROLES) if role in source.roles and role in target.roles]
        self._same_role = {source.roles[role]: target.roles[role] for role in shared}  # bos before pad
        self.lost: list[str] = []
        self.unsure: list[str] = []

    def move(self, config: Any, place: str) -> None:
        """Rewrite the ids of one configuration and its parts; `place` is its name in errors, with a dot after it."""
        held = config if isinstance(config, dict) else vars(config)
        foreign = held.get("vocab_size") not in {None, *self._sizes}  # these are ids of another vocabulary
        for name, value in ((str(name), value) for name, value in list(held.items())):
            several = value if isinstance(value, list | tuple) else [value]
            parts = [part for part in several if isinstance(part, dict | PretrainedConfig)]
            if foreign:
                parts = [part for part in parts if _get(part, "vocab_size") in self._sizes]
            if name == "vocab_offset":
                self._check_offset(value, place)
            elif name == "vocabulary_map" and value and any(self._moved(old) != old for old in value.values()):
                raise InputError(
                    f"The model's {place}vocabulary_map gives ids to tokens of images, which {self._target.name} does "
                    "not have at these ids; the model cannot have this vocabulary."
                )
            elif not foreign and (role := _ROLE.fullmatch(name)):
                unique = list(dict.fromkeys(self._role(role[1], value)))
                if role[1] == "eos" and isinstance(value, list):
                    self._mention_ends(list(_ids_in(value)), f"{place}{name}")
                elif not unique and role[1] not in self._source.roles:  # else the tokenizer has lost it: reported
                    gone = [old for old in _ids_in(value) if self._is_mark(old) or old >= self._source.size]
                    self._mention_gone(config, name, value, gone, place)
                _put(config, name, None if not unique else unique[0] if len(unique) == 1 else unique, self._target)
            elif not foreign and (holds_ids(config, name, value) or self._names_its_id(config, name, value)):
                self._move_entry(config, name, value, place)
            else:
                for part in parts:
                    self.move(part, f"{place}{name}.")
                for one in () if foreign else several:
                    if may_be_an_id(config, name, one):
                        self._mention(one, f"{place}{name}")

    def drop_forced(self, generation: Any) -> None:
        """Drop a forced first or last token that the target would also suppress, which transformers refuses."""
        suppressed = set(generation.suppress_tokens or ())
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            forced = set(_ids_in(getattr(generation, name)))
            if forced and forced <= suppressed:
                self.lost.append(f"generation_config.{name} (it is also suppressed)")
                setattr(generation, name, None)

    def _mention_ends(self, ends: list[int], place: str) -> None:
        """Report the end-of-turn tokens that the target lacks."""
        others = (old for old in ends if self._is_mark(old) and old != self._source.roles.get("eos"))
        gone = [old for old in others if not self._end(old)]
        if gone:
            self.lost.append(f"{place} ({', '.join(map(self._label, gone))})")

    def _mention_gone(self, config: Any, name: str, value: Any, gone: list[int], place: str) -> None:
        """Report ids without the same token in the target, but for a default that no token of the source had."""
        is_default = value in [getattr(one, name, None) for one in (type(config), self._usual)]
        if any(old < self._source.size or not is_default for old in gone):
            what = ", ".join(self._label(old) for old in gone[:3]) + (", ..." if len(gone) > 3 else "")
            self.lost.append(f"{place}{name} ({what})")

    def _mention(self, value: int, place: str) -> None:
        new = self._moved(value)
        if self._is_mark(value) and new != value:
            token = self._source.raw_token(value)
            wanted = f"if it is one, set it to {new}" if new is not None else f"{self._target.name} has no {token}"
            self.unsure.append(
                f"{place} has {value}, the id of {token}, which was kept, since its name does not show that it is an "
                f"id; {wanted}."
            )

    def _names_its_id(self, config: Any, name: str, value: Any) -> bool:
        """Whether an entry of a mapping has a token of the source and its id there."""
        return isinstance(config, dict) and type(value) is int and self._source.id_of_raw(name) == value

    def _check_offset(self, first: Any, place: str) -> None:
        """Refuse a target with ids above the first id of images or sounds (Gemma 3n), unless these do not change."""
        source, target = self._source, self._target
        changed = range(first, target.size) if isinstance(first, int) else ()
        if any(i >= source.size or source.raw_token(i) != target.raw_token(i) for i in changed):
            raise InputError(
                f"The model's {place}vocab_offset is {first}, where ids of images or sounds begin, and {target.name} "
                f"has {target.size} ids; use a target with at most {first}."
            )

    def _move_entry(self, config: Any, name: str, value: Any, place: str) -> None:
        if name == "suppress_tokens" and isinstance(value, list):  # rows of padding go, so their ids are not lost
            unused = {*np.flatnonzero(self._source.is_hole).tolist(), *range(self._source.size, max(self._sizes))}
            value = [old for old in value if old not in unused]
            _put(config, name, value or None, self._target)
        ids = list(_ids_in(value))
        marks_a_place = bool(_PLACEHOLDER.search(name)) and not place.startswith("generation_config.")
        free = marks_a_place or not is_declared(config, name)
        if not ids or max(ids) < 0 or (free and min(ids) >= max(*self._sizes, self._target.size)):
            return  # ids that never occur in text, before and after
        per_token = isinstance(value, dict | list | tuple) and len(value) in self._sizes
        gone: list[int] = []
        moved = _GONE if per_token else self._moved_value(value, name, gone)
        if gone and marks_a_place:
            raise InputError(
                f"The model's {place}{name} is {value} ({self._label(gone[0])}), which {self._target.name} has no "
                "token for; keep the source's special tokens."
            )
        if moved is _GONE and not gone:
            self.lost.append(f"{place}{name} (in a form that cannot be moved)")
        self._mention_gone(config, name, value, gone, place)
        _put(config, name, None if moved is _GONE else moved, self._target)

    def _moved_value(self, value: Any, name: str, gone: list[int], inner: bool = False) -> Any:
        """Convert every id in a value; an item of a list with an id that the target lacks is removed from the list.

        `gone` gets the ids without one.
        """
        if isinstance(value, list | tuple):
            written = self._as_written(value) if name in _SEQUENCES else None
            if written is not None:
                return written
            fixed = int(inner and name == "forced_decoder_ids")  # a position comes before the id
            moved = [*value[:fixed], *(self._moved_value(one, name, gone, inner=True) for one in value[fixed:])]
            kept = [one for one in moved if one is not _GONE]
            whole = inner or "map" in words_of(name)  # a sequence of ids, or a list whose places have a meaning
            return _GONE if not kept or (whole and len(kept) < len(moved)) else kept
        if isinstance(value, dict):
            is_bias = bool(words_of(name) & _BIASES)  # its keys are ids, its values are not
            entries = {}
            for key, held in value.items():
                new_key = self._moved_key(key, name, gone, certain=is_bias or isinstance(held, str))
                entries[new_key] = held if is_bias else self._moved_value(held, name, gone)
            return {key: held for key, held in entries.items() if _GONE not in (key, held)} or _GONE
        if type(value) is not int or value < 0:
            return value
        new = self._moved(value, name)
        if new is None:
            gone.append(value)
        return _GONE if new is None else new

    def _as_written(self, ids: Sequence[Any]) -> list[int] | None:
        """Return the target's ids of the text that the source writes as `ids`; None if it writes no text as these."""
        known = all(type(one) is int and 0 <= one < self._source.size for one in ids)
        tokens = [self._source.token_bytes[i] for i in ids] if known else [None]
        text = b"".join(token or b"" for token in tokens)
        if None in tokens or not text or spell(self._source, [text]) != [list(ids)]:
            return None
        (written,) = spell(self._target, [text])
        return written if b"".join(self._target.token_bytes[i] or b"" for i in written) == text else None

    def _moved_key(self, key: Any, name: str, gone: list[int], certain: bool) -> Any:
        """Convert the key of an entry; `certain` if the value is no id, so that a number in the key is one."""
        if isinstance(key, tuple):  # of a sequence_bias
            ids = self._moved_value(key, name, gone, inner=True)
            return ids if ids is _GONE else tuple(ids)
        if not str(key).isdecimal():
            return key
        if not certain:
            gone.append(int(key))  # a number for an id: which of the two is an id of this vocabulary is not known
            return _GONE
        new = self._moved_value(int(key), name, gone)
        return new if new is _GONE else type(key)(new)

    def _role(self, role: str, value: int | list[int] | None) -> list[int]:
        target = self._target
        ids = [target.roles[role]] if role in target.roles else []
        if not ids and role not in self._source.roles:  # the tokenizer does not say so, but the model has one (Llama 3)
            moved = (self._moved(old) for old in _ids_in(value) if self._is_mark(old))
            ids = [new for new in moved if new is not None]
        if role == "bos" and not ids and target.start_id is not None:
            ids = [target.start_id]  # Qwen's own configurations name their eos here: texts begin with it
        if role == "eos":  # a chat model also ends at its end-of-turn token
            ids += [end for old in _ids_in(value) for end in self._end(old)]
        return ids

    def _end(self, old: int) -> list[int]:
        """Return the target's token for an end of a text or turn, at most one."""
        new = self._controls.get(old, self._alike(old)) if self._is_mark(old) else None
        return [] if new is None else [new]

    def _is_mark(self, old: int) -> bool:
        """Whether an id is a special or an added token of the source: no text ends at an ordinary one."""
        return 0 <= old < self._source.size and (
            bool(self._source.is_control[old]) or old in self._source.tokenizer.added_tokens_decoder
        )

    def _alike(self, old: int) -> int | None:
        """Return the target's control token of the same string, or its same token of text."""
        if not 0 <= old < self._source.size:
            return None
        if self._source.token_bytes[old] is not None:
            return self._target.id_of_token(self._source, old)
        found = self._target.id_of_raw(self._source.raw_token(old))
        return found if found is not None and self._target.is_control[found] else None

    def _moved(self, old: int, name: str = "") -> int | None:
        for role in ROLES:  # one id may have several roles; the name gives the right one
            if role in name and self._source.roles.get(role) == old and role in self._target.roles:
                return self._target.roles[role]
        return self._same_role.get(old, self._controls.get(old, self._alike(old)))

    def _label(self, old: int) -> str:
        return self._source.raw_token(old) if 0 <= old < self._source.size else "a row without a token"


def _put(config: Any, name: str, value: Any, target: Vocabulary) -> None:
    """Set an id; if a configuration requires one and there is none, use the token that separates texts."""
    if isinstance(config, dict):
        config[name] = value
        return
    if isinstance(config, GenerationConfig):  # it compares entries with one another, and some have not been moved yet
        setattr(config, name, value)
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


def _ids_in(value: Any) -> Iterator[int]:
    """Yield every number in a value, at any depth."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _ids_in(int(one) if isinstance(one, str) and one.isdecimal() else one)


def _get(config: Any, name: str) -> Any:
    return (config if isinstance(config, dict) else vars(config)).get(name)
