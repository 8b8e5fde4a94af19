"""Two stages or one? Tuning with 0, 25, 50, 75 and 100 % of the steps on the new rows only, at two learning rates.

    python benchmarks/stages.py --out benchmarks/results/stages.jsonl

SmolLM2-135M is converted to a 32,000-token SentencePiece vocabulary by `anchored` and calibrated. All runs start from
this model and read the same text. The rate is the peak rate of both stages. TokAlign figure 6 compares two stages with
tuning everything, at several rates. TokAlign++ figure 9 varies the share of the first stage, without numbers: 50 to 60
% is best, and tuning everything from the start (0 %) ends worse than never tuning the body (100 %). The last run has
the papers' pair of rates, 6.4e-4 and then 5e-5. Takes about 20 minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import tuning
from harness import Kept, Result, report
from tuning import Bench, curve_columns, losses_by, mean

from tokalign_lab import catalog
from tokalign_lab.vocabulary import Vocabulary

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
RATES = ("6.4e-4", "8e-5")
PAPERS = "6.4e-4, then 5e-5"
TENTHS = 10


def main() -> None:
    options = tuning.options(__doc__, steps=80)
    options.add_argument("--target", default="sp32k")
    given = tuning.settled(options)
    kept, target = Kept(given, target=given.target), catalog.load_vocabulary(given.target)
    random_rows: list[Result] = []
    by: dict[tuple[str, float], list[Result]] = {}
    for bench in tuning.benches(given):
        begin = cache(partial(bench.start, target))  # made only if a run is missing
        random_rows.append(kept(partial(bench.random_bits, target), rate="ceiling", **bench.key))
        for rate, share in variants(given.quick):
            make = partial(tuned, bench, begin, target, rate, share)
            by.setdefault((rate, share), []).append(kept(make, rate=rate, share=share, **bench.key))
    rows = [{**name_of(*key), **curve_columns(of, given, "all"), **spread(of)} for key, of in by.items()]
    tenths = [{**name_of(*key), **losses_by(of, TENTHS)} for key, of in by.items()]
    ends = {key: row["end"] for key, row in zip(by, rows, strict=True) if row["end"] is not None}
    first = next(iter(by.values()))[0]
    notes = [
        tuning.budget(given, first),
        f"Step 0: the converted model, calibrated. Random rows: {mean([x['all'] for x in random_rows]):.3f}.",
        *(best(ends, rate) for rate in RATES),
        "Same steps and same text, not the same seconds: a step of stage 1 takes less than one of stage 2.",
    ]
    tables = [("Bits per byte of held-out text, all slices", rows), ("Mean training loss by tenth of the run", tenths)]
    report("Two stages against one", tables, notes, given.out)


def variants(quick: bool) -> Sequence[tuple[str, float]]:
    if quick:
        return [(RATES[0], 0.5), (PAPERS, 0.5)]
    return [*((rate, share) for rate in RATES for share in SHARES), (PAPERS, 0.5)]


def tuned(bench: Bench, begin: Any, target: Vocabulary, rate: str, share: float) -> Result:
    rates = {} if rate == PAPERS else {f"learning_rate_stage{i}": float(rate) for i in (1, 2)}
    return bench.tune(f"share {share:.0%} at {rate}", begin()[0], target, stage1_share=share, **rates)


def name_of(rate: str, share: float) -> dict[str, Any]:
    return {"learning rate": rate, "stage 1": f"{share:.0%}"}


def spread(lines: Sequence[Result]) -> dict[str, Any]:
    """Return the difference between the seeds, and the costs of a run."""
    ends = [list(line["curve"].values())[-1]["all"] for line in lines]
    return {
        "seeds apart": max(ends) - min(ends) if len(ends) > 1 else None,
        "tokens/s": " and ".join(f"{v:,.0f} (stage {k})" for k, v in lines[0]["tokens_per_second"].items()),
        "stopped": sum(line["stopped"] is not None for line in lines),
    }


def best(ends: dict[tuple[str, float], float], rate: str) -> str:
    of_rate = {share: end for (its_rate, share), end in ends.items() if its_rate == rate}
    if not of_rate:
        return f"At {rate} no run came to its end."
    lowest = min(of_rate, key=lambda share: of_rate[share])
    order = ", ".join(f"{share:.0%} {end:.3f}" for share, end in of_rate.items())
    return f"At {rate} a first stage of {lowest:.0%} of the steps ends lowest: {order}."


if __name__ == "__main__":
    main()
