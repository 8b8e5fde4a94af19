"""`check`: each kind of damage is found by exactly one check, and a folder without faults has no findings."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import run, run_json
from test_rearrange import SOURCE, mixed_lexicon
from tiny import CONFIGS, save_tiny, tiny_model, tiny_tokenizer
from tokenizers import processors

from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.finding import Finding
from tokalign_lab.model import row_checks
from tokalign_lab.model.check import check_folder
from tokalign_lab.model.to_folder import rearrange_to_folder
from tokalign_lab.vocabulary import Vocabulary

TEMPLATE = "{% for m in messages %}<|turn|>{{ m['content'] }}{{ eos_token }}{% endfor %}"


def sound(folder: Path, kind: str = "llama", padding: int = 4) -> Path:
    """Make a small model folder without faults."""
    tokenizer = tiny_tokenizer(300, bos="<s>", template=TEMPLATE)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    vocabulary = Vocabulary.from_tokenizer(tokenizer, "tiny")
    model = tiny_model(kind, vocabulary.size + padding)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = vocabulary.roles["bos"], vocabulary.roles["eos"]
        config.pad_token_id = None
    model.generation_config.suppress_tokens = list(range(vocabulary.size, vocabulary.size + padding))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sound(tmp_path_factory.mktemp("check") / "untied")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sound(tmp_path_factory.mktemp("check") / "tied", "llama_tied")


def edit_json(folder: Path, name: str, **values: object) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    content |= values
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def config(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder, "config.json", **values)


def generation(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder, "generation_config.json", **values)


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_tokenizer(folder: Path, change: Callable[[dict], None]) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def worse(findings: list[Finding]) -> dict[str, str]:
    return {f.name: f.severity for f in findings if f.severity in ("warn", "fail")}


def worse_than_ok(folder: Path) -> dict[str, str]:
    return worse(check_folder(str(folder)).findings)


def test_a_folder_without_faults_has_no_findings(untied: Path, tied: Path) -> None:
    for folder in (untied, tied):
        found = check_folder(str(folder))
        assert worse(found.findings) == {}, [f.evidence for f in found.findings]
        unproven = {f.name for f in found.findings if f.severity == "not verified"}
        assert unproven == {"GGUF", "carried over"}, "only an export proves the one, and there is no source to compare"
        assert found.left_out == {}
        assert found.verdict == "ok"
        assert "<|turn|>" in found.finding("chat template").evidence
        assert "does not write tools" in found.finding("chat template").evidence  # but turns and a system message
        assert "4 rows of padding" in found.finding("ids").evidence


def scale_row(row: int, by: float, name: str = "model.embed_tokens.weight") -> Callable[[Path], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][row] *= by

    return lambda folder: edit_weights(folder, change)


def lose_a_layer(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def lose_the_merges(state: dict) -> None:
    state["model"]["merges"] = []


def add_tokens(n: int, special: bool) -> Callable[[dict], None]:
    def change(state: dict) -> None:
        first = max(max(state["model"]["vocab"].values()), *(token["id"] for token in state["added_tokens"])) + 1
        like = state["added_tokens"][0]
        state["added_tokens"] += [
            {**like, "id": first + i, "content": f"added{i}", "special": special} for i in range(n)
        ]

    return change


def lowercase(state: dict) -> None:
    state["normalizer"] = {"type": "Lowercase"}


def strip_accents(state: dict) -> None:
    parts = [{"type": "NFD"}, {"type": "StripAccents"}]
    state["normalizer"] = {"type": "Sequence", "normalizers": parts}


def around(text: str, token_id: int) -> Callable[[dict], None]:
    """Make a tokenizer add a token of any id to a text, under the name of a special token."""
    name = "</s>"
    made = processors.TemplateProcessing(single=text.format(name), pair="$A $B", special_tokens=[(name, token_id)])
    return lambda state: state.update(post_processor=json.loads(made.__getstate__()))


def template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def damage(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def second_copy(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


NAN = float("nan")
LETTER = 40  # id of an ordinary token
# For each fault: how to make it, the folder, the check that finds it, its severity.
BREAKAGES: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "half a file": ("untied", damage, "loads", "fail"),
    "no tokenizer": ("untied", lambda f: [p.unlink() for p in f.glob("tokenizer*")], "loads", "fail"),
    "a lost weight": ("untied", lambda f: edit_weights(f, lose_a_layer), "loads", "fail"),
    "vocab_size": ("untied", config(vocab_size=400), "sizes", "fail"),
    "added text": ("untied", lambda f: edit_tokenizer(f, add_tokens(9, special=False)), "ids", "fail"),
    "eos of the source": ("untied", generation(eos_token_id=7), "special ids", "fail"),
    "eos beyond the rows": ("untied", generation(eos_token_id=[1, 9999]), "special ids", "fail"),
    "bos of the source": ("untied", config(bos_token_id=9), "special ids", "warn"),
    "a prompt with a word": ("untied", lambda f: edit_tokenizer(f, around("{} $A", LETTER)), "special ids", "fail"),
    "a prompt that ends": ("untied", lambda f: edit_tokenizer(f, around("$A {}", 1)), "special ids", "warn"),
    "no eos": ("untied", generation(eos_token_id=None), "special ids", "warn"),
    "merges": ("untied", lambda f: edit_tokenizer(f, lose_the_merges), "unreachable tokens", "fail"),
    "accents": ("untied", lambda f: edit_tokenizer(f, strip_accents), "round trips", "fail"),
    "not a number": ("untied", scale_row(LETTER, NAN), "finite weights", "fail"),
    "not a number inside": ("untied", scale_row(0, NAN, "model.layers.0.mlp.up_proj.weight"), "finite weights", "fail"),
    "a row of zeros": ("untied", scale_row(LETTER, 0.0), "zero rows", "fail"),
    "a head row of zeros": ("untied", scale_row(LETTER, 0.0, "lm_head.weight"), "zero rows", "fail"),
    "only zeros": ("untied", lambda f: edit_weights(f, lambda t: t["lm_head.weight"].zero_()), "zero rows", "fail"),
    "a long row": ("untied", scale_row(LETTER, 100.0), "row lengths", "warn"),
    "a short head row": ("untied", scale_row(LETTER, 0.01, "lm_head.weight"), "row lengths", "warn"),
    "declared as tied": ("untied", config(tie_word_embeddings=True), "tied head", "fail"),
    "declared as untied": ("tied", config(tie_word_embeddings=False), "tied head", "fail"),
    "tied rows twice": ("tied", lambda f: edit_weights(f, second_copy), "tied head", "warn"),
    "a template that fails": ("untied", template("{{ raise_exception('no') }}"), "chat template", "fail"),
    "a template of another": ("untied", template(TEMPLATE.replace("turn", "im_start")), "chat template", "warn"),
    "beams that need words": ("untied", generation(force_words_ids=[[5]], num_beams=2), "generation", "fail"),
    "answers without eos": ("untied", template(TEMPLATE.replace("{{ eos_token }}", "<|e|>")), "chat template", "fail"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKAGES)
def test_each_fault_is_found_by_exactly_one_check(name: str, untied: Path, tied: Path, tmp_path: Path) -> None:
    whole, break_it, check, severity = BREAKAGES[name]
    folder = Path(shutil.copytree(tied if whole == "tied" else untied, tmp_path / "broken"))
    break_it(folder)
    found = worse_than_ok(folder)
    if name == "added text":  # llama.cpp stops at ids beyond vocab_size, so readiness reports it too
        assert found.pop("GGUF") == "warn"
    if name == "merges":  # it also stops at a tokenizer without merges
        assert found.pop("GGUF") == "warn"
    assert found == {check: severity}
    finding = check_folder(str(folder)).finding(check)
    assert finding.advice
    done = run("check", folder, "--json")
    assert done.returncode == (1 if severity == "fail" else 0)


def test_turn_markers_that_are_ordinary_text_are_accepted(tmp_path: Path) -> None:
    """Zephyr's `<|user|>` is not a token; its answers end in `</s>`."""
    folder = save_tiny(tmp_path)
    template("{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}")(folder)
    config(eos_token_id=0)(folder)
    generation(eos_token_id=0)(folder)
    found = check_folder(str(folder)).finding("chat template")
    assert found.severity == "ok"
    assert re.search(r"writes <\|assistant\|> .* as ordinary text, and an answer ends in eos", found.evidence)


