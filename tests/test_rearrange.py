from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CONFIGS, WORDS, renumbered, tiny_model, tiny_tokenizer, tiny_vocabulary
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
from tokalign_lab.alignment.lexicon.rows import LexiconRows, reverse_of
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.model.rows import padded_size
from tokalign_lab.model.save import save_model, template_fits
from tokalign_lab.vocabulary import Vocabulary, shared_roles, shared_tokens

SOURCE = tiny_vocabulary(300)
TARGET = tiny_vocabulary(280, bos="<s>", eos="<end>")
SMALLER_ROWS_PADDED = SOURCE.size + 20  # like Pythia's 50,304 rows for 50,277 tokens


def finish(rows: LexiconRows, source: Vocabulary, target: Vocabulary) -> Lexicon:
    table = rows.to_table(source, target, np.zeros(source.size), np.zeros(target.size))
    provenance = make_provenance(source, target, recipe="test", parameters={}, seed=0)
    return Lexicon(table, reverse_of(rows, source.size), provenance)


def identity(vocabulary: Vocabulary) -> Lexicon:
    rows = LexiconRows(vocabulary.size)
    for token_id in range(vocabulary.size):
        rows.copy(token_id, token_id, "identical")
    return finish(rows, vocabulary, vocabulary)


def mixed_lexicon() -> Lexicon:
    """Make a lexicon with copies, mixtures, a mean row, a random row and a hole, each at a known id."""
    rows = LexiconRows(TARGET.size)
    for target_id in range(TARGET.size):
        rows.copy(target_id, target_id % SOURCE.size, "aligned")
    rows.mix(5, [7, 9, 11], [0.5, 0.25, 0.25], "pieces")
    for place, origin in ((6, "mean"), (7, "random"), (8, "hole")):
        rows.sources[place], rows.weights[place] = np.zeros(0, np.int32), np.zeros(0, np.float32)
        rows.source_id[place] = -1
        rows.fill(np.array([place]), origin)
    return finish(rows, SOURCE, TARGET)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_conversion_of_every_architecture_changes_only_its_rows(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind, SMALLER_ROWS_PADDED)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    new = rearrange(model, mixed_lexicon(), SOURCE, TARGET, seed=3)

    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), f"the source model's {name} was changed"
    old_in, new_in = model.get_input_embeddings().weight, new.get_input_embeddings().weight
    old_out, new_out = model.get_output_embeddings(), new.get_output_embeddings()
    assert new_in.shape[0] == new_out.weight.shape[0] == new_out.out_features == TARGET.size
    assert new.config.get_text_config().vocab_size == TARGET.size
    assert type(new.get_input_embeddings()) is type(model.get_input_embeddings())
    assert (new_out.weight is new_in) == (old_out.weight is old_in), "tied stays tied, untied stays untied"

    for old, made in ((old_in, new_in), (old_out.weight, new_out.weight)):
        assert torch.equal(made[10:100], old[10:100]), "copies are bit-equal"
        torch.testing.assert_close(made[5], 0.5 * old[7] + 0.25 * old[9] + 0.25 * old[11])
        mean = old[: SOURCE.size].mean(dim=0)
        torch.testing.assert_close(made[6], mean)
        torch.testing.assert_close(made[8], mean)
        assert (made[7] - mean).abs().max() > 0.05
        assert (made[7] - mean).abs().max() < 6 * old[: SOURCE.size].std(dim=0).max()
    if old_out.bias is not None:
        assert torch.equal(new_out.bias[10:100], old_out.bias[10:100])
        torch.testing.assert_close(new_out.bias[5], 0.5 * old_out.bias[7] + 0.25 * (old_out.bias[9] + old_out.bias[11]))

    moved = {id(new_in), id(new_out.weight), id(new_out.bias)}
    others = {name: weight for name, weight in new.named_parameters() if id(weight) not in moved}
    assert others
    for name, weight in others.items():
        assert torch.equal(weight, before[name]), name

    save_model(new, TARGET, tmp_path / "saved", source=SOURCE)
    loaded = load_model(str(tmp_path / "saved"), device="cpu")
    ids = torch.tensor([[3, 5, 7, 20, 11]])
    assert torch.equal(loaded(ids).logits, new(ids).logits)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_the_identity_lexicon_changes_no_logit(kind: str) -> None:
    model = tiny_model(kind, SMALLER_ROWS_PADDED)
    new = rearrange(model, identity(SOURCE), SOURCE, SOURCE)
    ids = torch.tensor([[1, 2, 3, 40, 50, 60]])
    assert torch.equal(new(ids).logits, model(ids).logits[..., : SOURCE.size])


