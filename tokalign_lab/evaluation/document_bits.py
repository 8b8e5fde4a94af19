"""Bits of each document, to compare two models with an interval.

Documents differ more than models do. So models are compared on the same documents: the difference in bits per byte has
an interval from resampled documents (paired bootstrap, Koehn 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.interval import Interval, of_ratio
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class DocumentBits:
    """Bits of each document of a text.

    Attributes
    ----------
    bits : float64 (n,), sum of -log2 p over the document, with the cost of unspelled bytes
    sizes : int64 (n,), UTF-8 bytes
    slices : str (n,), slice of each document
    """

    bits: NDArray[np.float64]
    sizes: NDArray[np.int64]
    slices: NDArray[np.str_]

    def per_byte(self, slice_name: str | None = None) -> Interval:
        """Return bits per byte of all documents, or of one slice; n is the number of bytes.

        Raises `InputError` if no document is in the slice.
        """
        return self._ratio(self.bits, slice_name)

    def minus(self, other: DocumentBits, slice_name: str | None = None) -> Interval:
        """Return bits per byte minus another model's on the same documents; below 0, this model is better.

        Raises `InputError` if the two were measured on different documents, or no document is in the slice.
        """
        if not (np.array_equal(self.sizes, other.sizes) and np.array_equal(self.slices, other.slices)):
            raise InputError("The two were measured on different documents; measure both models on the same text.")
        return self._ratio(self.bits - other.bits, slice_name)

    def _ratio(self, bits: NDArray[np.float64], slice_name: str | None) -> Interval:
        here = np.ones(len(bits), bool) if slice_name is None else self.slices == slice_name
        if not here.any():
            raise InputError(f"No document is in the slice '{slice_name}'; there are {', '.join(set(self.slices))}.")
        return of_ratio(bits[here, None], self.sizes[here, None])[0]


def document_bits(
    model: PreTrainedModel, vocabulary: Vocabulary, documents: Sequence[Document], **how: Any
) -> DocumentBits:
    """Score each document; parameters and errors as for `bits_per_byte`. Empty documents are skipped."""
    apart = [replace(document, slice=str(place)) for place, document in enumerate(documents)]
    found = bits_per_byte(model, vocabulary, apart, **how)
    sizes = np.array(list(found.bytes_by_slice.values()), np.int64)
    slices = np.array([documents[int(place)].slice for place in found.bytes_by_slice])
    return DocumentBits(np.array(list(found.by_slice.values())) * sizes, sizes, slices)


def pooled(several: Sequence[DocumentBits]) -> DocumentBits:
    """Pool the documents of several measurements, such as those of several seeds."""
    return DocumentBits(
        np.concatenate([one.bits for one in several]),
        np.concatenate([one.sizes for one in several]),
        np.concatenate([one.slices for one in several]),
    )
