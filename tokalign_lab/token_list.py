"""A vocabulary without its tokenizer: what tokens there are, what they spell, and nothing that cuts text.

A recorded run (`runs/gallery.py`) is looked at on machines that have neither its tokenizers nor a network. To label,
search and colour tokens their strings are enough: two of a hundred thousand tokens are kept in half a megabyte, and
read in a tenth of a second, without transformers. What needs the tokenizer itself says so.
"""

from __future__ import annotations

import json
import lzma
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import numpy as np

from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_file
from tokalign_lab.spelling import Spelling
from tokalign_lab.token_table import TokenTable, bytes_of_tokens
from tokalign_lab.vocabulary import Vocabulary

FORMAT = 1


class TokenList(Vocabulary):
    """The tokens of a vocabulary, as `save_tokens` wrote them; all attributes of `Vocabulary` but `tokenizer`.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        If there is no such file, or it is no list of tokens of this format; and by every method that cuts text.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            told = json.loads(lzma.decompress(Path(path).read_bytes()))
            form = told["format"]
        except (OSError, ValueError, lzma.LZMAError, KeyError, TypeError) as error:
            raise InputError(f"'{path}' is not a readable list of tokens ({type(error).__name__}).") from error
        if form != FORMAT:
            raise InputError(f"'{path}' is a list of tokens of format {form}; this tokalign-lab reads {FORMAT}.")
        raw: list[str | None] = told["tokens"]
        is_control = np.zeros(len(raw), dtype=bool)
        is_control[told["control"]] = True
        spelling = Spelling(**told["spelling"])
        token_bytes, is_byte_fallback = bytes_of_tokens(raw, is_control, set(told["literal"]), spelling)
        table = TokenTable(
            tuple(raw), token_bytes, is_control, is_byte_fallback,
            told["roles"], spelling.kind, told["algorithm"], told["fingerprint"], spelling.suffix,
        )  # fmt: skip
        super().__init__(table, self._refuse, told["name"])

    def _refuse(self) -> NoReturn:
        """Say what is missing where the tokenizer is asked for, by any of the methods of `Vocabulary`."""
        raise InputError(
            f"This is a recorded run: of the tokenizer '{self.name}' it keeps the list of tokens, which cannot cut "
            "a text; align the pair yourself to see this."
        )


def save_tokens(vocabulary: Vocabulary, path: Path | str) -> None:
    """Write the tokens of a vocabulary, without its tokenizer, to one file that appears whole or not at all."""
    tokenizer = vocabulary.tokenizer
    spelling = Spelling.of(json.loads(tokenizer.backend_tokenizer.to_str()))
    told = {
        "format": FORMAT,
        "name": vocabulary.name,
        "fingerprint": vocabulary.fingerprint,
        "spelling": asdict(spelling),
        "roles": vocabulary.roles,
        "algorithm": vocabulary.algorithm,
        "control": np.flatnonzero(vocabulary.is_control).tolist(),
        "literal": sorted(tokenizer.added_tokens_decoder),
        "tokens": [
            None if hole else vocabulary.raw_token(token_id) for token_id, hole in enumerate(vocabulary.is_hole)
        ],
    }
    packed = lzma.compress(json.dumps(told, ensure_ascii=False).encode(), preset=9 | lzma.PRESET_EXTREME)
    with atomic_file(Path(path)) as temporary:
        temporary.write_bytes(packed)