def test_dtype_is_kept_and_random_rows_follow_the_seed() -> None:
    model = tiny_model("llama", SMALLER_ROWS_PADDED, dtype=torch.bfloat16)
    first, again, other = (rearrange(model, mixed_lexicon(), SOURCE, TARGET, seed=s) for s in (1, 1, 2))
    rows = [made.get_input_embeddings().weight for made in (first, again, other)]
    assert rows[0].dtype == torch.bfloat16
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0][7], rows[2][7])
    assert torch.equal(rows[0][10:100], model.get_input_embeddings().weight[10:100])


def test_padded_rows_of_the_source_are_never_used() -> None:
    model = tiny_model("llama", SMALLER_ROWS_PADDED)
    with torch.no_grad():
        model.get_input_embeddings().weight[SOURCE.size :] = float("nan")
        model.get_output_embeddings().weight[SOURCE.size :] = float("nan")
    new = rearrange(model, mixed_lexicon(), SOURCE, TARGET)
    assert torch.isfinite(new.get_input_embeddings().weight).all()
    assert torch.isfinite(new.get_output_embeddings().weight).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rows_that_are_no_numbers_are_refused(value: float) -> None:
    model = tiny_model("llama", SMALLER_ROWS_PADDED)
    with torch.no_grad():
        model.get_input_embeddings().weight[17, 3] = value
    with pytest.raises(InputError, match=r"in the rows of ids 17; replace"):
        rearrange(model, mixed_lexicon(), SOURCE, TARGET)


def test_a_source_token_without_a_row_is_replaced_by_the_mean() -> None:
    model = tiny_model("llama", SOURCE.size - 1)  # as Gemma 3's image token, whose id is one after the last row
    rows = LexiconRows(TARGET.size)
    for target_id in range(TARGET.size):
        rows.copy(target_id, target_id % SOURCE.size, "aligned")
    rows.copy(4, SOURCE.size - 1, "aligned")
    new = rearrange(model, finish(rows, SOURCE, TARGET), SOURCE, TARGET)
    old = model.get_input_embeddings().weight
    torch.testing.assert_close(new.get_input_embeddings().weight[4], old.mean(dim=0))


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_separate_output_rows_untie_the_head_and_change_nothing_else(kind: str, tmp_path: Path) -> None:
    rows = LexiconRows(TARGET.size)
    for target_id in range(TARGET.size):
        rows.copy(target_id, target_id % SOURCE.size, "aligned")
    rows.mix(5, [7, 9], [0.5, 0.5], "pieces")
    rows.mix_output(5, [7], [0.25], mean_weight=0.5)
    lexicon = finish(rows, SOURCE, TARGET)
    model = tiny_model(kind, SOURCE.size)
    old_in, old_out = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = old_in is old_out

    new = rearrange(model, lexicon, SOURCE, TARGET)
    new_in, new_out = new.get_input_embeddings().weight, new.get_output_embeddings().weight
    assert new_in is not new_out
    assert new.config.get_text_config().tie_word_embeddings is False
    assert old_in is model.get_input_embeddings().weight
    assert (model.get_output_embeddings().weight is old_in) == tied, "the source model does not change"
    torch.testing.assert_close(new_in[5], 0.5 * old_in[7] + 0.5 * old_in[9])
    torch.testing.assert_close(new_out[5], 0.25 * old_out[7] + 0.5 * old_out.mean(dim=0))
    assert torch.equal(new_out[6:50], old_out[6:50])
    save_model(new, TARGET, tmp_path / "saved", source=SOURCE)
    loaded = load_model(str(tmp_path / "saved"), device="cpu")
    ids = torch.tensor([[3, 5, 7, 20, 11]])
    assert torch.equal(loaded(ids).logits, new(ids).logits)

    kept = rearrange(model, lexicon, SOURCE, TARGET, keep_tied=True)
    assert (kept.get_output_embeddings().weight is kept.get_input_embeddings().weight) == tied
    torch.testing.assert_close(kept.get_input_embeddings().weight, new_in)


