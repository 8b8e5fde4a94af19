"""Convert a SentencePiece model to a Hugging Face fast tokenizer that gives the ids of the sentencepiece library.

transformers has a converter, but it orders merges by id instead of by score, which splits runs of spaces (so nearly all
code) differently; it strips all white space, but the library only spaces; it adds a dummy space after each user-defined
symbol too; and it finds control symbols in a text.

The steps of the library, in order, and the function that implements each here:

1. The character map replaces characters, except in user-defined symbols (`_mapped`).
2. Spaces at the ends and repeated spaces are removed, a dummy space is added, spaces become `▁` (`_normalizer`).
3. BPE splits off user-defined symbols, longest first (`_longest_of`). They cannot be added tokens here, because those
   are found before step 2, or are normalized themselves. For Unigram they are pieces with a high score.
4. BPE or Unigram splits the text between them. The library never finds control, unknown and byte pieces in a text, but
   fast tokenizers find some of them, so their strings are split where the library splits them (`_control_cuts`).

The result is compared with the library on adversarial texts. A model with different ids is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.catalog.tokenizer_formats import merges_of
from tokalign_lab.errors import InputError, plain_read_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of pieces in `sentencepiece_model.proto`."""
_UNIGRAM, _BPE = 1, 2
_SPACE = "▁"
_STAND_INS = 0xF0000  # private characters, which no character map changes
_PROBES = (
    "Hello world, it isn't 1,234.56!",
    "  two  spaces   around  ",
    "if x:\n        return 1\n\n\tpass\r\n",
    "\tx = 1\n",
    "\n",
    " ",
    "naïve Größe 你好,世界。 こんにちは Всё 안녕하세요 नमस्ते",
    "👩‍🚀 ok",
    "<s>a</s><unk><pad><0x0A>",
)
_SYMBOLS_PROBED = 20


def sentencepiece_tokenizer(path: Path) -> Tokenizer:
    """Build a fast tokenizer from a SentencePiece BPE or Unigram `.model`, with the same ids as sentencepiece.

    Raises `InputError` if the file is not a SentencePiece model, is damaged, is of a type other than BPE and Unigram,
    or has options for which the fast tokenizer gives other ids.
    """
    from sentencepiece import SentencePieceProcessor

    proto = _read(path)
    try:
        with plain_read_errors(lambda reason: f"is a damaged SentencePiece model ({reason}); fetch it again."):
            library = SentencePieceProcessor(model_file=str(path))
            tokenizer = _built(proto, library)
            probes = list(_probes(proto))
            right = library.encode(probes)
            tokenizer.encode_special_tokens = True
            ours = [encoding.ids for encoding in tokenizer.encode_batch_fast(probes, add_special_tokens=False)]
            tokenizer.encode_special_tokens = False
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    for probe, found, wanted in zip(probes, ours, right, strict=True):
        if found != wanted and not _equally_likely(proto, found, wanted):
            raise InputError(
                f"{path} has options that a fast tokenizer cannot follow: it splits {probe!r} unlike the "
                "sentencepiece library; train the model without them or give a tokenizer.json."
            )
    return tokenizer


