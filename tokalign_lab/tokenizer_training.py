"""Train a tokenizer on a text, or extend an existing one with tokens for a text.

`train` uses the trainer of the `tokenizers` library for the algorithm. `extend` continues BPE training (Purason et al.,
arXiv 2512.03989): it learns merges on text that the old merges have already segmented, and appends them to the old
ones. If the tokens of another tokenizer were appended instead, no sequence of merges would reach many of them.

The trainer of `tokenizers` cannot start from merges. So each old token is written as one Unicode character and each
pretoken as a word of them, and the trainer learns merges of these characters.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tokalign_lab.catalog.tokenizer_formats import PATTERNS, Roles, byte_level_tokenizer, wrap
from tokalign_lab.errors import InputError, first_line
from tokalign_lab.passages import passages_of
from tokalign_lab.token_table import encode_plainly, plain_backend
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEWEST_USES = 5
"""Minimum occurrences of a new token in the text; the alignment recipes give rarer tokens no vector either."""
END_OF_TEXT = "<|endoftext|>"
_BATCH = 100  # texts
_SURPLUS = 1.1  # factor on the number of merges, because some produce an existing or an unreachable token
_SEPARATOR = "\0"
_Words = Counter[tuple[str, ...]]


def train(texts: Sequence[str], size: int, like: Vocabulary | None = None) -> PreTrainedTokenizerBase:
    """Train a tokenizer.

    The result has fewer tokens than `size` if the text has too few pairs that occur `FEWEST_USES` times. Raises
    `InputError` if the size leaves no token besides added tokens and single bytes or characters, training fails, or
    `like` is a SentencePiece BPE or has byte tokens for unknown characters, which the trainers cannot make.

    Parameters
    ----------
    texts : texts for training
    size : tokens of the new vocabulary, added tokens included
    like : tokenizer whose algorithm, normaliser, pretokeniser, added tokens and chat template are used. Without it:
        byte-level BPE with the pretokeniser of o200k and one special token, `END_OF_TEXT`.
    """
    if like is None:
        base: Any = wrap(
            byte_level_tokenizer({bytes([byte]): byte for byte in range(256)}, PATTERNS["o200k"], {END_OF_TEXT: 256}),
            Roles(bos=END_OF_TEXT, eos=END_OF_TEXT, pad=END_OF_TEXT),
        )
    elif like.is_byte_fallback.any() or (like.kind == "sentencepiece" and like.algorithm == "BPE"):
        what = "is a SentencePiece BPE" if like.algorithm == "BPE" else "has byte tokens for unknown characters"
        raise InputError(
            f"{like.name} {what}, which the trainers of the tokenizers library cannot make; choose a "
            "byte-level tokenizer for --like, or none."
        )
    else:
        base = like.tokenizer
    added = base.added_tokens_decoder.values()
    ordinary = [token for token in added if not token.special]
    marks = [token for token in ordinary if token.content in str(base.chat_template or "")]
    marks = [token for token in marks if token.content.strip()]  # such as <tool_call>; line ends are text
    least = len(added) + 256 * (like is None or like.kind == "byte-level")
    if size <= least:
        raise InputError(f"--size is {size:,}, but added tokens and single bytes take {least:,}; give a larger one.")
    most = min(size, least + _n_bytes(texts))  # the trainers reserve memory for the size they are given
    model = base.backend_tokenizer.model
    options: dict[str, Any] = {} if type(model).__name__ == "Unigram" else {"min_frequency": FEWEST_USES}
    if type(model).__name__ == "WordPiece":  # the trainer's default is ##
        options["continuing_subword_prefix"] = model.continuing_subword_prefix
    try:
        made = base.train_new_from_iterator(_batches(texts), most - len(ordinary), show_progress=False, **options)
    except Exception as error:  # the trainers raise plain Exception
        raise InputError(f"No tokenizer could be trained ({first_line(error)}); give more text.") from error
    made.add_tokens(marks)
    if len(made) > size:  # WordPiece trainers take all characters
        raise InputError(f"--size is {size:,}, but added tokens and single characters take more; give a larger one.")
    made.chat_template = base.chat_template
    return made


def extend(vocabulary: Vocabulary, texts: Sequence[str], add: int) -> PreTrainedTokenizerBase:
    """Add tokens to a BPE tokenizer by continuing its training on a text.

    The new ids follow the highest old id. Old ids, special tokens, the chat template and all other settings do not
    change. A tokenizer with byte fallback first gets the characters that it writes byte by byte, most frequent first.
    The result has fewer than `add` new tokens if the text has too few pairs that occur `FEWEST_USES` times. Raises
    `InputError` if it is no plain BPE tokenizer, `add` is not positive, no pair is frequent enough, or special tokens
    would get other ids.

    Parameters
    ----------
    vocabulary : the tokenizer; it is not changed
    texts : texts for training
    add : number of new tokens
    """
    if add <= 0:
        raise InputError(f"--add is {add}; give a positive number of tokens.")
    state = json.loads(vocabulary.tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    if vocabulary.algorithm != "BPE" or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        raise InputError(
            f"{vocabulary.name} is no plain BPE tokenizer, so it cannot be extended; use `tokenizer train`."
        )
    add = min(add, _n_bytes(texts))  # the trainer reserves memory for the number it is given
    words, characters = _segment(vocabulary, texts)
    new = [one for one, uses in characters.most_common(add) if uses >= FEWEST_USES]
    old = {token: token_id for token_id in range(vocabulary.size) if (token := vocabulary.raw_token(token_id))}
    merges = _learn_merges(words, {*old, *new}, round(_SURPLUS * (add - len(new))))
    added, followed = _reachable(model, old, new, merges, add)
    if not added:
        raise InputError(f"No pair of tokens occurs {FEWEST_USES} times in the text; give more text.")
    made = copy.deepcopy(vocabulary.tokenizer)
    made.backend_tokenizer.model = _bpe(model, old, added, followed)
    if not old.items() <= made.get_vocab().items():
        raise InputError(f"{vocabulary.name} cannot be extended, because its special tokens would get other ids.")
    return made


def _n_bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[first : first + _BATCH] for first in range(0, len(texts), _BATCH))


def _segment(vocabulary: Vocabulary, texts: Iterable[str]) -> tuple[_Words, Counter[str]]:
    """Count the pretokens of a text, each as its tokens, and the characters that the tokenizer writes byte by byte.

    SentencePiece does not split text into words, so its text is split before each space.
    """
    words: _Words = Counter()
    characters: Counter[str] = Counter()
    encode = partial(encode_plainly, vocabulary.tokenizer)
    passages = [passage for text in texts for passage in passages_of(text, encode)]
    begins_word = [
        vocabulary.kind == "sentencepiece" and (vocabulary.token_bytes[i] or b"").startswith(b" ")
        for i in range(vocabulary.size)
    ]
    with plain_backend(vocabulary.tokenizer) as backend:
        for batch in _batches(passages):
            for encoding in backend.encode_batch(list(batch), add_special_tokens=False):
                number, place = 0, []
                for token_id, word in zip(encoding.ids, encoding.word_ids, strict=True):
                    number += begins_word[token_id]
                    place.append((word, number))
                for _, group in groupby(zip(encoding.ids, place, strict=True), key=lambda one: one[1]):
                    word = tuple(_symbols(vocabulary, [token_id for token_id, _ in group]))
                    words[word] += 1
                    characters.update(one for one in word if vocabulary.id_of_raw(one) is None and not one.isascii())
    return words, characters


def _symbols(vocabulary: Vocabulary, ids: Sequence[int]) -> Iterator[str]:
    """Yield the raw strings of tokens, and of a run of byte-fallback tokens its characters."""
    for fallback, run in groupby(ids, key=lambda token_id: bool(vocabulary.is_byte_fallback[token_id])):
        if fallback:
            yield from b"".join(vocabulary.token_bytes[i] or b"" for i in run).decode("utf-8", "ignore")
        else:
            yield from map(vocabulary.raw_token, run)


def _learn_merges(words: _Words, known: set[str], most: int) -> list[tuple[str, str]]:
    """Learn merges of known tokens, most frequent pair first; unknown ones (characters not added) separate words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    letters: dict[str, str] = {}

    def letter(token: str) -> str:
        if token not in known:
            return _SEPARATOR
        number = len(letters) + 1
        return letters.setdefault(token, chr(number if number < 0xD800 else number + 0x800))  # not the surrogates

    lines = [("".join(map(letter, word)) + _SEPARATOR) * uses for word, uses in words.items() if len(word) > 1]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Split(_SEPARATOR, "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=len(letters) + most, min_frequency=FEWEST_USES, show_progress=False, special_tokens=[]
    )
    trained.train_from_iterator(lines, trainer)
    token_of = {written: token for token, written in letters.items()}
    pairs = json.loads(trained.to_str())["model"]["merges"]
    return [
        ("".join(map(token_of.__getitem__, left)), "".join(map(token_of.__getitem__, right))) for left, right in pairs
    ]