def test_rows_drawn_with_full_covariance_vary_as_the_source_rows_do() -> None:
    model = tiny_model("llama", SOURCE.size)
    with torch.no_grad():  # two correlated directions, which drawing each dimension separately would miss
        model.get_input_embeddings().weight[:, 1] = 2 * model.get_input_embeddings().weight[:, 0]
    drawn = {}
    for origin in ("random", "multivariate"):
        rows = LexiconRows(TARGET.size)
        rows.fill(np.arange(TARGET.size), origin)
        new = rearrange(model, finish(rows, SOURCE, TARGET), SOURCE, TARGET, seed=1)
        drawn[origin] = new.get_input_embeddings().weight.detach()
    torch.testing.assert_close(
        drawn["multivariate"][:, 1] - drawn["multivariate"][:, 1].mean(),
        2 * (drawn["multivariate"][:, 0] - drawn["multivariate"][:, 0].mean()),
        rtol=1e-2, atol=1e-2,
    )  # fmt: skip
    together = torch.corrcoef(drawn["random"][:, :2].T)[0, 1]
    assert abs(float(together)) < 0.3


def test_wrong_tokenizers_are_refused() -> None:
    with pytest.raises(InputError, match="lexicon was made for"):
        rearrange(tiny_model("llama", SOURCE.size), mixed_lexicon(), TARGET, TARGET)
    with pytest.raises(InputError, match="the model only"):
        rearrange(tiny_model("llama", 100), mixed_lexicon(), SOURCE, TARGET)


def test_the_card_names_the_first_token_if_the_tokenizer_does_not_add_it(tmp_path: Path) -> None:
    source_tokenizer = tiny_tokenizer(300, bos="<s>")
    source_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", source_tokenizer.bos_token_id)]
    )
    source, target = Vocabulary.from_tokenizer(source_tokenizer, "with"), tiny_vocabulary(280, eos="<end>")
    save_model(tiny_model("llama", target.size), target, tmp_path / "moved", source=source)
    assert json.loads((tmp_path / "moved" / "tokalign.json").read_text())["begin_texts_with"] == "<end>"
    card = (tmp_path / "moved" / "README.md").read_text()
    assert "| begin texts with | `<end>`" in card
    assert "\n# moved\n" in card
    save_model(tiny_model("llama", target.size), target, tmp_path / "like", source=target)
    assert "begin_texts_with" not in json.loads((tmp_path / "like" / "tokalign.json").read_text())


def test_special_ids_are_the_targets_everywhere(tmp_path: Path) -> None:
    model = tiny_model("gpt2", SMALLER_ROWS_PADDED)
    end = SOURCE.roles["eos"]
    model.config.eos_token_id = end
    model.config.bos_token_id = 9
    model.generation_config.eos_token_id = [end, 12]
    model.generation_config.bos_token_id = 9
    model.generation_config.pad_token_id = 250
    model.generation_config.decoder_start_token_id = 250
    model.generation_config.suppress_tokens = [4, 5]
    save_model(rearrange(model, mixed_lexicon(), SOURCE, TARGET), TARGET, tmp_path / "m", source=SOURCE)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    for config in (loaded.config, loaded.generation_config):
        assert config.bos_token_id == TARGET.roles["bos"]
        assert config.eos_token_id == TARGET.roles["eos"]
        assert config.pad_token_id is None
    same = TARGET.id_of_bytes(SOURCE.token_bytes[250])
    assert loaded.generation_config.decoder_start_token_id == same, "an ordinary token stays the same text"
    same = [TARGET.id_of_bytes(SOURCE.token_bytes[token_id]) for token_id in (4, 5)]
    assert loaded.generation_config.suppress_tokens == same
    assert AutoTokenizer.from_pretrained(tmp_path / "m").eos_token_id == TARGET.roles["eos"]


def test_a_shared_end_of_turn_token_still_ends_a_turn() -> None:
    both = tiny_tokenizer(300)
    both.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    source = Vocabulary.from_tokenizer(both, "source")
    other = tiny_tokenizer(280, bos="<s>", eos="<end>")
    other.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    target = Vocabulary.from_tokenizer(other, "target")
    model = tiny_model("llama", source.size)
    turn = both.convert_tokens_to_ids("<|turn|>")
    model.generation_config.eos_token_id = [source.roles["eos"], turn]
    rows = LexiconRows(target.size)
    rows.fill(np.arange(target.size), "mean")
    new = rearrange(model, finish(rows, source, target), source, target)
    assert new.generation_config.eos_token_id == [
        target.roles["eos"],
        other.convert_tokens_to_ids("<|turn|>"),
    ]


