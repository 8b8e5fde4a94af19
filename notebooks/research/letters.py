"""A vocabulary of single characters, with bytes for all others: as different from BPE as a tokenizer can be.

Tokens are written as in SentencePiece, `<0x41>` and `▁`. Without characters it is a vocabulary of bytes. A byte-level
BPE starts from all single bytes too, so the two share no strings but nearly all tokens by bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tokalign_lab.catalog.tokenizer_formats import Roles, wrap
from tokalign_lab.vocabulary import Vocabulary

_SPECIAL = ("<unk>", "<s>", "</s>")
_SPACE = "▁"


def letter_vocabulary(name: str, letters: Sequence[str] = ()) -> Vocabulary:
    """Make a vocabulary called `name`; `letters` are the characters with a token, in addition to the space."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), _SPACE, *letters]
    ids = {token: place for place, token in enumerate(tokens)}
    tokenizer: Any = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token=_SPECIAL[0], byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(_SPECIAL))
    return Vocabulary.from_tokenizer(wrap(tokenizer, Roles(unk="<unk>", bos="<s>", eos="</s>")), name)


def letters_of(texts: Iterable[str], least_count: int = 5) -> list[str]:
    """Return the characters that occur at least `least_count` times in some texts, sorted, without the space."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return sorted(letter for letter, n in counts.items() if n >= least_count and letter not in f" {_SPACE}")