def test_a_lower_case_tokenizer_is_distinguished_from_one_that_loses_text(untied: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(untied, tmp_path / "lower"))
    edit_tokenizer(folder, lowercase)
    found = check_folder(str(folder))
    assert found.finding("round trips").severity == "warn"
    unreachable = found.finding("unreachable tokens")
    assert unreachable.values["cut"] > 20, "the capitals"
    assert unreachable.values["merges"] == unreachable.values["fragments"] == 0


def test_control_tokens_beyond_the_rows_are_a_warning(untied: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(untied, tmp_path / "image"))  # like Gemma 3's image token
    edit_tokenizer(folder, add_tokens(9, special=True))
    assert worse_than_ok(folder) == {"ids": "warn", "GGUF": "warn"}


def test_checks_that_depend_on_a_failed_check_are_skipped_and_named(untied: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(untied, tmp_path / "broken"))
    edit_json(folder, "config.json", vocab_size=400)
    found = check_folder(str(folder))
    assert found.left_out["generation"] == "sizes"
    assert found.left_out["row lengths"] == "sizes"
    assert found.verdict == "fail"
    assert "400" in found.finding("sizes").evidence


def test_a_model_that_generates_padding_is_found(tmp_path: Path) -> None:
    folder = sound(tmp_path / "loud", "phi")
    before = worse_than_ok(folder)

    def shout(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.bias"][-4:] = 1e4

    edit_weights(folder, shout)
    assert worse_than_ok(folder) == before, "suppress_tokens keeps it from doing so"
    edit_json(folder, "generation_config.json", suppress_tokens=None)
    assert worse_than_ok(folder) == {**before, "generation": "fail"}


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_converted_models_of_any_architecture_pass_all_checks(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind, SOURCE.size + 20)
    model.save_pretrained(tmp_path / "source")
    SOURCE.tokenizer.save_pretrained(tmp_path / "source")
    lexicon = mixed_lexicon()
    target = Vocabulary.from_tokenizer(tiny_tokenizer(280, bos="<s>", eos="<end>"), "tiny-280")
    rearrange_to_folder(str(tmp_path / "source"), lexicon, SOURCE, target, tmp_path / "m", pad_to_multiple_of=64)
    found = check_folder(str(tmp_path / "m"))
    bad = {f.name: f.evidence for f in found.findings if f.severity in ("warn", "fail") and f.name != "GGUF"}
    bad.pop("row lengths", None)  # the mean of random rows is short
    assert bad == {}
    assert found.left_out == {}
    assert (found.finding("GGUF").severity == "warn") == (kind == "opt"), found.finding("GGUF").evidence


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config.json"):
        check_folder(str(tmp_path))
    assert run("check", tmp_path / "nothing").returncode == 2


# --- the real model


def test_the_packaged_model_and_its_conversion_pass_all_checks(
    small_pair: TokenizedPair, anchored: Alignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_checks, "CONTEXTS", 60)  # its bfloat16 is slow on most CPUs
    result = run_json("check", "smollm2-135m")
    assert result["verdict"] == "ok"
    assert {finding["severity"] for finding in result["findings"]} == {"ok", "not verified"}
    assert len(result["findings"]) == 15
    made = rearrange_to_folder(
        "smollm2-135m", anchored.lexicon, small_pair.source, small_pair.target, tmp_path / "m", pad_to_multiple_of=1000
    )
    assert made["vocab_size"] == 33_000, "32,000 and the chat model's own control tokens, padded"
    assert made["special_tokens"] == "keep"
    assert made["lost"] == []
    found = check_folder(str(tmp_path / "m"))
    assert worse(found.findings) == {}
    assert found.finding("unreachable tokens").values["expected"] == 253
