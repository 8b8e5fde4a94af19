"""What a person changed about a lexicon: an overlay, kept apart from the lexicon itself.

A lexicon is a result that can be made again; a person's judgement cannot. So edits are a list of actions in a JSON file
beside the lexicon, bound to it by its key, with the undone ones behind the done ones, and `apply_edits` lays the last
word on each token over the recipe's rows:

- **choose**: the new input row is the chosen source row whole. Where output rows are made apart, the chosen token
  stands where the recipe `anchored` has its candidates (`mixture.output_parts`): a source row copied whole into the
  output would take probability from its own token (docs/decisions/0006).
- **reject**: the row falls back to the mean of the source tokens that spell the token, and to the mean row where
  nothing does, as for a token without a vector.
- **restore**: the recipe's own row again.

Only the target-to-source direction changes: the reverse lexicon makes no row of a model and stays as measured.
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
    """One action on one target token.

    Parameters
    ----------
    target_id
        The token it is about.
    action
        One of `ACTIONS`.
    source_id
        The chosen source token; for a rejected pair the piece that stands for the word in lists and scores; -1: none.
    source_token
        Its raw string, for people who read the file.
    pieces
        Source ids that spell the target token; empty where that is not known.
    time
        When, ISO 8601 in UTC.
    note
        Why, in the person's words.
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

    Parameters
    ----------
    lexicon
        The lexicon as the recipe made it.
    path
        JSON file; read where it exists. None keeps the edits in memory only.

    Raises
    ------
    InputError
        If the file holds the edits of another lexicon, or no edits at all.
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
        """Let a target token inherit from this source token.

        Parameters
        ----------
        target_id, source_id
            The pair.
        source, target
            The vocabularies; without them the pieces are not known, and the mean row stands in for their share of an
            output row that is made apart.
        note
            Why.

        Raises
        ------
        InputError
            If there is no such token.
        """
        self._check(target_id, source_id)
        token = source.raw_token(source_id) if source is not None else _raw_source(self.lexicon, source_id)
        return self._add(Edit(target_id, "choose", source_id, token, _pieces(source, target, target_id), now(), note))

    def reject(
        self, target_id: int, source: Vocabulary | None = None, target: Vocabulary | None = None, note: str = ""
    ) -> Edit:
        """Let a target token fall back to its pieces, or to the mean row where they are not known.

        Raises
        ------
        InputError
            If there is no such token.
        """
        self._check(target_id)
        pieces = _pieces(source, target, target_id)
        stands, token = -1, ""
        if pieces and source is not None:
            stands = main_piece(source, pieces)
            token = source.raw_token(stands)
        return self._add(Edit(target_id, "reject", stands, token, pieces, now(), note))

    def restore(self, target_id: int, note: str = "") -> Edit:
        """Take the recipe's own row again.

        Raises
        ------
        InputError
            If there is no such token, or nothing has been changed about it.
        """
        self._check(target_id)
        if target_id not in self.current():
            raise InputError(f"Target token {target_id} has not been edited; there is nothing to take back.")
        return self._add(Edit(target_id, "restore", time=now(), note=note))

    def undo(self) -> Edit | None:
        """Take the last action back; returns it, None if there is none."""
        if not self.done:
            return None
        self.undone.append(self.done.pop())
        self._write()
        return self.undone[-1]

    def redo(self) -> Edit | None:
        """Do the action again that was undone last; returns it, None if there is none."""
        if not self.undone:
            return None
        self.done.append(self.undone.pop())
        self._write()
        return self.done[-1]

    def current(self) -> dict[int, Edit]:
        """Return the last word on each token that is not as the recipe made it."""
        last = {edit.target_id: edit for edit in self.done}
        return {target_id: edit for target_id, edit in last.items() if edit.action != "restore"}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as in the file, which has a hash of them too."""
        return {
            "lexicon": self.lexicon.key,
            "done": [asdict(edit) for edit in self.done],
            "undone": [asdict(edit) for edit in self.undone],
        }

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
            raise InputError(f"'{path}' holds no edits of a lexicon, or damaged ones; name another file.") from error
        if made_for != self.lexicon.key:
            raise InputError(
                f"The edits in '{path}' were made on another lexicon; open that one, or name another file for this."
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
    """Lay edits over a lexicon.

    Parameters
    ----------
    lexicon
        The lexicon as the recipe made it; it is left as it is.
    edits
        By target id, such as `LexiconEdits.current()`.

    Returns
    -------
    Lexicon
        Chosen rows have the origin "edited", the score of the candidate that was chosen (NaN where it was none) and no
        margin; rejected rows have "pieces" or "mean". `source_count` is 0 where the lexicon does not know how often
        the text uses the chosen token. The provenance lists the edits and the key of the lexicon under them.
    """
    if not edits:
        return lexicon
    changed = np.array(sorted(edits), np.int64)
    rows = LexiconRows(len(changed))
    for place, target_id in enumerate(changed.tolist()):
        _lay(rows, place, edits[target_id], lexicon.table)
    listed = [{**asdict(edits[i]), "pieces": list(edits[i].pieces)} for i in changed.tolist()]
    provenance = {**lexicon.provenance, "edits": {"lexicon": lexicon.key, "tokens": listed}}
    provenance.pop("scores", None)  # they are of the lexicon under the edits
    return Lexicon(_overlaid(lexicon, rows, changed, edits), lexicon.reverse, provenance)


def _lay(rows: LexiconRows, place: int, edit: Edit, table: pd.DataFrame) -> None:
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


def _overlaid(
    lexicon: Lexicon, rows: LexiconRows, changed: np.ndarray[Any, Any], edits: Mapping[int, Edit]
) -> pd.DataFrame:
    """Return the table with these rows in place of what stood there."""
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
        made = [rows.output[place] for place in range(len(changed))]
        columns["output_sources"] = [ids for ids, _, _ in made]
        columns["output_weights"] = [weights for _, weights, _ in made]
        columns["output_mean_weight"] = [mean for _, _, mean in made]
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
