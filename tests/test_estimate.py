"""An estimate is close to measured runs, grows with its inputs, and contacts neither the hub nor a package index."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokalign_lab import catalog
from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.errors import InputError
from tokalign_lab.estimate import estimate, size_of_model, size_of_texts, to_download

SP32K, GEMMA = (49_152, 32_000), (49_152, 262_144)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_estimated_and_costs_more_with_more_text(recipe: str) -> None:
    small, large = (estimate(recipe, SP32K, n) for n in (300_000, 6_000_000))
    assert 0 < small.seconds < large.seconds
    assert small.memory_bytes < large.memory_bytes
    assert small.seconds == pytest.approx(sum(small.steps.values()))


def test_estimates_are_close_to_measured_runs() -> None:
    """Compare with CPU seconds of complete runs on one thread (with scores and held-out precision); factor two."""
    for sizes, text_bytes, seconds, gigabytes in (
        (SP32K, 500_000, 47.7, 1.13),
        (SP32K, 4_000_000, 109.2, 1.26),
        ((49_152, 128_256), 2_000_000, 82.6, 1.32),
    ):
        found = estimate("anchored", sizes, text_bytes)
        assert seconds / 2 < found.seconds < seconds * 2
        assert gigabytes / 2 < found.memory_bytes / 1e9 < gigabytes * 2


def test_larger_vocabularies_vectors_and_models_cost_more() -> None:
    assert estimate("anchored", GEMMA, 10**6).seconds > estimate("anchored", SP32K, 10**6).seconds
    glove, anchored = (estimate(recipe, SP32K, 10**7).steps["vectors"] for recipe in ("tokalign", "anchored"))
    assert glove > 10 * anchored
    assert "comparing tokens" not in estimate("pieces", SP32K, 10**6).steps
    assert "rearranging" in estimate("pieces", SP32K, 10**6, model_bytes=10**9).steps
    assert "not included" in estimate("tokalign++-hidden", SP32K, 10**6).note


def test_downloads_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokalign_lab.catalog.choices.cached_path", lambda name: None)
    names = to_download(["gemma-3-270m", "gemma3", "/a/path", "sp32k"])
    assert names == ["gemma-3-270m", "gemma3", "sp32k", "minilm"]
    wanted = sum(catalog.find(name).size_bytes for name in ("gemma-3-270m", "sp32k", "minilm"))
    assert estimate("pieces", SP32K, 1, downloads=names).download_bytes == wanted  # gemma3 comes with the model


def test_texts_are_sized_without_reading_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 700)
    (tmp_path / "b.md").write_bytes(b"y" * 300)
    assert size_of_texts([str(tmp_path)]) == 1000
    assert size_of_texts([str(tmp_path / "a.txt"), str(tmp_path)], max_bytes=900) == 900
    assert size_of_texts(["hub:org/name"], 5_000) == 5_000
    assert size_of_texts(["hub:org/name"]) == 50_000_000
    assert size_of_texts(["default"]) > 10**6


def test_models_are_sized_by_their_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 50)
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 5)
    assert size_of_model(str(tmp_path)) == 50
    assert size_of_model(str(tmp_path / "nothing")) == 0
    assert size_of_model("smollm2-135m") > 10**8


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="no recipe 'magic'"):
        estimate("magic", SP32K, 1)
