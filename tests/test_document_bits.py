from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_model, tiny_vocabulary

from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.document_bits import document_bits, pooled

VOCABULARY = tiny_vocabulary(300)
TEXTS = ["The quick brown fox. " * 4, "", "Straße, 你好", "bread and rivers", "def add(left, right):\n    return left"]
DOCUMENTS = [Document(text, f"d{n}", "g", "prose" if n < 4 else "code") for n, text in enumerate(TEXTS)]


def test_documents_add_up_to_the_text() -> None:
    model = tiny_model("llama", VOCABULARY.size)
    whole, apart = bits_per_byte(model, VOCABULARY, DOCUMENTS), document_bits(model, VOCABULARY, DOCUMENTS)
    assert apart.sizes.tolist() == [len(text.encode()) for text in TEXTS if text]
    assert apart.per_byte().mean == pytest.approx(whole.bits_per_byte)
    assert apart.per_byte().n == whole.bytes
    for name, value in whole.by_slice.items():
        assert apart.per_byte(name).mean == pytest.approx(value)
    both = pooled([apart, apart])
    assert both.per_byte().mean == pytest.approx(whole.bits_per_byte)
    assert both.per_byte().n == 2 * whole.bytes


def test_paired_documents_show_a_small_difference() -> None:
    found = document_bits(tiny_model("llama", VOCABULARY.size), VOCABULARY, DOCUMENTS)
    better = type(found)(found.bits - 0.1 * found.sizes, found.sizes, found.slices)
    change = better.minus(found)
    assert (change.mean, change.low, change.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert better.per_byte().high > found.per_byte().low  # although the two intervals overlap


def test_other_documents_or_no_documents_are_refused() -> None:
    found = document_bits(tiny_model("llama", VOCABULARY.size), VOCABULARY, DOCUMENTS)
    with pytest.raises(InputError, match="different documents"):
        found.minus(type(found)(found.bits[1:], found.sizes[1:], found.slices[1:]))
    with pytest.raises(InputError, match="No document is in the slice 'ru'"):
        found.per_byte("ru")
    assert np.isfinite(found.bits).all()
