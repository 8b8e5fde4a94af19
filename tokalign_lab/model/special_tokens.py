"""Keep a chat model usable for chat: add its control tokens to the new vocabulary, with their rows.

A chat model was trained on its template's control tokens (`<|im_start|>`), ends its turns with one of them, and is
served with the template. A target tokenizer has other control tokens or none. So the source's control tokens are added
to the target, each with its own row, and bos, eos and pad do not change.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.errors import InputError
from tokalign_lab.token_table import ROLES
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHOICES = ("keep", "target")
_QUESTION = [{"role": "user", "content": "Hello"}]
_ANSWERED = [*_QUESTION, {"role": "assistant", "content": "Hi"}]
_TOOL = {
    "type": "function",
    "function": {
        "name": "time",
        "description": "The time",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string", "description": "Where"}}},
    },
}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "an answer": {"conversation": _ANSWERED},
    "several turns": {"conversation": [*_ANSWERED, *_ANSWERED, *_QUESTION], "add_generation_prompt": True},
    "a system message": {
        "conversation": [{"role": "system", "content": "Be kind"}, *_QUESTION],
        "add_generation_prompt": True,
    },
    "tools": {"conversation": _QUESTION, "tools": [_TOOL], "add_generation_prompt": True},
}
"""What a chat template is tried on: arguments of `apply_chat_template`, by name. All templates render an answer."""


def choose(special_tokens: str | None, source: Vocabulary) -> str:
    """Return "keep" or "target"; the default is "keep" for a source with a chat template.

    Raises `InputError` for another word than "keep" and "target".
    """
    if special_tokens is None:
        return "keep" if source.tokenizer.chat_template else "target"
    if special_tokens not in CHOICES:
        raise InputError(f"special_tokens is {special_tokens!r}; choose 'keep' (the source's) or 'target'.")
    return special_tokens


def keep_special_tokens(lexicon: Lexicon, source: Vocabulary, target: Vocabulary) -> tuple[Lexicon, Vocabulary]:
    """Add the source's control tokens to a target vocabulary, and their rows to its lexicon.

    Raises `InputError` if the target's tokenizer cannot take further tokens without changing its ids. The returned
    target has all control tokens of the source, and those of its added tokens that its chat template writes. bos, eos,
    unk and pad are the source's if it has them; there is no bos if the source has none, and a text begins with the same
    special tokens as with the source. The target's own ids do not change. In the lexicon, each added token copies its
    own row.

    Parameters
    ----------
    lexicon : made for these two
    source, target : the two vocabularies; they are not changed
    """
    kept = _kept_ids(source)
    tokenizer = copy.deepcopy(target.tokenizer)
    added = source.tokenizer.added_tokens_decoder
    for old in kept:
        like = added.get(old)
        options = {} if like is None else {name: getattr(like, name) for name in ("lstrip", "rstrip", "single_word")}
        special = bool(source.is_control[old])
        token = AddedToken(source.raw_token(old), normalized=False, special=special, **options)
        tokenizer.add_tokens([token], special_tokens=special)
    tokenizer.split_special_tokens = getattr(source.tokenizer, "split_special_tokens", False)
    if "bos" not in source.roles:
        tokenizer.bos_token = None  # a template that writes it would begin otherwise
    for role, old in source.roles.items():
        ordinary = target.id_of_token(source, old)  # such as "!" for pad
        mark = source.raw_token(old) if ordinary is None else target.raw_token(ordinary)
        if source.is_control[old] or ordinary is not None:
            setattr(tokenizer, f"{role}_token", mark)
        if ordinary is not None:  # transformers does this when it loads the tokenizer
            tokenizer.add_tokens([AddedToken(mark, normalized=False, special=True)], special_tokens=True)
    known = tokenizer.get_vocab()  # a template may also write sep_token, or a name of the model's own
    named = {name: mark for name, mark in source.tokenizer.special_tokens_map.items() if mark in known}
    others = {name: mark for name, mark in named.items() if name.removesuffix("_token") not in ROLES}
    tokenizer._set_model_specific_special_tokens(others)
    _begin_as(tokenizer, source)
    larger = Vocabulary.from_tokenizer(tokenizer, target.name)
    places = {old: larger.id_of_raw(source.raw_token(old)) for old in kept}
    if any(larger.raw_token(i) != target.raw_token(i) for i in range(target.size)) or None in places.values():
        raise InputError(
            f"The tokenizer {target.name} cannot take the special tokens of {source.name}, because its ids have holes; "
            "use its own with special_tokens='target'."
        )
    new = {old: int(place) for old, place in places.items() if place is not None}
    return _with_rows(lexicon, source, larger, new), larger


def rendered(vocabulary: Vocabulary, name: str, template: str | None = None) -> str | None:
    """Render one of `CONVERSATIONS`, by the tokenizer's own template or another; None if that fails."""
    conversation = CONVERSATIONS[name]
    try:
        return str(vocabulary.tokenizer.apply_chat_template(**conversation, chat_template=template, tokenize=False))
    except Exception:  # a template is a program: it may fail in any way, on purpose too
        return None


