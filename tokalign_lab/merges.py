"""How a tokenizer builds a token: the merges of BPE in order, or what its algorithm does instead.

BPE begins with single characters and joins, again and again, the neighbouring pair that its training joined first
(Sennrich et al. 2016). The pairs and their order are in tokenizer.json. WordPiece and Unigram keep no such history.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokalign_lab.spelling import Spelling, visible
from tokalign_lab.vocabulary import Vocabulary


@dataclass(frozen=True)
class Merge:
    """One merge: the bytes of both parts, and its rank; training learned the merge of rank 1 first."""

    left: bytes
    right: bytes
    rank: int


@dataclass(frozen=True)
class History:
    """How a token is built.

    Attributes
    ----------
    merges : in the order in which the tokenizer applies them; () if there are none
    reason : a sentence: why there are none, or why they do not produce the token; "" if they do
    """

    merges: tuple[Merge, ...]
    reason: str = ""


class TokenHistories:
    """The histories of one tokenizer's tokens.

    Reads the tokenizer once, which takes seconds for 262,144 tokens. Raises InputError if the tokenizer is not stored
    (see `Vocabulary.has_tokenizer`).
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        state = json.loads(vocabulary.tokenizer.backend_tokenizer.to_str())
        model: dict[str, Any] = state["model"]
        self._vocabulary = vocabulary
        self._spelling = Spelling.of(state)
        self._added = {token["id"] for token in state["added_tokens"]}
        self._rank = {tuple(pair): rank for rank, pair in enumerate(model.get("merges", ()), start=1)}
        self._scores = model["vocab"] if vocabulary.algorithm == "Unigram" else []
        # as in tiktoken and LLaMA 3: a word that is a token is taken as a whole, without merges
        self._use = "only a word that equals it becomes" if model.get("ignore_merges") else "no text becomes"

    def of(self, token_id: int) -> History:
        """Return how token `token_id` is built."""
        if token_id in self._added:
            return History((), "An added token: it is matched as a whole before the text is split.")
        if self._vocabulary.is_byte_fallback[token_id]:
            return History((), "A single byte: used where no other token fits.")
        algorithm = self._vocabulary.algorithm
        if algorithm == "Unigram":
            score = self._scores[token_id][1]
            return History(
                (),
                "Unigram has no merges: of all segmentations of a text it takes the one with the highest sum of log "
                f"probabilities. This token's is {score:.2f}.",
            )
        if algorithm != "BPE":
            return History((), f"{algorithm} has no merges: at each place it takes the longest token that fits.")
        return self._merged(self._vocabulary.raw_token(token_id))

    def _merged(self, token: str) -> History:
        """Apply the merges to a token's characters, lowest rank first, as the tokenizer does with a word."""
        mark, read = len(self._spelling.prefix), self._spelling.bytes_of
        parts = self._characters(token)
        merges: list[Merge] = []
        while len(parts) > 1:
            pairs = enumerate(pairwise(parts))
            rank, place = min(((self._rank[pair], at) for at, pair in pairs if pair in self._rank), default=(0, 0))
            if not rank:
                ends = " + ".join(visible(read(part)) for part in parts)
                return History(tuple(merges), f"The merges end at {ends}, so {self._use} this token.")
            left, right = parts[place : place + 2]
            merges.append(Merge(read(left), read(right), rank))
            parts[place : place + 2] = [left + right[mark:]]
        return History(tuple(merges), "" if merges else "A single character or byte: training began with it.")

    def _characters(self, token: str) -> list[str]:
        """Split a token into the symbols that merging starts from: characters with their marks inside a word."""
        prefix, suffix = self._spelling.prefix, self._spelling.suffix
        continues = bool(prefix) and token.startswith(prefix)
        end = suffix if self._spelling.ends_word(token) else ""
        letters = token[len(prefix) * continues : len(token) - len(end)]
        parts = [letter if i == 0 and not continues else prefix + letter for i, letter in enumerate(letters)]
        return [*parts[:-1], parts[-1] + end] if parts else [token]