def test_the_chat_template_is_kept_only_if_it_can_work(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|turn|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    speaker = tiny_tokenizer(300, template=template)
    speaker.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    source = Vocabulary.from_tokenizer(speaker, "source")
    assert not template_fits(template, source, TARGET)
    knowing = tiny_tokenizer(280, eos="<end>")
    knowing.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    target = Vocabulary.from_tokenizer(knowing, "target")
    assert template_fits(template, source, target)
    begins = "{{ bos_token }}" + template
    assert template_fits(begins, source, target), "neither has a bos"
    knowing.bos_token = "<|turn|>"
    assert not template_fits(begins, source, Vocabulary.from_tokenizer(knowing, "with bos")), "it would write one"
    knowing.bos_token = None
    assert not template_fits("{{ raise_exception('no') }}", source, target)

    save_model(tiny_model("llama", target.size), target, tmp_path / "kept", source=source)
    assert AutoTokenizer.from_pretrained(tmp_path / "kept").chat_template == template
    assert target.tokenizer.chat_template is None, "the vocabulary's own tokenizer does not change"
    save_model(tiny_model("llama", TARGET.size), TARGET, tmp_path / "dropped", source=source)
    assert AutoTokenizer.from_pretrained(tmp_path / "dropped").chat_template is None


def test_a_saved_folder_names_its_origin(tmp_path: Path) -> None:
    lexicon = mixed_lexicon()
    both = {"target_to_source": 0.75, "source_to_target": 0.5}
    lexicon.provenance["scores"] = {"bleu1": both, "documents": 12}
    new = rearrange(tiny_model("llama_tied", SOURCE.size), lexicon, SOURCE, TARGET)
    card = {"model": "tiny", "lexicon": lexicon.provenance, "scores": {"bits_per_byte": 1.25}}
    save_model(new, TARGET, tmp_path / "m", card=card)
    read = json.loads((tmp_path / "m" / "tokalign.json").read_text())
    assert read["lexicon"]["source"]["fingerprint"] == SOURCE.fingerprint
    assert read["tokenizer"]["fingerprint"] == TARGET.fingerprint
    text = (tmp_path / "m" / "README.md").read_text()
    assert "tiny-300 → tiny-280" in text
    assert "1.2500" in text
    assert "0.7500 target to source, 0.5000 source to target (12 held-out documents)" in text
    assert "| recipe | test, seed 0 |" in text
    assert "transformers " in text
    from safetensors import safe_open

    with safe_open(tmp_path / "m" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (safe_open is no dict)
    reloaded = Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(tmp_path / "m"), "again")
    assert reloaded.fingerprint == TARGET.fingerprint


def test_a_save_that_fails_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", TARGET.size)
    save_model(model, TARGET, tmp_path / "m", card={"model": "first"})
    monkeypatch.setattr("tokalign_lab.model.save.card_text", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_model(model, TARGET, tmp_path / "m", card={"model": "second"})
    assert json.loads((tmp_path / "m" / "tokalign.json").read_text())["model"] == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_model_with_missing_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny_model("llama", 50).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its weights \(the first is lm_head.weight\)"):
        load_model(str(tmp_path), device="cpu")
    with pytest.raises(InputError, match="no-such-model"):
        load_model(str(tmp_path / "no-such-model"), device="cpu")


# --- rows without a token


def unused_of(model: PreTrainedModel, vocabulary: Vocabulary) -> list[int]:
    rows = model.get_input_embeddings().weight.shape[0]
    return [*np.flatnonzero(vocabulary.is_hole).tolist(), *range(vocabulary.size, rows)]


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_padding_rows_are_the_mean_of_new_rows_and_are_never_predicted(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind, SMALLER_ROWS_PADDED)
    new = rearrange(model, mixed_lexicon(), SOURCE, TARGET, pad_to_multiple_of=64)
    head, n = new.get_output_embeddings(), TARGET.size
    assert n == 280
    for matrix in (new.get_input_embeddings().weight, head.weight, head.bias):
        if matrix is not None:
            assert matrix.shape[0] == new.config.get_text_config().vocab_size == 320
            torch.testing.assert_close(matrix[n:], matrix[:n].mean(dim=0).expand_as(matrix[n:]))
    text = torch.randint(n, (8, 60), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = new(text).logits
    assert (logits[..., n:].amax(-1) < logits[..., :n].amax(-1)).all()
    if (
        new.config.get_text_config().to_dict().get("final_logit_softcapping") is None
    ):  # Jensen, if logits are not capped
        mass = torch.softmax(logits, -1)
        assert (mass[..., n:] <= mass[..., :n].mean(-1, keepdim=True) * 1.0001).all()

    new.generation_config.eos_token_id = None
    save_model(new, TARGET, tmp_path / "m", source=SOURCE)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    torch.manual_seed(0)
    drawn = loaded.generate(text[:, :4], max_new_tokens=40, do_sample=True, temperature=50.0, top_k=0, pad_token_id=0)
    assert drawn.max() < n, "transformers never draws padding, however flat the distribution"


def test_holes_are_treated_as_padding() -> None:
    order = np.arange(TARGET.size)
    order[100:] += 7
    holed = renumbered(TARGET, order)
    assert holed.is_hole.sum() == 7
    rows = LexiconRows(holed.size)
    for old, new_id in enumerate(order):
        rows.copy(int(new_id), old, "aligned")
    model = tiny_model("llama", SMALLER_ROWS_PADDED)
    new = rearrange(model, finish(rows, SOURCE, holed), SOURCE, holed, pad_to_multiple_of=8)
    matrix = new.get_output_embeddings().weight
    unused = unused_of(new, holed)
    assert unused == [*range(100, 107), 287]
    used = np.setdiff1d(np.arange(288), unused)
    torch.testing.assert_close(matrix[unused], matrix[used].mean(dim=0).expand(8, -1))
    assert new.generation_config.suppress_tokens == unused
    again = rearrange(new, identity(holed), holed, holed)
    assert again.generation_config.suppress_tokens == unused[:7], "the next target has its own"


def test_larger_targets_and_exact_multiples_get_the_rows_they_need() -> None:
    model = tiny_model("phi", TARGET.size)
    rows = LexiconRows(SOURCE.size)
    for token_id in range(SOURCE.size):
        rows.copy(token_id, token_id % TARGET.size, "aligned")
    grown = finish(rows, TARGET, SOURCE)
    for multiple, size in ((None, 300), (100, 300), (128, 384)):
        new = rearrange(model, grown, TARGET, SOURCE, pad_to_multiple_of=multiple)
        assert new.get_input_embeddings().weight.shape[0] == new.get_output_embeddings().bias.shape[0] == size
        assert torch.equal(new.get_output_embeddings().bias[280:300], model.get_output_embeddings().bias[:20])


# --- the real model -------------------------------------------------------------------------------------------


def test_a_real_model_converted_to_its_own_vocabulary_is_unchanged(
    smollm_folder: Path, smollm_vocabulary: Vocabulary
) -> None:
    model = load_model(str(smollm_folder), device="cpu")
    new = rearrange(model, identity(smollm_vocabulary), smollm_vocabulary, smollm_vocabulary)
    ids = torch.from_numpy(smollm_vocabulary.encode([WORDS])[0].astype(np.int64)).unsqueeze(0)
    with torch.inference_mode():
        assert torch.equal(new(ids).logits, model(ids).logits[..., : smollm_vocabulary.size])


def test_a_real_model_with_permuted_ids_has_the_same_bits_per_byte(
    smollm_folder: Path, smollm_vocabulary: Vocabulary
) -> None:
    permuted, order = permute(smollm_vocabulary)
    rows = LexiconRows(permuted.size)
    for old, new_id in enumerate(order):
        rows.copy(int(new_id), old, "identical")
    model = load_model(str(smollm_folder), device="cpu")
    moved = rearrange(model, finish(rows, smollm_vocabulary, permuted), smollm_vocabulary, permuted)
    documents = [Document(WORDS, "words", "words", "prose")]
    before = bits_per_byte(model, smollm_vocabulary, documents)
    after = bits_per_byte(moved, permuted, documents)
    assert before.tokens == after.tokens
    assert math.isclose(before.bits_per_byte, after.bits_per_byte, rel_tol=1e-5)
    assert moved.config.eos_token_id == int(order[smollm_vocabulary.roles["eos"]])


def by_bytes(source: Vocabulary, target: Vocabulary) -> Lexicon:
    """Make a lexicon that copies the rows of shared tokens and roles; the others get the mean row."""
    rows, shared = LexiconRows(target.size), shared_tokens(source, target)
    rows.fill(np.arange(rows.size), "mean")
    for source_id, target_id in zip(shared.source_ids, shared.target_ids, strict=True):
        rows.copy(int(target_id), int(source_id), "identical")
    for target_id, source_id in shared_roles(source, target).items():
        rows.copy(target_id, source_id, "role")
    return finish(rows, source, target)


def test_a_swap_to_a_tokenizer_that_writes_line_ends_as_bytes_costs_little(sp32k_vocabulary: Vocabulary) -> None:
    """Gemma has another token for a line end, so its row of `<0x0A>` is not trained; it costs 1.5 bits per byte."""
    text = (
        "The river was high.\nThey waited on the bank for the ferry, which did not come.\n\nBy noon they had crossed, "
        "and by evening they reached the village.\n\n\ndef area(width, height):\n    return width * height\n"
    )
    model, source = load_model("gemma-3-270m", device="cpu", dtype="auto"), load_vocabulary("gemma-3-270m")
    new = rearrange(model, by_bytes(source, sp32k_vocabulary), source, sp32k_vocabulary)
    documents = [Document(text, "text", "text", "prose")]
    assert bits_per_byte(new, sp32k_vocabulary, documents).bits_per_byte < 1.9, "1.58; the source has 1.27"


def test_a_real_pair_is_saved_and_loaded_with_correct_ids(
    smollm_folder: Path, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary, tmp_path: Path
) -> None:
    model = load_model(str(smollm_folder), device="cpu")
    lexicon = by_bytes(smollm_vocabulary, sp32k_vocabulary)
    new = rearrange(model, lexicon, smollm_vocabulary, sp32k_vocabulary)
    save_model(new, sp32k_vocabulary, tmp_path / "m", source=smollm_vocabulary)

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert Vocabulary.from_tokenizer(tokenizer, "again").fingerprint == sp32k_vocabulary.fingerprint
    assert loaded.config.vocab_size == sp32k_vocabulary.size
    for config in (loaded.config, loaded.generation_config):
        assert config.bos_token_id == tokenizer.bos_token_id == sp32k_vocabulary.roles["bos"]
        eos = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        assert eos[0] == tokenizer.eos_token_id
        assert max(eos) < sp32k_vocabulary.size
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    made = loaded.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert made.shape[1] == inputs["input_ids"].shape[1] + 3


def test_a_real_model_never_generates_padding_at_hardly_any_loss(
    smollm_folder: Path, smollm_vocabulary: Vocabulary
) -> None:
    model = load_model(str(smollm_folder), device="cpu")
    padded = rearrange(
        model, identity(smollm_vocabulary), smollm_vocabulary, smollm_vocabulary, pad_to_multiple_of=1000
    )
    n = smollm_vocabulary.size
    assert padded.config.vocab_size == padded.get_output_embeddings().weight.shape[0] == 50_000
    documents = [Document(WORDS, "words", "words", "prose")]
    plain, paid = (bits_per_byte(one, smollm_vocabulary, documents).bits_per_byte for one in (model, padded))
    assert plain <= paid < plain + 0.001
    ids = torch.from_numpy(smollm_vocabulary.encode([WORDS])[0].astype(np.int64)).unsqueeze(0)
    with torch.inference_mode():
        logits = padded(ids).logits
    assert (logits[..., n:].amax(-1) + 5 < logits[..., :n].amax(-1)).all(), "far from the largest, without a mask"
    made = padded.generate(ids[:, :8], max_new_tokens=20, do_sample=False, suppress_tokens=None)
    assert made.max() < n


def permute(vocabulary: Vocabulary) -> tuple[Vocabulary, np.ndarray]:
    """Return the same tokenizer with shuffled ids, and the new id of each old id."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    order = np.random.default_rng(0).permutation(vocabulary.size)
    content = copy.deepcopy(json.loads(vocabulary.tokenizer.backend_tokenizer.to_str()))
    content["model"]["vocab"] = {token: int(order[i]) for token, i in content["model"]["vocab"].items()}
    for added in content["added_tokens"]:
        added["id"] = int(order[added["id"]])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        bos_token=vocabulary.tokenizer.bos_token,
        eos_token=vocabulary.tokenizer.eos_token,
    )
    return Vocabulary.from_tokenizer(tokenizer, "permuted"), order


@pytest.mark.parametrize("multiple", [0, -8, 10**11])
def test_an_invalid_multiple_is_refused_in_one_sentence(multiple: int) -> None:
    with pytest.raises(InputError, match=f"padded to a multiple of {multiple}; use a number from 1 to 1,000,000"):
        padded_size(300, multiple)
