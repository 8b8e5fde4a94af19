"""Which rows of a lexicon are asked for, and in which order: the filters that all panels share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

Range = tuple[float | None, float | None]  # None leaves that end open
EVERYTHING: Range = (None, None)


@dataclass(frozen=True)
class Query:
    """Rows to show; each filter that is set takes some away.

    Attributes
    ----------
    text : what a token's label or raw string must contain
    regex : whether `text` is a regular expression
    origin : one of `ORIGINS`; "" for all
    script : Unicode script of the target token, such as "Latin"; "" for all
    length : bytes of the target token
    frequency : times the text uses the target token
    score, margin : of the best candidate
    selected : only the tokens that are selected
    sort : a name of `lexicon_view.SORTS`
    reverse : the other way around
    """

    text: str = ""
    regex: bool = False
    origin: str = ""
    script: str = ""
    length: Range = EVERYTHING
    frequency: Range = EVERYTHING
    score: Range = EVERYTHING
    margin: Range = EVERYTHING
    selected: bool = False
    sort: str = "frequency"
    reverse: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Query:
        """Take over plain values; names that are not known are passed over, so that an old view can be read.

        Raises
        ------
        TypeError, ValueError
            For a range that is not one.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in ("length", "frequency", "score", "margin"):
            if name in known:
                low, high = known[name]
                known[name] = (None if low is None else float(low), None if high is None else float(high))
        return cls(**known)
