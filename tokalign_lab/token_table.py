"""The ids of a tokenizer as plain values in a file of a few hundred kilobytes.

Loading a tokenizer of a quarter of a million tokens takes seconds and needs transformers; reading this file takes a
fraction of a second. It is enough for labels, overlap, scripts and a lexicon's table. So the file is a cache, and the
vocabulary of a run whose tokenizer is not stored (see `Vocabulary.has_tokenizer`).
"""

from __future__ import annotations

import json
import lzma
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from tokalign_lab.errors import InputError, plain_read_errors
from tokalign_lab.files import atomic_file, hash_of
from tokalign_lab.spelling import BYTE_LETTERS, Spelling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("bos", "eos", "unk", "pad")
VERSION = 13  # raise it when the same tokenizer is read differently, or the file changes
MOST_HOLES = 1_000_000
"""Maximum number of ids without a token: no model has so many unused rows."""
_PROBES = (
    "The café costs 12,345 €, naïve — isn't it?\n\tdef f(x):\n        return x  # ok\r\n",
    "Всё хорошо. 你好,世界。 こんにちは 안녕하세요 مرحبا नमस्ते ไทย 👩‍🚀  \n\n   end",
)


@dataclass(frozen=True)
class TokenTable:
    """The ids of one tokenizer; `Vocabulary` explains each field.

    Attributes
    ----------
    raw : shape (size,): the tokenizer's own string; None for an id that no token has
    control : ids of special tokens, ascending
    literal : ids of added tokens, which are matched in the text as they are written. Only in SentencePiece, `▁` in them
        is a space (as in Gemma's runs of spaces).
    spelling : how the tokenizer writes bytes
    roles : role -> id
    algorithm : "BPE", "Unigram", "WordPiece" or "WordLevel"
    fingerprint, reading : see `Vocabulary.fingerprint` and `Vocabulary.reading`
    decoded : id -> text, for tokens that the decoder does not write by `spelling`, such as a `<n>` for a line end
    """

    raw: tuple[str | None, ...]
    control: tuple[int, ...]
    literal: frozenset[int]
    spelling: Spelling
    roles: dict[str, int]
    algorithm: str
    fingerprint: str
    decoded: dict[int, str] = field(default_factory=dict)
    reading: str = ""

    @cached_property
    def is_control(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Shape (size,), bool: ids of special tokens."""
        mask = np.zeros(len(self.raw), dtype=bool)
        mask[list(self.control)] = True
        return mask

    @cached_property
    def is_byte_fallback(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Shape (size,), bool: SentencePiece's `<0xNN>` tokens."""
        is_byte = self.spelling.is_byte_fallback
        return np.array([token is not None and token.startswith("<0x") and is_byte(token) for token in self.raw])

    @cached_property
    def token_bytes(self) -> tuple[bytes | None, ...]:
        """Shape (size,): the bytes of each token in running text; None for a special token and a hole."""
        control, bytes_of = frozenset(self.control), self.spelling.bytes_of
        as_written = () if self.spelling.kind == "sentencepiece" else self.literal
        spelled = [
            None if token is None or i in control else token.encode() if i in as_written else bytes_of(token)
            for i, token in enumerate(self.raw)
        ]
        return tuple(self.decoded[i].encode() if i in self.decoded else token for i, token in enumerate(spelled))

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, name: str) -> TokenTable:
        """Read a fast tokenizer; `name` is for messages.

        Raises InputError if it has no fast version, no tokens, too many unused ids, or tokens that are not text bytes.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"The tokenizer '{name}' has no fast version (tokenizer.json); convert it with transformers first."
            )
        tokens: dict[str, int] = tokenizer.get_vocab()
        if not tokens:
            raise InputError(f"The tokenizer '{name}' has an empty vocabulary; give a trained tokenizer.")
        check_ids(tokens, name)
        size = max(tokens.values()) + 1
        raw: list[str | None] = [None] * size
        for token, token_id in tokens.items():
            if raw[token_id] is not None:
                raise InputError(
                    f"The tokenizer '{name}' gives the id {token_id} to {raw[token_id]!r} and to {token!r}, since its "
                    "added tokens have no free ids; number its tokens again."
                )
            raw[token_id] = token

        added = tokenizer.added_tokens_decoder
        special = _special_ids(tokenizer)
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        spelling = Spelling.of(state)
        # some trainers mark byte tokens as special, but they are text
        byte_tokens = {i for i, token in enumerate(raw) if token and spelling.is_byte_fallback(token)}
        read = _read_as_text(tokenizer, raw, {i for i in special | set(added) if i < size}, spelling)
        made_of_text = _made_of_text({raw[i] or "" for i in read & special}, spelling.kind, state["model"])
        text = {i for i in read & special if raw[i] in made_of_text}
        control = tuple(sorted(i for i in special - byte_tokens - text if i < size))
        by_role = {role: getattr(tokenizer, f"{role}_token_id", None) for role in ROLES}
        probe_ids = np.concatenate([*encode_plainly(tokenizer, _PROBES), np.zeros(0, np.int32)])
        made = cls(
            raw=tuple(raw),
            control=control,
            literal=frozenset(added) - byte_tokens - read,
            spelling=spelling,
            roles={role: int(held) for role, held in by_role.items() if held is not None and held < size},
            algorithm=type(tokenizer.backend_tokenizer.model).__name__,
            fingerprint="",
            reading=_reading_of(state),
        )
        replaced = spelling.replaced(state)
        decoded = _decoded(tokenizer, made) if replaced else {}
        content = [
            json.dumps(raw, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            made.is_control.tobytes(),
            probe_ids.astype("<i4").tobytes(),
            *([json.dumps(decoded).encode()] if decoded else []),
        ]
        made = replace(made, fingerprint=hash_of(content), decoded=decoded)
        _check_bytes(tokenizer, made.token_bytes, replaced, name)
        return made

    def save(self, path: Path) -> None:
        """Write one file, JSON compressed by xz, atomically."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values |= {"literal": sorted(self.literal), "spelling": asdict(self.spelling)}
        with atomic_file(path) as temporary, lzma.open(temporary, "wt", encoding="ascii") as file:
            json.dump(values, file)

    @classmethod
    def load(cls, path: Path) -> TokenTable | None:
        """Read what `save` wrote; None if the file is missing or damaged."""
        try:
            with lzma.open(path, "rt", encoding="ascii") as file:
                values = json.load(file)
            raw, control, literal = tuple(values["raw"]), tuple(values["control"]), frozenset(values["literal"])
            spelling = Spelling(**values["spelling"])
            decoded = {int(token_id): text for token_id, text in values.get("decoded", {}).items()}
            read = {"raw": raw, "control": control, "literal": literal, "spelling": spelling, "decoded": decoded}
            return cls(**values | read)
        except (OSError, EOFError, ValueError, KeyError, TypeError, lzma.LZMAError):
            return None


