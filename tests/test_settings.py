"""Settings classes: refused values, round trips through JSON, and one name and help text per option."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokalign_lab.adaptation.settings import AdaptRunSettings, AdaptSettings
from tokalign_lab.errors import InputError
from tokalign_lab.settings.fields import Settings, option, required
from tokalign_lab.settings.kinds import (
    AlignSettings,
    CompareSettings,
    MeasuredTextSettings,
    MeasureSettings,
    PartScoreSettings,
    ProjectSettings,
    RearrangeSettings,
    text_of,
)

KINDS = (
    AlignSettings,
    RearrangeSettings,
    AdaptRunSettings,
    MeasureSettings,
    PartScoreSettings,
    CompareSettings,
    ProjectSettings,
)
NEEDED: dict[str, Any] = {"text": ["t"], "source": "a", "target": "b", "model": "m", "lexicon": "l", "vectors": ["v"]}
NEEDED |= {"left": "l", "right": "l"}


class Baking(Settings):
    """Settings that test the mechanism."""

    subject = "Baking"

    flour: str = required("Which one.")
    grams: int = option(500, "How much of it.", least=1)
    heat: float = option(220.0, "Degrees.", above=0, below=300)
    sugar: float = option(0.02, "Share.", least=0, most=1)
    seeds: dict[str, float] = option({}, "Grams by name.", least=0)
    notes: tuple[str, ...] = option((), "What to remember.")
    lid: bool | None = option(None, "Whether it is covered.")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, r"^Baking needs the setting 'flour'\.$"),
        ({"yeast": 1}, r"^Baking has no setting 'yeast'; it takes flour, grams, heat, sugar, seeds, notes, lid\.$"),
        ({"grams": 0}, r"^The setting grams is 0, but it must be a whole number of at least 1\.$"),
        ({"grams": 1.5}, r"^The setting grams must be a whole number, not 1\.5\.$"),
        ({"grams": None}, "grams must be a whole number, not None"),
        ({"heat": 300}, "heat is 300.0, but it must be between 0 and 300"),
        ({"heat": float("nan")}, "heat is nan, but it must be between 0 and 300"),
        ({"sugar": 1.1}, "sugar is 1.1, but it must be between 0 and 1"),
        ({"seeds": {"rye": float("inf")}}, "seeds of 'rye' is inf, but it must be a number of at least 0"),
        ({"seeds": {"rye": True}}, "seeds of 'rye' must be a number"),
        ({"notes": "one"}, "notes must be a list of texts"),
        ({"lid": "yes"}, "lid must be true or false"),
        ({"flour": 3}, "flour must be a text"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    given = values if values in ({}, {"flour": 3}) else {"flour": "rye", **values}
    with pytest.raises(InputError, match=sentence):
        Baking.from_dict(given)


def test_bounds_hold_for_objects_made_in_python_too() -> None:
    with pytest.raises(InputError, match="sugar is 2"):
        Baking(flour="rye", sugar=2.0)


def test_a_dict_is_not_shared_between_objects() -> None:
    assert Baking(flour="rye").seeds is not Baking(flour="rye").seeds


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_has_a_help_text_and_round_trips_through_json(kind: type[Settings]) -> None:
    needed = {one.name: NEEDED[one.name] for one in kind.options() if one.required}
    settings = kind.from_dict(needed)
    assert kind.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    for one in kind.options():
        assert one.help.endswith("."), one.name
        assert len(one.help) < 120, one.name


def test_the_settings_of_a_tuning_run_hold_those_of_tuning() -> None:
    run = AdaptRunSettings.from_dict({"model": "m", "text": ["t"], "steps": 7, "mix": {"de": 2}, "max_bytes": 9})
    assert run.tuning == AdaptSettings(steps=7, mix={"de": 2.0})


def test_equal_text_is_recognised_whether_or_not_defaults_are_written() -> None:
    short = {"source": "a", "text": ["t"]}
    long = {"model": "m", "text": ["t"], "max_bytes": None, "seed": 0, "held_out_share": 0.05, "evaluate_bytes": 20_000}
    assert text_of(short) == text_of(long)
    assert text_of(short, MeasuredTextSettings) == text_of(long, MeasuredTextSettings)
    assert text_of(short) != text_of({**long, "seed": 1})
