"""The inputs of an alignment in one object that all methods take."""

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
    seed : for everything that is drawn
    progress : called with the share that is done
    model : the source model, for the recipes that read it
    donor : a model whose tokenizer is the target, and that tokenizer, for `omp`
    vectors : of source and target, used instead of training GloVe
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

    def turned(self) -> Inputs:
        """Exchange source and target, for the source-to-target direction, without progress."""
        pair = self.pair
        turned = TokenizedPair(pair.target, pair.source, pair.target_corpus, pair.source_corpus, pair.documents)
        vectors = None if self.vectors is None else (self.vectors[1], self.vectors[0])
        return replace(self, pair=turned, vectors=vectors, progress=silent)