_AROUND = "\ue000"  # not a token, at both ends: a decoder may treat the first and the last token differently


def _decoded(tokenizer: PreTrainedTokenizerBase, table: TokenTable) -> dict[int, str]:
    """Return id -> decoded text for the tokens whose text, decoded between others, differs from their spelling.

    Spaces at the ends are not compared: some decoders put one between all tokens.
    """
    decoder, spelling = tokenizer.backend_tokenizer.decoder, table.spelling
    keeps_spaces = spelling.kind != "wordpiece" and not spelling.prefix and not spelling.suffix
    found = {}
    for token_id, (token, ours) in enumerate(zip(table.raw, table.token_bytes, strict=True)):
        if token is None or ours is None or spelling.is_byte_fallback(token):
            continue
        if token_id in table.literal and spelling.kind == "byte-level":
            token = "".join(BYTE_LETTERS[byte] for byte in token.encode())
        text = decoder.decode([_AROUND, token, _AROUND])
        if text[:1] != _AROUND or text[-1:] != _AROUND or "\ufffd" in text:
            continue  # a part of a character, or a decoder that does not decode token by token
        inner = text[1:-1]
        if inner.strip(" ").encode() != ours.strip(b" "):
            found[token_id] = inner if keeps_spaces else " " * ours.startswith(b" ") + inner.strip(" ")
    return found


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of the tokens that are marked as special or have a role."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    # the id is None if the token of a role does not exist, such as bos_token ""
    return frozenset(added | set(tokenizer.all_special_ids) - {None})


