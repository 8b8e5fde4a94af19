"""`draft`: a small model converted to a large model's vocabulary, measured by transformers' assisted generation."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from test_cli import run, run_json
from tiny import save_tiny, tiny_model, tiny_vocabulary
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tokalign_lab import catalog
from tokalign_lab.catalog.texts import udhr_documents
from tokalign_lab.documents import Document
from tokalign_lab.draft import UNFINISHED, was_interrupted
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.drafting import AHEAD, Drafting, DraftScore
from tokalign_lab.model.load import load_model
from tokalign_lab.vocabulary import Vocabulary

TEXT = {made["slice"]: made["text"] for made in udhr_documents()}


@pytest.fixture(scope="module")
def smollm() -> PreTrainedModel:
    return load_model("smollm2-135m", device="cpu")


def test_drafts_of_the_same_model_are_always_accepted(smollm: PreTrainedModel) -> None:
    documents = [Document(TEXT["en"], "en", "en", "en")]
    new_tokens = AHEAD + 1
    drafting = Drafting(smollm, catalog.load_vocabulary("smollm2-135m"), documents, 1, new_tokens, seed=0)
    scores = drafting.score(copy.deepcopy(smollm))
    assert [one.decoding for one in scores] == ["greedy", "sampled"]
    for one in scores:
        assert (one.tokens, one.steps, one.proposed) == (new_tokens, 1, AHEAD)
        assert (one.acceptance, one.tokens_per_step) == (1, AHEAD + 1)


def test_acceptance_and_tokens_per_step() -> None:
    one = DraftScore("en", "greedy", tokens=12, steps=4, proposed=16, seconds=0.1, plain_seconds=0.2)
    assert one.acceptance == 0.5  # 12 tokens, 4 of them the large model's own
    assert one.tokens_per_step == 3
    assert one.to_dict()["speed_up"] == 2
    assert DraftScore("en", "greedy", 1, 1, 0, 0.1, 0.1).acceptance == 0


def byte_tokens(merges: list[tuple[str, str]]) -> Vocabulary:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: place for place, token in enumerate(["</s>", *alphabet, *map("".join, merges)])}
    made = Tokenizer(models.BPE(ids, merges))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>"), "bytes")


def always(vocabulary: Vocabulary, token: str) -> PreTrainedModel:
    """Return a model that writes one token only."""
    model = tiny_model("llama", vocabulary.size)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            weight.zero_()
        model.model.embed_tokens.weight.fill_(1)
        model.lm_head.weight.zero_()
        model.lm_head.weight[vocabulary.id_of_raw(token)] = 1
    return model


def test_long_tokens_of_a_drafts_own_tokenizer_are_accepted_at_most_once() -> None:
    """Each of its tokens is four of the large model's, and 225 % of the proposed ones were accepted."""
    large, own = byte_tokens([]), byte_tokens([("a", "a"), ("aa", "aa")])
    texts = [Document("a" * 40, str(number), str(number)) for number in range(3)]
    (score, *_) = Drafting(always(large, "a"), large, texts, 2, 20, seed=0, longest=40).score(always(own, "aaaa"), own)
    assert (score.tokens, score.steps, score.proposed) == (40, 4, 38)
    assert score.acceptance == pytest.approx(36 / 38)


def test_too_little_text_is_refused(smollm: PreTrainedModel) -> None:
    with pytest.raises(InputError, match="no passage of 64 tokens"):
        Drafting(smollm, catalog.load_vocabulary("smollm2-135m"), [Document("Few.", "a", "a")], 1, 4, seed=0)


def test_stop_strings_do_not_end_a_measurement() -> None:
    vocabulary, other = tiny_vocabulary(300), tiny_vocabulary(280)
    large, draft, foreign = (tiny_model("llama", size) for size in (vocabulary.size, vocabulary.size, other.size))
    for model in (large, draft, foreign):
        model.generation_config.stop_strings = ["e", "a", " "]
        model.config.max_position_embeddings = 128
    drafting = Drafting(large, vocabulary, [Document(TEXT["en"], "en", "en", "en")], 1, AHEAD + 1, seed=0)
    scores = drafting.score(draft) + drafting.score(foreign, own=other)
    assert [one.tokens for one in scores] == [AHEAD + 1] * 3