def _reachable(
    model: dict[str, Any], old: dict[str, int], new: Sequence[str], merges: Sequence[tuple[str, str]], add: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the first `add` new tokens that BPE can reach by the merges, and the merges that lead to known tokens."""
    dropped: set[str] = set()
    while True:
        added: list[str] = list(new)
        followed: list[tuple[str, str]] = []
        known = {*old, *new}
        for left, right in merges:
            token = left + right
            if len(added) >= add:
                break
            if not {left, right} <= known or token in dropped:
                continue
            followed.append((left, right))
            if token not in known:
                added.append(token)
                known.add(token)
        made = _bpe({**model, "ignore_merges": False, "dropout": None}, old, added, followed)
        missed = {token for token in added if [one.value for one in made.tokenize(token)] != [token]}
        if not missed:
            return added, followed
        dropped |= missed


def _bpe(model: dict[str, Any], old: dict[str, int], added: Sequence[str], merges: Sequence[tuple[str, str]]) -> Any:
    """Make a BPE model with additional tokens and merges.

    Its vocabulary includes the special tokens: others would get new ids when the tokenizer is loaded.
    """
    from tokenizers import Tokenizer

    first = max(old.values()) + 1
    vocab = {**old, **{token: first + place for place, token in enumerate(added)}}
    state = {**model, "vocab": vocab, "merges": [*model["merges"], *map(list, merges)]}
    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": state})).model
