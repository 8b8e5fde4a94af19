"""The rule of jukofyork/transplant-vocab, which is on no registry, as rows of a lexicon.

It decodes each target token separately and encodes the text with the source tokenizer. The input row is the row of the
last of these source tokens. The output row is their mean with weights 1, 1/2, 1/4, ... from the first on, which needs
an untied head. bos, eos and pad copy bos, eos and pad. Nothing is compared by bytes: the space before a SentencePiece
word is lost, because decoding a single token drops it, and part of a character becomes U+FFFD. We keep this, since it
is the rule; the recipe `last-in-mean-out` fixes it. On a token with empty text, where the program would fail, the row
is the mean row.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.vocabulary import Vocabulary

DECAY = 0.5  # its --weighting-decay-factor


def transplant_rows(source: Vocabulary, target: Vocabulary) -> LexiconRows:
    """Make all rows by the rule."""
    rows = LexiconRows(target.size)
    for role in ("bos", "eos", "pad"):  # if roles share an id, the first one counts
        if role in source.roles and role in target.roles and rows.origin[target.roles[role]] == "hole":
            rows.copy(target.roles[role], source.roles[role], "role")
    left = open_ids(rows, target)
    texts = [target.tokenizer.decode([i]) for i in left.tolist()]
    encoded = source.tokenizer(texts, add_special_tokens=False)["input_ids"]
    for target_id, ids in zip(left.tolist(), encoded, strict=True):
        if ids:
            rows.mix(target_id, ids[-1:], [1.0], "pieces")
            decaying = DECAY ** np.arange(len(ids))
            rows.mix_output(target_id, ids, (decaying / decaying.sum()).tolist())
    rows.fill(open_ids(rows, target), "mean")
    return rows
