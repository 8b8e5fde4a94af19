from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
from tokalign_lab.alignment.lexicon.export import export_rows
from tokalign_lab.alignment.lexicon.rows import LexiconRows, reverse_of
from tokalign_lab.errors import InputError


@pytest.fixture(scope="module")
def lexicon(smollm_vocabulary, sp32k_vocabulary) -> Lexicon:
    rows = LexiconRows(sp32k_vocabulary.size)
    rows.fill(np.arange(sp32k_vocabulary.size), "mean")
    rows.copy(1, 1, "role")
    rows.mix(300, [20, 10, 20], [1.0, 1.0, 1.0], "pieces")
    rows.mix(301, [5], [1.0], "aligned")
    rows.candidates(301, np.array([5, 6]), np.array([0.9, 0.4]))
    counts = np.arange(smollm_vocabulary.size), np.arange(sp32k_vocabulary.size)
    table = rows.to_table(smollm_vocabulary, sp32k_vocabulary, *counts)
    provenance = make_provenance(smollm_vocabulary, sp32k_vocabulary, recipe="test", parameters={}, seed=0)
    return Lexicon(table, reverse_of(rows, smollm_vocabulary.size), provenance)


def test_weights_of_a_repeated_source_are_added(lexicon: Lexicon) -> None:
    row = lexicon.table.loc[300]
    assert row.sources.tolist() == [10, 20]
    assert row.weights.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert row.source_id == 20
    assert lexicon.table.loc[301, "margin"] == pytest.approx(0.5)


def test_a_lexicon_file_preserves_every_value(lexicon: Lexicon, tmp_path: Path) -> None:
    lexicon.save(tmp_path / "l.parquet")
    again = Lexicon.load(tmp_path / "l.parquet")
    assert again.provenance == lexicon.provenance
    assert again.table.dtypes.astype(str).to_dict() == lexicon.table.dtypes.astype(str).to_dict()
    for column in ("source_id", "score", "origin", "target_token", "target_count"):
        assert again.table[column].equals(lexicon.table[column])
    assert again.table.weights[300].tolist() == lexicon.table.weights[300].tolist()
    np.testing.assert_array_equal(again.target_of(), lexicon.target_of())
    assert again.target_of()[5] == 301


def test_upstreams_json_is_exported_and_imported(lexicon, tmp_path, smollm_vocabulary, sp32k_vocabulary) -> None:
    export_rows(lexicon, tmp_path / "align_matrix.json")
    assert json.loads((tmp_path / "align_matrix.json").read_text()) == {"1": 1, "300": 20, "301": 5}
    again = Lexicon.from_json(tmp_path / "align_matrix.json", smollm_vocabulary, sp32k_vocabulary)
    np.testing.assert_array_equal(again.source_of(), lexicon.source_of())


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "not a JSON map"), ('{"1": 999999}', "is it for another pair"), ("{", "not a JSON map")],
)
def test_bad_json_ends_in_a_sentence(tmp_path, content, message, smollm_vocabulary, sp32k_vocabulary) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InputError, match=message):
        Lexicon.from_json(tmp_path / "m.json", smollm_vocabulary, sp32k_vocabulary)


def test_another_tokenizer_is_refused(lexicon: Lexicon, smollm_vocabulary, sp32k_vocabulary) -> None:
    lexicon.check(smollm_vocabulary, sp32k_vocabulary)
    with pytest.raises(InputError, match="align this pair again"):
        lexicon.check(source=sp32k_vocabulary)


def test_a_file_that_is_not_a_lexicon_ends_in_one_sentence(tmp_path: Path) -> None:
    import pandas as pd

    with pytest.raises(InputError, match="There is no lexicon"):
        Lexicon.load(tmp_path / "none.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable Parquet"):
        Lexicon.load(tmp_path / "broken.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="no lexicon of tokalign-lab"):
        Lexicon.load(tmp_path / "other.parquet")