def test_prompts_and_new_tokens_fit_the_positions_of_every_model() -> None:
    """GPT-2 has an embedding for each position, so a longer input is an IndexError."""
    vocabulary, other = tiny_vocabulary(340), tiny_vocabulary(280)
    large, draft, foreign = (tiny_model("gpt2", size) for size in (vocabulary.size, vocabulary.size, other.size))
    documents = [Document(TEXT["en"], "en", "en", "en")]
    drafting = Drafting(large, vocabulary, documents, 1, 30, seed=0, longest=64)
    assert [one.tokens for one in drafting.score(draft)] == [30, 30]
    assert drafting.score(foreign, own=other) == [], "it needs more of its own tokens than it reads"
    with pytest.raises(InputError, match="at most 64 tokens; ask for fewer than 63 new tokens"):
        Drafting(large, vocabulary, documents, 1, 63, seed=0, longest=64)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random models with different tokenizers, and a text (for the mechanics only)."""
    folder = tmp_path_factory.mktemp("draft")
    small = save_tiny(folder / "small", "llama_tied", 300) / "config.json"
    small.write_text(json.dumps({**json.loads(small.read_text()), "max_position_embeddings": 128}))
    save_tiny(folder / "large", "mistral", 340, seed=1)
    (folder / "text.txt").write_text(TEXT["en"], encoding="utf-8")
    return folder


OPTIONS = ("--text", "text.txt", "--held-out-share", "0.2", "--prompts", 1, "--new-tokens", 4)


def test_the_command_converts_and_measures(work: Path) -> None:
    (work / "drafts" / "moved").mkdir(parents=True)
    (work / "drafts" / "lexicon.parquet").write_text("mine")
    assert run("draft", "small", "--for", "large", *OPTIONS, "--out", "drafts", cwd=work).returncode == 2
    assert (work / "drafts" / "lexicon.parquet").read_text() == "mine"
    (work / "drafts" / UNFINISHED).touch()  # an earlier command was killed
    result = run_json("draft", "small", "--for", "large", *OPTIONS, "--out", "drafts", cwd=work)
    assert list(result["drafts"]) == ["own tokenizer", "moved", "calibrated"]
    assert not was_interrupted(work / "drafts"), "it is complete now, and not replaced"
    assert [one["decoding"] for one in result["drafts"]["own tokenizer"]] == ["greedy"]
    for name in ("moved", "calibrated"):
        large, moved = (json.loads((work / one / "config.json").read_text()) for one in ("large", f"drafts/{name}"))
        assert moved["vocab_size"] == large["vocab_size"]
        assert [one["decoding"] for one in result["drafts"][name]] == ["greedy", "sampled"]
        for one in result["drafts"][name]:
            assert one["tokens"] == 4
            assert 1 <= one["tokens_per_step"] <= AHEAD + 1
            assert one["acceptance"] == pytest.approx((one["tokens"] - one["steps"]) / one["proposed"])
    again = run_json(
        "draft",
        "drafts/moved",
        "--for",
        "large",
        "--recovered",
        "drafts/calibrated",
        *OPTIONS,
        "--out",
        "none",
        cwd=work,
    )
    assert list(again["drafts"]) == ["as given", "recovered"]
    counts = ("slice", "decoding", "tokens", "steps", "proposed")
    for name, before in (("as given", "moved"), ("recovered", "calibrated")):
        assert [[one[key] for key in counts] for one in again["drafts"][name]] == [
            [one[key] for key in counts] for one in result["drafts"][before]
        ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nobody", "--for", "large"), "nobody"),
        (("small", "--for", "nobody"), "nobody"),
        (("small", "--for", "large", "--recovered", "small"), "'small' does not have the vocabulary of 'large'"),
        (("small", "--for", "large", "--prompts", "0"), "prompts is 0"),
        (("small", "--for", "large", "--new-tokens", "64"), "at most 64 tokens; ask for fewer than 63 new tokens"),
        (("small", "--for", "large"), "'small' has to be converted first; give --out"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], message: str, work: Path) -> None:
    done = run("draft", *arguments, "--text", "text.txt", cwd=work)
    assert done.returncode == 2
    assert message in done.stderr