def _read_as_text(
    tokenizer: PreTrainedTokenizerBase, raw: Sequence[str | None], ids: Iterable[int], spelling: Spelling
) -> set[int]:
    """Return those special and added tokens that a text has without their string, such as `Ġthe` in " the".

    A program has named a token of the model as pad, or added it again. WordPiece and models of words are left out: in
    them, a word has the same string as a token and as text.
    """
    if spelling.kind == "wordpiece":
        return set()
    texts = {i: spelling.bytes_of(raw[i] or "").decode("utf-8", "replace") for i in sorted(ids)}
    found = encode_plainly(tokenizer, [f"{before}{text}" for before in ("", "\n") for text in texts.values()])
    pairs = zip(texts, found[: len(texts)], found[len(texts) :], strict=True)
    return {i for i, alone, after in pairs if alone.tolist() == [i] or after[-1:].tolist() == [i]}


def _made_of_text(tokens: Iterable[str], kind: str, model: dict[str, Any]) -> set[str]:
    """Return those of some tokens that a trainer made from text: BPE by a merge, Unigram with a score.

    A vocabulary can have `<s>` too, but no merge makes it, and its score is 0 (in a few files, lower).
    """
    if model["type"] == "Unigram":
        marked = {token for token in tokens if token[:1] in ("<", "[") and token[-1:] in (">", "]")}
        made = {piece for piece, score in model["vocab"] if score < 0} - marked
    else:
        made = {"".join(pair) for pair in model.get("merges", ())}
    is_letter = kind in ("byte-level", "sentencepiece")
    return {token for token in tokens if token in made or (is_letter and len(token) == 1)}


def _check_bytes(
    tokenizer: PreTrainedTokenizerBase, token_bytes: Sequence[bytes | None], replaced: Iterable[str], name: str
) -> None:
    """Raise InputError if the decoder restores a short text from its ids, but the bytes of its tokens do not.

    The decoder then joins several tokens into one character, so a single token is not text. `replaced` are patterns and
    replacements of the decoder.
    """
    probes = [f"a{text}b" for text in (*map(chr, range(9, 127)), *replaced)]
    for probe, ids in zip(probes, encode_plainly(tokenizer, probes), strict=True):
        of_text = [int(i) for i in ids if token_bytes[i] is not None]
        joined = b"".join(token_bytes[i] or b"" for i in of_text).decode("utf-8", "replace")
        back = tokenizer.backend_tokenizer.decode(of_text, skip_special_tokens=False)
        if _letters(joined) != _letters(probe) == _letters(back):
            raise InputError(
                f"The tokenizer '{name}' writes {probe[1:-1]!r} as several tokens that only its decoder joins "
                f"({joined[1:-1]!r}), so its tokens are not bytes of the text; use another tokenizer."
            )


def _letters(text: str) -> str:
    return text.replace(" ", "").casefold()


def check_ids(tokens: Mapping[Any, int], name: str) -> None:
    """Raise InputError if more than `MOST_HOLES` ids have no token: each id takes a row of the model."""
    highest = max(tokens.values(), default=0)
    if highest >= len(tokens) + MOST_HOLES:
        raise InputError(
            f"The tokenizer '{name}' has {len(tokens):,} tokens and {highest:,} as its highest id, so most ids have no "
            "token; the file is damaged, or its tokens have to be numbered again."
        )


