"""SentencePiece models with all trainer options: ids, text and bytes equal those of the sentencepiece library."""

from __future__ import annotations

import io
import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2
from tiny import WORDS

from tokalign_lab import catalog
from tokalign_lab.errors import InputError
from tokalign_lab.vocabulary import Vocabulary

LINES = [
    *WORDS.splitlines(),
    "Größe naïve café e\u0301 你好 こんにちは Всё 한국어",
    "if self.value is None:        return    (self.other)",
    "a</s>b <sep> <unk> <0x0A> ＡＢ ①",
]
SYMBOLS = ["\n", "<sep>", "▁▁", "▁▁▁▁", "</s"]
PARTS = [
    *("a", "b", "the", "return", "x", "(self", "def ", "=", "<", "/", "s", ">", "'", "The quick brown", "fox, "),
    *(" ", "  ", "    ", "        ", "\t", "\n", "\r\n", "\r", "\x00", "\u00a0", "\u3000", "\u200b", "\ufeff"),
    *("<sep>", "</s>", "<s>", "<unk>", "<0x0A>", "<0xe2>", "▁", "▁▁", "</", "sep>"),
    *("é", "e\u0301", "e\u0323\u0302", "你", "한", "\u1112\u1161\u11ab", "か\u3099", "①", "ﬁ", "Ａ", "👩‍🚀"),
]


def adversarial() -> list[str]:
    draw = random.Random(0)
    return ["", *PARTS, *LINES, *("".join(draw.choices(PARTS, k=draw.randint(1, 12))) for _ in range(300))]


TEXTS = adversarial()


def trained(path: Path, **options: Any) -> Path:
    made = io.BytesIO()
    given = {"vocab_size": 420, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2, **options}
    SentencePieceTrainer.train(sentence_iterator=iter(LINES * 20), model_writer=made, **given)
    path.write_bytes(made.getvalue())
    return path


def differing(vocabulary: Vocabulary, library: SentencePieceProcessor, texts: list[str]) -> list[Any]:
    """Return texts that the two tokenizers encode or decode differently; ties of Unigram may differ."""
    unigram = vocabulary.algorithm == "Unigram"
    found: list[Any] = []
    for text, ours, right in zip(texts, vocabulary.encode(texts), library.encode(texts), strict=True):
        if ours.tolist() != right and not (unigram and sorted(ours.tolist()) == sorted(right)):
            found.append((text, [vocabulary.raw_token(i) for i in ours], library.id_to_piece(right)))
        elif "▁" not in text and library.unk_id() not in right and vocabulary.decode(right) != library.decode(right):
            found.append((text, vocabulary.decode(right), library.decode(right)))
    return found


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("rule", ["identity", "nfkc", "nmt_nfkc", "nmt_nfkc_cf"])
def test_every_combination_of_options_reads_as_the_library(model_type: str, rule: str, tmp_path: Path) -> None:
    switches = ("byte_fallback", "remove_extra_whitespaces", "add_dummy_prefix", "treat_whitespace_as_suffix")
    for symbols, *values in itertools.product([[], SYMBOLS], *[[False, True]] * len(switches)):
        options = dict(zip(switches, values, strict=True)) | {"user_defined_symbols": symbols}
        path = trained(tmp_path / "m.model", model_type=model_type, normalization_rule_name=rule, **options)
        vocabulary, library = catalog.load_vocabulary(str(path)), SentencePieceProcessor(model_file=str(path))
        assert not differing(vocabulary, library, TEXTS)[:3], options
        for token_id in range(vocabulary.size):
            if library.is_control(token_id) or library.is_unknown(token_id):
                assert vocabulary.token_bytes[token_id] is None
            else:
                piece = library.id_to_piece(token_id)
                right = bytes([int(piece[3:5], 16)]) if library.is_byte(token_id) else piece.replace("▁", " ").encode()
                assert vocabulary.token_bytes[token_id] == right, piece


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Vocabulary, SentencePieceProcessor]]:
    folder = tmp_path_factory.mktemp("sentencepiece")
    made = []
    for kind in ("bpe", "unigram"):
        for name, options in {
            "plain": {"normalization_rule_name": "identity", "byte_fallback": True, "user_defined_symbols": SYMBOLS},
            "t5": {"normalization_rule_name": "nmt_nfkc"},
        }.items():
            path = trained(folder / f"{kind}-{name}.model", model_type=kind, **options)
            made.append((catalog.load_vocabulary(str(path)), SentencePieceProcessor(model_file=str(path))))
    return made


_characters = st.one_of(
    st.sampled_from(PARTS),
    st.characters(codec="utf-8", max_codepoint=0x2FF),
    st.characters(codec="utf-8", categories=["Lu", "Ll", "Lo", "Nd", "Po", "Sm", "So", "Zs"]),
)