def empty_model() -> Any:
    """Return an empty message of SentencePiece's file format (`sentencepiece_model.proto`)."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except Exception:  # the library's classes refuse an older protobuf; those of transformers read the same format
        from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_model_pb2
    return sentencepiece_model_pb2.ModelProto()


def _read(path: Path) -> Any:
    proto = empty_model()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError is not importable in every version of it
        raise InputError(f"{path} is not a SentencePiece model; it cannot be read.") from error
    if not proto.pieces:
        raise InputError(f"{path} is not a SentencePiece model; it holds no pieces.")
    return proto


def _built(proto: Any, library: Any) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers

    if proto.trainer_spec.model_type not in (_UNIGRAM, _BPE):
        raise InputError("is a SentencePiece model of words or characters; only BPE and Unigram can be used.")
    if any(piece.type == UNUSED for piece in proto.pieces):
        raise InputError("has pieces that are marked as unused, which a fast tokenizer cannot leave out; restore them.")
    if not proto.normalizer_spec.escape_whitespaces:
        raise InputError("writes spaces as they are, which a fast tokenizer cannot; train it with escape_whitespaces.")
    symbols = [piece.piece for piece in proto.pieces if piece.type == USER_DEFINED]
    tokenizer = Tokenizer(_model(proto, bool(symbols)))
    tokenizer.normalizer = _normalizer(proto, symbols)
    if proto.trainer_spec.model_type == _UNIGRAM:
        tokenizer.pre_tokenizer = _control_cuts(proto, library)
    elif symbols:
        whole = pre_tokenizers.Split(Regex(_longest_of(symbols)), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([whole, _control_cuts(proto, library)])
    spec = proto.normalizer_spec
    undo: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if spec.add_dummy_prefix or spec.remove_extra_whitespaces:
        undo.append(decoders.Strip(content=" ", left=2**31 if spec.remove_extra_whitespaces else 1, right=0))
    tokenizer.decoder = decoders.Sequence(undo)
    tokenizer.add_special_tokens(
        [AddedToken(piece.piece, normalized=False) for piece in proto.pieces if piece.type in (UNKNOWN, CONTROL)]
    )
    return tokenizer


def _model(proto: Any, has_symbols: bool) -> Any:
    from tokenizers import models

    unk = proto.trainer_spec.unk_id
    fallback = bool(proto.trainer_spec.byte_fallback)
    if proto.trainer_spec.model_type == _UNIGRAM:
        return models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk, fallback)
    vocab = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    # sentencepiece merges the adjacent pair with the highest score first, regardless of ids; sorting is stable
    merged = sorted((piece for piece in proto.pieces if piece.type == NORMAL), key=lambda piece: -piece.score)
    return models.BPE(
        vocab=vocab,
        merges=merges_of([piece.piece for piece in merged], vocab),
        unk_token=proto.pieces[unk].piece,
        fuse_unk=True,
        byte_fallback=fallback,
        ignore_merges=has_symbols,  # a symbol is split off as a whole, and no merges produce it
    )


def _normalizer(proto: Any, symbols: Sequence[str]) -> Any:
    from tokenizers import Regex, normalizers

    spec = proto.normalizer_spec
    steps = _mapped(spec.precompiled_charsmap, symbols) if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    suffix = proto.trainer_spec.treat_whitespace_as_suffix
    if spec.add_dummy_prefix and not suffix:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    adds_suffix = spec.add_dummy_prefix and suffix
    if adds_suffix:
        steps.append(normalizers.Replace(Regex(r"(?m)(?<=.)\z"), _SPACE))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(rf"{_SPACE}+\z"), _SPACE if adds_suffix else ""))
    return normalizers.Sequence(steps)


def _mapped(characters: bytes, symbols: Sequence[str]) -> list[Any]:
    """Return normalizers that apply the character map as the library does, except to the symbols.

    `Precompiled` maps a grapheme of several characters by its shortest prefix, or not at all. After composing
    characters and splitting line ends of two characters, no such grapheme of the library's maps is left.
    """
    from tokenizers import normalizers

    mapping = normalizers.Precompiled(characters)
    changed = [symbol for symbol in symbols if mapping.normalize_str(symbol) != symbol]
    stand_ins = {symbol: chr(_STAND_INS + place) for place, symbol in enumerate(sorted(changed, key=len, reverse=True))}
    steps: list[Any] = [normalizers.Replace(symbol, stand_in) for symbol, stand_in in stand_ins.items()]
    if mapping.normalize_str("\r") == mapping.normalize_str("\n") == " ":
        steps.append(normalizers.Replace("\r\n", "  "))
    if mapping.normalize_str("e\u0301") == "\xe9":
        steps.append(normalizers.NFC())
    return [*steps, mapping, *(normalizers.Replace(stand_in, symbol) for symbol, stand_in in stand_ins.items())]


def _longest_of(strings: Iterable[str]) -> str:
    """Build a regular expression that matches the longest of some strings, from a trie."""
    tree: dict[str, Any] = {}
    for string in strings:
        node = tree
        for character in string:
            node = node.setdefault(character, {})
        node[""] = {}
    return _written(tree)


def _written(tree: Mapping[str, Any]) -> str:
    inner = "|".join(_literal(character) + _written(node) for character, node in tree.items() if character)
    if not inner:
        return ""
    return f"(?:{inner})?" if "" in tree else f"(?:{inner})"


def _literal(text: str) -> str:
    return "".join(rf"\x{{{ord(character):x}}}" for character in text)


def _control_cuts(proto: Any, library: Any) -> Any:
    """Return a pre-tokenizer that splits strings of control, unknown and byte pieces where the library does."""
    from tokenizers import Regex, pre_tokenizers

    cuts = []
    for piece in proto.pieces:
        if piece.type in (UNKNOWN, CONTROL) and len(piece.piece) > 1:
            last = library.encode(piece.piece, out_type=str)[-1].strip(_SPACE)
            inside = piece.piece.endswith(last) and 0 < len(last) < len(piece.piece)
            at = len(piece.piece) - (len(last) if inside else 1)
            cuts.append(f"{_literal(piece.piece[:at])}(?={_literal(piece.piece[at:])})")
    if any(piece.type == BYTE for piece in proto.pieces):
        cuts.append("<0x[0-9A-F]{2}(?=>)")
    return pre_tokenizers.Split(Regex("|".join(cuts)), behavior="merged_with_previous")


def _probes(proto: Any) -> Iterator[str]:
    yield from _PROBES
    for kind in (USER_DEFINED, CONTROL):
        named = [piece.piece for piece in proto.pieces if piece.type == kind]
        for name in named[:_SYMBOLS_PROBED]:
            yield from (name, f"a{name}b", f" {name} {name}\n", f"{name * 2}the end")


def _equally_likely(proto: Any, ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether two Unigram splits are a tie: the library adds scores in float32 and may choose another one."""
    return proto.trainer_spec.model_type == _UNIGRAM and sorted(ours) == sorted(theirs)
