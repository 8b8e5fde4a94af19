"""Texts that different tokenizers are likely to split in different ways."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain

TEXTS = (
    "It was 12,345 in total, the cat sat",
    "  two  spaces   three \t\ttabs\r\n\r\nlines \n",
    "I'm can't WE'LL they'D naïve café e\u0301 \ufb01 ﬀ ① Ⅷ",
    "Größe Straße ÄÖÜ; Всё хорошо; Ελλάδα; 你好,世界。こんにちは 안녕하세요; مرحبا שלום; हिन्दी ไทย",
    "👩‍🚀🇫🇷❤️ \u200b\u200d\ufeff\u00a0\u3000 \x00\x1f",
    "▁ a ▁b Ġc Ċ <0x0A> ##d </w> @@",
    "<s> </s> <|endoftext|> <|im_start|>user\n [INST] <pad> <unk> <bos> <start_of_turn>",
    'def f(x):\n    return {"a": [1.5e-3, 0xFF]}  # http://a.b/c?d=e&f\n',
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 0000000000000000 ................ aAbBcC_dD-eE",
    " ",
    "",
)
"""A few texts, each for one feature."""


HARD_TEXTS = 200
"""How many `hard_texts` there are."""


def hard_texts(special_tokens: Sequence[str]) -> list[str]:
    """Make `HARD_TEXTS` texts that different tokenizers are likely to split in different ways.

    Parameters
    ----------
    special_tokens : the tokenizer's own, which some of the texts spell
    """
    texts = [*TEXTS, *(f"{token}a {token}\n {token}" for token in special_tokens[:20])]
    pieces = [*chain(*(text.split(" ") for text in texts)), " ", "  ", "\n", "\t", *special_tokens]
    draw = random.Random(0)
    while len(texts) < HARD_TEXTS:
        texts.append("".join(draw.choice(pieces) + draw.choice(("", " ")) for _ in range(draw.randint(2, 8))))
    return texts