def lost_with(source: Vocabulary, target: Vocabulary, template: str | dict[str, str] | None) -> list[str]:
    """List what a saved tokenizer lacks of the source's: one sentence each, with advice.

    Parameters
    ----------
    source : the model's former vocabulary
    target : its new vocabulary
    template : its new chat template, or several by name
    """
    advice = "; rearrange with special_tokens='keep' to keep it"
    lost = []
    theirs = source.tokenizer.chat_template
    if theirs and not template:
        control = [source.raw_token(int(i)) for i in np.flatnonzero(source.is_control)]
        marks = [mark for mark in control if mark and mark in str(theirs)]
        gone = [mark for mark in marks if target.id_of_raw(mark) is None]
        cause = f": {target.name} has no token {', '.join(gone[:3])}" if gone else ""
        lost.append(f"The chat template is lost{cause}{advice}.")
    elif isinstance(theirs, dict) and isinstance(template, dict) and template.items() < theirs.items():
        lost.append(f"The chat templates {', '.join(sorted(theirs.keys() - template.keys()))} are lost{advice}.")
    elif theirs and template != theirs:
        lost.append(f"The chat template is the target's, which the model was not trained with{advice}.")
    for role, what in (("pad", "batches cannot be padded"), ("eos", "nothing ends a text")):
        if role in source.roles and role not in target.roles:
            lost.append(f"There is no {role} token any more, so {what}{advice}.")
    return lost


def _kept_ids(source: Vocabulary) -> list[int]:
    control = [int(i) for i in np.flatnonzero(source.is_control & ~source.is_hole)]
    template = str(source.tokenizer.chat_template or "")
    if template:  # it may put a mark together: '<|' + message.role + '|>'
        template += "".join(rendered(source, name) or "" for name in CONVERSATIONS)
    written = [i for i, token in source.tokenizer.added_tokens_decoder.items() if token.content in template]
    return sorted({*control, *(i for i in written if i < source.size)})


def _begin_as(tokenizer: PreTrainedTokenizerBase, source: Vocabulary) -> None:
    """Make a tokenizer add the special tokens of the source before a text, and none after it."""
    backend = tokenizer.backend_tokenizer
    plain, called = (source.tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
    number = next((n for n in range(len(called)) if called[n : n + len(plain)] == plain), 0)
    begin = [source.raw_token(i) for i in called[:number]]
    state = json.loads(backend.to_str())
    old: dict[str, Any] | None = state["post_processor"]
    parts = [] if old is None else old["processors"] if old["type"] == "Sequence" else [old]
    parts = [part for part in parts if part["type"] == "ByteLevel"]
    if begin:
        first = [{"SpecialToken": {"id": token, "type_id": 0}} for token in begin]
        text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in begin}
        special = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in begin}
        template = {"type": "TemplateProcessing", "single": [*first, text], "pair": [*first, text, second]}
        parts.append({**template, "special_tokens": special})
    if parts:
        state["post_processor"] = {"type": "Sequence", "processors": parts}
        backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor
    elif old is not None:  # a post-processor cannot be removed, only replaced
        from tokenizers.processors import TemplateProcessing

        backend.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])


def _with_rows(lexicon: Lexicon, source: Vocabulary, target: Vocabulary, new: dict[int, int]) -> Lexicon:
    """Give a lexicon rows that copy; `new` is source id -> target id."""
    import pandas as pd

    rows = LexiconRows(target.size)
    for old, place in new.items():
        rows.copy(place, old, "role")
    made = rows.to_table(source, target, np.zeros(source.size), np.zeros(target.size)).iloc[sorted(new.values())]
    if lexicon.has_output:
        for name in ("sources", "weights", "mean_weight"):
            made[f"output_{name}"] = made[name]
    rest = lexicon.table[~lexicon.table["target_id"].isin(list(new.values()))]
    table = pd.concat([rest, made]).sort_values("target_id").reset_index(drop=True)
    table["target_id"] = table["target_id"].astype(np.int32)
    side = {**lexicon.provenance["target"], "fingerprint": target.fingerprint, "size": target.size}
    return Lexicon(table, lexicon.reverse, {**lexicon.provenance, "target": side})
