"""The ids that a model's configuration names, moved to the new vocabulary.

A model that keeps its source's `eos_token_id` after the swap never stops, or stops at "!": upstream's converted
Pythia does. `config` and `generation_config` each name bos, eos and pad, eos may be a list, and some models name
more. Every one becomes the target's id of the same role, or of the same control string, or is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokalign_lab.vocabulary import Vocabulary, shared_roles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROLES = ("bos", "eos", "pad")
_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "forced_decoder_ids", "sequence_bias")


def move_special_ids(model: PreTrainedModel, source: Vocabulary, target: Vocabulary) -> None:
    """Rewrite the special ids in `model.config` and `model.generation_config`, in place."""
    roles = set(target.roles.values())
    # a role may inherit its row from another role (a new bos from the old eos), but bos does not end a text
    controls = {old: new for new, old in shared_roles(source, target).items() if new not in roles}
    same_role = {source.roles[role]: target.roles[role] for role in source.roles if role in target.roles}
    configs: list[Any] = [model.config, model.generation_config]
    text_config = model.config.get_text_config()
    if text_config is not model.config:
        configs.append(text_config)
    for config in configs:
        if config is not None:
            _move(config, controls, same_role, target)


def _move(config: Any, controls: dict[int, int], same_role: dict[int, int], target: Vocabulary) -> None:
    for role in _ROLES:
        name = f"{role}_token_id"
        if not hasattr(config, name):
            continue
        ids = [target.roles[role]] if role in target.roles else []
        if role == "bos" and not ids and target.start_id is not None:
            ids = [target.start_id]  # Qwen's own configurations name their eos here: texts begin with it
        if role == "eos":  # a chat model also ends at its end-of-turn token
            ids += [controls[old] for old in _as_list(getattr(config, name)) if old in controls]
        unique = list(dict.fromkeys(ids))
        setattr(config, name, None if not unique else unique[0] if len(unique) == 1 else unique)
    for name, value in list(vars(config).items()):
        if name.endswith("_token_id") and name.removesuffix("_token_id") not in _ROLES and isinstance(value, int):
            setattr(config, name, same_role.get(value, controls.get(value)))
        elif name in _LISTS:
            setattr(config, name, None)


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)