@settings(max_examples=150)
@given(text=st.lists(_characters, max_size=30).map("".join))
def test_any_text_reads_as_the_library(models, text: str) -> None:
    for vocabulary, library in models:
        assert not differing(vocabulary, library, [text])


def test_the_saved_folder_reads_as_the_library(models, tmp_path: Path) -> None:
    for number, (vocabulary, library) in enumerate(models):
        folder = tmp_path / str(number)
        vocabulary.tokenizer.save_pretrained(folder)
        again = catalog.load_vocabulary(str(folder))
        assert again.fingerprint == vocabulary.fingerprint
        assert again.token_bytes == vocabulary.token_bytes
        assert not differing(again, library, TEXTS)


def test_user_defined_symbols_of_a_folder_are_text(tmp_path: Path) -> None:
    trained(tmp_path / "sentencepiece.bpe.model", model_type="unigram", user_defined_symbols=["<sep>", "▁▁"])
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}', encoding="utf-8")
    vocabulary = catalog.load_vocabulary(str(tmp_path))
    (ids,) = vocabulary.encode(["<sep>"])
    assert [vocabulary.token_bytes[i] for i in ids] == [b"<sep>"]
    assert vocabulary.token_bytes[vocabulary.id_of_raw("▁▁")] == b"  "
    assert vocabulary.is_control[vocabulary.id_of_raw("<mask>")]
    folder = tmp_path / "saved"
    vocabulary.tokenizer.save_pretrained(folder)
    assert catalog.load_vocabulary(str(folder)).token_bytes == vocabulary.token_bytes


def test_spans_exclude_the_dummy_suffix(tmp_path: Path) -> None:
    path = trained(tmp_path / "m.model", treat_whitespace_as_suffix=True, normalization_rule_name="identity")
    spans = catalog.load_vocabulary(str(path)).spans("the fox")
    assert b"".join(b"the fox"[start:end] for _, start, end in spans) == b"the fox"
    assert spans[-1][2] == len("the fox")


def test_thousands_of_user_defined_symbols_are_read_quickly(tmp_path: Path) -> None:
    path = trained(tmp_path / "m.model", model_type="bpe", normalization_rule_name="identity")
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    names = [f"<unused{number}>" for number in range(3000)] + ["▁" * n for n in range(2, 32)]
    for name in names:
        proto.pieces.add(piece=name, score=0.0, type=4)
    path.write_bytes(proto.SerializeToString())
    vocabulary, library = catalog.load_vocabulary(str(path)), SentencePieceProcessor(model_file=str(path))
    texts = ["<unused12><unused123> x<unused", "a" + " " * 40 + "b", WORDS * 200]
    assert not differing(vocabulary, library, texts)


def test_a_model_that_no_fast_tokenizer_can_reproduce_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = trained(tmp_path / "m.model", model_type="bpe", normalization_rule_name="identity")
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    right = proto.SerializeToString()

    def refused(match: str) -> None:
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(InputError, match=match) as caught:
            catalog.load_tokenizer(str(path))
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
        proto.ParseFromString(right)

    proto.trainer_spec.model_type = 3
    refused("words or characters")
    proto.pieces[300].type = 5
    refused("marked as unused")
    proto.normalizer_spec.escape_whitespaces = False
    refused("writes spaces as they are")
    next(piece for piece in proto.pieces if piece.piece == "h").piece = "\u0f00"  # the library merges unknown symbols
    refused("splits '<s><s>the end' unlike the sentencepiece library")


@pytest.mark.parametrize("damage", ["cut", "flipped", "short", "random", "empty trie"])
def test_a_damaged_character_map_is_one_sentence(damage: str, tmp_path: Path) -> None:
    path = trained(tmp_path / "m.model", model_type="unigram", normalization_rule_name="nmt_nfkc")
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    spec = proto.normalizer_spec
    whole = spec.precompiled_charsmap
    noise = random.Random(1).randbytes(len(whole))
    spec.precompiled_charsmap = {
        "cut": whole[: len(whole) // 2],
        "flipped": bytes(byte ^ 255 for byte in whole),
        "short": b"\x01",
        "random": noise,
        "empty trie": whole[:4] + noise[4:],
    }[damage]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=r"m\.model") as caught:
        catalog.load_tokenizer(str(path))
    assert "\n" not in str(caught.value)


def test_a_model_is_read_with_an_older_protobuf_than_the_library_asks_for(tmp_path: Path) -> None:
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 5), model_prefix=str(tmp_path / "m"), vocab_size=400, byte_fallback=True,
        model_type="bpe", normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    code = (
        "import sys; sys.modules['sentencepiece.sentencepiece_model_pb2'] = None\n"  # its import fails
        "from tokalign_lab import catalog\n"
        "from tokalign_lab.model.sentencepiece_model import built_model\n"
        f"found = catalog.load_vocabulary({str(tmp_path / 'm.model')!r})\n"
        "print(found.size, built_model(found) is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["400", "True"], done.stderr
