"""The inputs of an alignment, as one argument of all methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Donor = tuple[PreTrainedModel, Vocabulary]


@dataclass(frozen=True)
class Inputs:
    """The inputs of one alignment.

    Attributes
    ----------
    pair : the text in both tokenizations
    seed : seed of all random choices
    progress : called with the share that is done
    model : the source model, for the recipes that need it
    donor : a model whose tokenizer is the target, and its vocabulary, for `omp`
    vectors : vectors of source and target, used instead of training GloVe
    """

    pair: TokenizedPair
    seed: int = 0
    progress: Progress = silent
    model: PreTrainedModel | None = None
    donor: Donor | None = None
    vectors: tuple[TokenVectors, TokenVectors] | None = None

    @property
    def source(self) -> Vocabulary:
        """The source vocabulary."""
        return self.pair.source

    @property
    def target(self) -> Vocabulary:
        """The target vocabulary."""
        return self.pair.target

    def swapped(self) -> Inputs:
        """Return the inputs with source and target swapped, for the source-to-target direction, without progress."""
        pair = self.pair
        swapped = TokenizedPair(pair.target, pair.source, pair.target_corpus, pair.source_corpus, pair.documents)
        vectors = None if self.vectors is None else (self.vectors[1], self.vectors[0])
        return replace(self, pair=swapped, vectors=vectors, progress=silent)