def same_ids(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers give the same ids for probe texts in many scripts, with long numbers and capitals."""
    probes = (*_PROBES, "In 2024 WE'LL read 12345678.25 camelCase HTMLFiles")
    pairs = zip(encode_plainly(one, probes), encode_plainly(other, probes), strict=True)
    return all(np.array_equal(here, there) for here, there in pairs)


_RANDOM_SETTINGS = ("dropout", "alpha")  # of BPE and of Unigram: they make the segmentation random
_backend_lock = threading.RLock()  # two threads may use one tokenizer, whose settings change during encoding


@contextmanager
def plain_backend(tokenizer: PreTrainedTokenizerBase) -> Iterator[Any]:
    """Yield the backend of a fast tokenizer without truncation, padding, random segmentation and post-processor.

    These are made for batches of prompts or for training, and would change the ids of a text. Special tokens in a text
    are read as text: "</s>" in a text is text about tokenizers, not the end of a document. The settings are restored at
    the end.
    """
    backend: Any = tokenizer.backend_tokenizer
    with _backend_lock:
        model = backend.model
        truncation, padding, post_processor = backend.truncation, backend.padding, backend.post_processor
        special = backend.encode_special_tokens
        drawn = {name: held for name in _RANDOM_SETTINGS if (held := getattr(model, name, None)) is not None}
        backend.no_truncation()
        backend.no_padding()
        backend.post_processor = None
        backend.encode_special_tokens = True
        for name in drawn:
            setattr(model, name, None)
        text_model = None
        try:
            text_model = _text_model(tokenizer)
            if text_model is not None:
                backend.model = text_model
            yield backend
        finally:
            if text_model is not None:
                backend.model = model
            backend.encode_special_tokens = special
            backend.post_processor = post_processor
            for name, held in drawn.items():
                setattr(model, name, held)
            if truncation is not None:
                backend.enable_truncation(**truncation)
            if padding is not None:
                backend.enable_padding(**padding)


_text_models: WeakKeyDictionary[Any, tuple[frozenset[int], Any]] = WeakKeyDictionary()
_NOWHERE = "\uffff"  # not a character, so no text has it


def _text_model(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return a copy of a tokenizer's model that finds no control token in a text; None if the model finds none.

    The vocabulary of the model has the control tokens too. Unigram and models of words find them in a text as they find
    other tokens; BPE finds them with `ignore_merges`, unless the pre-tokenizer splits them. In the copy, their strings
    are changed, and no id is.
    """
    special = _special_ids(tokenizer)
    known, model = _text_models.get(tokenizer, (None, None))
    if known != special:
        model = _model_without(special, tokenizer.backend_tokenizer)
        _text_models[tokenizer] = (special, model)
    return model


def _model_without(special: Iterable[int], backend: Any) -> Any:
    """Return a copy of a backend's model without the strings of special tokens; None if it finds them in no text."""
    from tokenizers import Tokenizer

    strings = {token: i for i in special if len(token := backend.model.id_to_token(i) or "") > 1}
    written = [f"{before}{token}{after}" for token in strings for before, after in (("", ""), ("a ", " a"))]
    with plain_read_errors(_refusal):
        read = {i for one in backend.encode_batch_fast(written, add_special_tokens=False) for i in one.ids}
    found = {token for token, i in strings.items() if i in read}
    if not found:
        return None
    state = json.loads(backend.to_str())
    model, spelling = state["model"], Spelling.of(state)
    found -= _made_of_text(found, spelling.kind, model)
    found = {token for token in found if not spelling.is_byte_fallback(token)}

    def renamed(token: str) -> str:
        return _NOWHERE + token if token in found else token

    if model["type"] == "Unigram":
        model["vocab"] = [[renamed(token), score] for token, score in model["vocab"]]
    else:
        model["vocab"] = {renamed(token): i for token, i in model["vocab"].items()}
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if found.isdisjoint(pair)]
    if model.get("unk_token") is not None:
        model["unk_token"] = renamed(model["unk_token"])
    model |= {name: None for name in _RANDOM_SETTINGS if name in model}
    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model})).model


def _reading_of(state: dict[str, Any]) -> str:
    """Hash the parts of a parsed tokenizer.json that `plain_backend` reads a text with."""
    model = {name: held for name, held in state["model"].items() if name not in _RANDOM_SETTINGS}
    parts = [model, *(state[name] for name in ("normalizer", "pre_tokenizer", "added_tokens"))]
    return hash_of([json.dumps(parts).encode()])


def _refusal(reason: str) -> str:
    return f"The tokenizer cannot read every text ({reason}); correct its unknown token, or use another tokenizer."


def encode_plainly(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    """Tokenise texts in parallel with `plain_backend`; return int32 ids.

    Raises `InputError` if the tokenizer refuses a text, for instance a WordPiece model whose unknown token is missing.
    """
    with plain_backend(tokenizer) as backend, plain_read_errors(_refusal):
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
