"""Manual edits of a lexicon, stored separately from the lexicon.

A lexicon can be recomputed; a user's judgement cannot. So edits are a JSON file next to the lexicon: lists of done and
undone actions, and the key of the lexicon that they belong to. `apply_edits` applies the last action on each token:

- **choose**: the new input row is a copy of the chosen source row. If output rows differ from input rows, the chosen
  token replaces the candidates of the recipe `anchored` in the output row (`mixture.output_parts`): a plain copy would
  take probability from the source token (docs/decisions/0006).
- **reject**: the row becomes the mean of the source tokens that spell the token, or the mean row if there are none, as
  for a token without a vector.
- **restore**: the recipe's row is used again.

Only the target-to-source direction changes: the reverse lexicon makes no row of a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.rows import NO_TOKEN, LexiconRows
from tokalign_lab.alignment.methods.mixture import output_parts
from tokalign_lab.alignment.methods.pieces import main_piece, spell
from tokalign_lab.errors import InputError
from tokalign_lab.files import hash_of, write_json
from tokalign_lab.provenance import now
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pandas as pd

ACTIONS = ("choose", "reject", "restore")


@dataclass(frozen=True)
class Edit:
    """One of `ACTIONS` on one target token.

    `source_id` is the chosen source token, or for a rejected pair the main piece, which represents it in lists and
    scores; -1 for none. `source_token` is its raw string, for readers of the file. `pieces` are the source ids that
    spell the target token; empty if unknown. `time` is ISO 8601 in UTC, `note` the user's reason.
    """

    target_id: int
    action: str
    source_id: int = -1
    source_token: str = ""
    pieces: tuple[int, ...] = ()
    time: str = ""
    note: str = ""


class LexiconEdits:
    """The edits of one lexicon, in order, with undo and redo; written to `path` after each change.

    `lexicon` is the recipe's lexicon, without edits. `path` is a JSON file, read if it exists; None keeps the edits in
    memory only. Raises InputError if the file is damaged or has the edits of another lexicon.
    """

    def __init__(self, lexicon: Lexicon, path: Path | str | None = None) -> None:
        self.lexicon = lexicon
        self.path = Path(path) if path is not None else None
        self.done: list[Edit] = []
        self.undone: list[Edit] = []
        if self.path is not None and self.path.is_file():
            self._read(self.path)

    def choose(
        self,
        target_id: int,
        source_id: int,
        source: Vocabulary | None = None,
        target: Vocabulary | None = None,
        note: str = "",
    ) -> Edit:
        """Copy the row of this source token to a target token.

        Without the vocabularies the pieces are unknown, and the mean row gets their share of an output row that differs
        from the input row. Raises InputError if there is no such token.
        """
        self._check(target_id, source_id)
        token = source.raw_token(source_id) if source is not None else _raw_source(self.lexicon, source_id)
        return self._add(Edit(target_id, "choose", source_id, token, _pieces(source, target, target_id), now(), note))

    def reject(
        self, target_id: int, source: Vocabulary | None = None, target: Vocabulary | None = None, note: str = ""
    ) -> Edit:
        """Replace a target token's row by the mean of its pieces, or by the mean row if they are unknown.

        Raises InputError if there is no such token.
        """
        self._check(target_id)
        pieces = _pieces(source, target, target_id)
        source_id, token = -1, ""
        if pieces and source is not None:
            source_id = main_piece(source, pieces)
            token = source.raw_token(source_id)
        return self._add(Edit(target_id, "reject", source_id, token, pieces, now(), note))

    def restore(self, target_id: int, note: str = "") -> Edit:
        """Use the recipe's row again. Raises InputError if there is no such token, or it has not been edited."""
        self._check(target_id)
        if target_id not in self.current():
            raise InputError(f"Target token {target_id} has not been edited; there is nothing to restore.")
        return self._add(Edit(target_id, "restore", time=now(), note=note))

    def undo(self) -> Edit | None:
        """Undo the last action and return it; None if there is none."""
        return self._move(self.done, self.undone)

    def redo(self) -> Edit | None:
        """Redo the last undone action and return it; None if there is none."""
        return self._move(self.undone, self.done)

    def current(self) -> dict[int, Edit]:
        """Return the last edit of each edited token, without tokens that were restored."""
        last = {edit.target_id: edit for edit in self.done}
        return {target_id: edit for target_id, edit in last.items() if edit.action != "restore"}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file, without its hash, as JSON values."""
        return {
            "lexicon": self.lexicon.key,
            "done": [asdict(edit) for edit in self.done],
            "undone": [asdict(edit) for edit in self.undone],
        }

    def _move(self, one: list[Edit], other: list[Edit]) -> Edit | None:
        if not one:
            return None
        other.append(one.pop())
        self._write()
        return other[-1]

    def _add(self, edit: Edit) -> Edit:
        self.done.append(edit)
        self.undone.clear()
        self._write()
        return edit

    def _write(self) -> None:
        if self.path is not None:
            content = self.to_dict()
            write_json(self.path, {**content, "sha256": _hash(content)})

    def _check(self, target_id: int, source_id: int = 0) -> None:
        sizes = {side: self.lexicon.provenance[side]["size"] for side in ("source", "target")}
        for side, token_id in (("target", target_id), ("source", source_id)):
            if not 0 <= token_id < sizes[side]:
                raise InputError(f"There is no {side} token {token_id}; ids go from 0 to {sizes[side] - 1:,}.")
        if self.lexicon.table["origin"].iat[target_id] == "hole":
            raise InputError(f"The target id {target_id} is a hole: no token has it, so it needs no row.")

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            expected = content.pop("sha256", None)  # earlier versions wrote none
            if expected is not None and expected != _hash(content):
                raise ValueError
            made_for = content["lexicon"]
            done, undone = ([_edit(values) for values in content[name]] for name in ("done", "undone"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"'{path}' holds no edits of a lexicon, or damaged ones; choose another file.") from error
        if made_for != self.lexicon.key:
            raise InputError(
                f"The edits in '{path}' were made on another lexicon; open that one, or choose another file."
            )
        for edit in [*done, *undone]:
            try:
                self._check(edit.target_id)
                chosen = [edit.source_id] if edit.action == "choose" or edit.source_id != NO_TOKEN else []
                for source_id in (*edit.pieces, *chosen):
                    self._check(edit.target_id, source_id)
            except InputError as error:
                raise InputError(f"The edits in '{path}' are damaged: {error}") from error
        self.done, self.undone = done, undone


def apply_edits(lexicon: Lexicon, edits: Mapping[int, Edit]) -> Lexicon:
    """Return a lexicon with edits applied; `edits` maps target id to edit, as `LexiconEdits.current()`.

    Chosen rows have the origin "edited", the score of the chosen candidate (NaN if it was not a candidate) and no
    margin; rejected rows have the origin "pieces" or "mean". `source_count` is 0 if no row of the lexicon had the
    chosen token. The provenance lists the edits and the key of the lexicon without them.
    """
    if not edits:
        return lexicon
    changed = np.array(sorted(edits), np.int64)
    rows = LexiconRows(len(changed))
    for place, target_id in enumerate(changed.tolist()):
        _make_row(rows, place, edits[target_id], lexicon.table)
    listed = [{**asdict(edits[i]), "pieces": list(edits[i].pieces)} for i in changed.tolist()]
    provenance = {**lexicon.provenance, "edits": {"lexicon": lexicon.key, "tokens": listed}}
    provenance.pop("scores", None)  # they belong to the lexicon without edits
    return Lexicon(_edited_table(lexicon, rows, changed, edits), lexicon.reverse, provenance)


def _make_row(rows: LexiconRows, place: int, edit: Edit, table: pd.DataFrame) -> None:
    """Make one edited row."""
    pieces = list(edit.pieces)
    if edit.action == "choose":
        rows.copy(place, edit.source_id, "edited")
        candidates, scores = (
            np.asarray(table[name].iat[edit.target_id]) for name in ("candidate_ids", "candidate_scores")
        )
        known = np.flatnonzero(candidates == edit.source_id)
        rows.score[place] = scores[known[0]] if len(known) else np.nan
        rows.margin[place] = np.nan
        rows.mix_output(place, *output_parts([edit.source_id], [1.0], pieces))
    elif pieces:
        rows.mix(place, pieces, [1.0] * len(pieces), "pieces")
        rows.source_id[place] = edit.source_id
        rows.mix_output(place, *output_parts([], [], pieces))
    else:
        rows.fill(np.array([place]), "mean")
        rows.mix_output(place, [], [], 1.0)


def _edited_table(
    lexicon: Lexicon, rows: LexiconRows, changed: np.ndarray[Any, Any], edits: Mapping[int, Edit]
) -> pd.DataFrame:
    """Return the table with these rows in place of the recipe's."""
    table = lexicon.table
    counts = dict(zip(table["source_id"].tolist(), table["source_count"].tolist(), strict=True))
    columns: dict[str, Any] = {
        "source_id": rows.source_id,
        "score": rows.score,
        "margin": rows.margin,
        "origin": rows.origin.astype(str),
        "sources": rows.sources,
        "weights": rows.weights,
        "mean_weight": rows.mean_weight,
        "source_count": [counts.get(i, 0) if i >= 0 else 0 for i in rows.source_id.tolist()],
        "source_token": [edits[i].source_token for i in changed.tolist()],
    }
    if lexicon.has_output:
        made = zip(*(rows.output[place] for place in range(len(changed))), strict=True)
        columns |= zip(("output_sources", "output_weights", "output_mean_weight"), made, strict=True)
    result = table.copy(deep=False)
    for name, values in columns.items():
        column = table[name].to_numpy(copy=True)
        for place, target_id in enumerate(changed.tolist()):
            column[target_id] = values[place]
        result[name] = column
    return result


def _hash(content: dict[str, Any]) -> str:
    return hash_of([json.dumps(content, sort_keys=True).encode()])


def _edit(values: dict[str, Any]) -> Edit:
    edit = Edit(**{**values, "pieces": tuple(values["pieces"])})
    if edit.action not in ACTIONS:
        raise ValueError(edit.action)
    if any(type(i) is not int for i in (edit.target_id, edit.source_id, *edit.pieces)):
        raise TypeError("ids are whole numbers")
    if any(type(text) is not str for text in (edit.source_token, edit.time, edit.note)):
        raise TypeError("texts are strings")
    return edit


def _pieces(source: Vocabulary | None, target: Vocabulary | None, target_id: int) -> tuple[int, ...]:
    if source is None or target is None:
        return ()
    return tuple(spell(source, [target.token_bytes[target_id] or b""])[0])


def _raw_source(lexicon: Lexicon, source_id: int) -> str:
    found = np.flatnonzero(lexicon.source_of() == source_id)
    return str(lexicon.table["source_token"].iat[int(found[0])]) if len(found) else ""
