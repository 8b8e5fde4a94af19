"""The `tokenizer.model` of a folder, which llama.cpp's converter reads scores and types of pieces from.

Without it the converter gives every piece the same score, and llama.cpp splits most texts differently. A target that
comes with the file keeps it. For a BPE with byte tokens that has only a `tokenizer.json` it is built: a piece's score
is the rank of the first merge that makes it, as SentencePiece merges the pair with the highest score first. The built
file is used only if the sentencepiece library gives the tokenizer's ids with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokalign_lab.catalog.sentencepiece_files import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, empty_model
from tokalign_lab.files import from_home
from tokalign_lab.model.hard_texts import hard_texts
from tokalign_lab.vocabulary import Vocabulary

_BPE = 2  # model_type in sentencepiece_model.proto


def write_sentencepiece_model(vocabulary: Vocabulary, folder: Path) -> None:
    """Write `tokenizer.model` into a folder if the target has one with its ids, or one can be built."""
    given = (path.read_bytes() for path in _given_files(vocabulary.name))
    content = next((one for one in given if _has_the_ids(one, vocabulary)), None) or built_model(vocabulary)
    if content is not None:
        (folder / "tokenizer.model").write_bytes(content)


def built_model(vocabulary: Vocabulary) -> bytes | None:
    """Build a SentencePiece model of a vocabulary; None where it would not give the tokenizer's ids."""
    from sentencepiece import SentencePieceProcessor

    state = json.loads(vocabulary.tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    pieces = sorted(model.get("vocab") or (), key=lambda piece: model["vocab"][piece]) if _is_bpe(model) else []
    if not pieces or [model["vocab"][piece] for piece in pieces] != list(range(len(pieces))):
        return None  # a SentencePiece model has no holes in its ids
    special = {token["content"]: token["special"] for token in state["added_tokens"]}
    rank: dict[str, int] = {}
    for number, pair in enumerate(model["merges"]):
        rank.setdefault("".join(pair) if isinstance(pair, list) else pair.replace(" ", ""), number)
    texts = hard_texts(())
    wanted = [ids.tolist() for ids in vocabulary.encode(texts)]
    for adds_space in (True, False):
        proto = empty_model()
        for token_id, piece in enumerate(pieces):
            kind = NORMAL
            if piece == model["unk_token"]:
                kind = UNKNOWN
            elif vocabulary.is_byte_fallback[token_id]:
                kind = BYTE
            elif piece in special:
                kind = CONTROL if special[piece] else USER_DEFINED
            proto.pieces.add(piece=piece, score=-float(rank.get(piece, len(rank))), type=kind)
        trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
        trainer.model_type, trainer.vocab_size, trainer.byte_fallback = _BPE, len(pieces), True
        trainer.unk_id = pieces.index(model["unk_token"])
        normalizer.name, normalizer.add_dummy_prefix = "identity", adds_space
        normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
        content: bytes = proto.SerializeToString()
        try:
            if SentencePieceProcessor(model_proto=content).encode(texts) == wanted:
                return content
        except RuntimeError:  # the library refuses such a vocabulary, for example one without 256 byte tokens
            return None
    return None


def _is_bpe(model: dict[str, Any]) -> bool:
    return model["type"] == "BPE" and bool(model["byte_fallback"]) and model["unk_token"] in model["vocab"]


def _has_the_ids(content: bytes, vocabulary: Vocabulary) -> bool:
    from sentencepiece import SentencePieceProcessor

    try:
        pieces = SentencePieceProcessor(model_proto=content)
    except Exception:  # a tiktoken file may have the same name
        return False
    size = pieces.get_piece_size()
    return size <= vocabulary.size and all(pieces.id_to_piece(i) == vocabulary.raw_token(i) for i in range(size))


def _given_files(name: str) -> list[Path]:
    from tokalign_lab.catalog import cached_path, is_known

    place = cached_path(name) if is_known(name) else from_home(name)
    if place is None or not place.exists():
        return []
    return sorted(place.glob("tokenizer.model*")) if place.is_dir() else [place] * (place.suffix == ".model")
