"""How much of the source model's quality is recovered? Bits per byte during tuning, compared with the tuned source.

    python benchmarks/recovery.py --out benchmarks/results/recovery.jsonl

SmolLM2-135M is converted to each target by `anchored`, calibrated, and tuned in two stages. The control is the source
model with its own tokenizer, tuned on the same bytes of text (see `tuning.py`) in as many steps, since tuning also
adapts a model to the domain of the text. There are two controls, one with the same two stages and one that tunes the
whole model from the start. The one that ends with fewer bits is the reference.

Takes about half an hour on two cores. The default on a GPU is 1,000 steps, as in the papers, of 32 sequences: this
reads all of the default text in these slices twice. The papers read 1,000 times 2,097,152 tokens with a model of 1.01
billion weights. Scaled to 134.5 million weights, that is 279 million tokens; the page shows which share was used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import tuning
from harness import Kept, Result, Table, report
from tuning import SLICES, Bench, curve_columns, mean

from tokalign_lab import catalog

CONTROLS: dict[str, dict[str, Any]] = {"control": {}, "control, one stage": {"stage1_share": 0.0}}
PAPERS_TOKENS = 1_000 * 2_097_152 * 134.5e6 / 1.01e9  # TokAlign++ section 5.1, with Pythia-1B
BAR = 0.02


def main() -> None:
    options = tuning.options(__doc__, steps=40, cuda={"steps": 1_000, "batch_size": 32})
    options.add_argument("--targets", nargs="+", default=["sp32k", "qwen2", "gemma3"])
    given = tuning.settled(options, targets=["sp32k"])
    kept = Kept(given)
    by: dict[str, list[Result]] = {}
    for bench in tuning.benches(given):
        for name, make in runs(bench):
            by.setdefault(name, []).append(kept(make, model=name, **bench.key))
    report("Recovery", [table(by, given, name) for name in (*SLICES, "all")], notes(by, given), given.out)


def runs(bench: Bench) -> Iterator[tuple[str, Callable[[], Result]]]:
    """Yield the runs on one text: name, and a function that makes the run."""
    _, vocabulary = tuning.source(bench.given.device)
    for name, changed in CONTROLS.items():
        yield name, partial(bench.tune, name, tuning.SOURCE, vocabulary, **changed)
    for name in bench.given.targets:
        yield name, partial(bench.convert_and_tune, name, catalog.load_vocabulary(name))


def table(by: dict[str, list[Result]], given: argparse.Namespace, name: str) -> Table:
    rows = []
    for model, lines in by.items():
        rows.append(
            {
                "model": model,
                "bytes per token": mean([line["bytes_per_token"][name] for line in lines]),
                "tokens read": lines[0]["tokens"],
                "random rows": mean([line.get("ceiling", {}).get(name) for line in lines]),
                "not calibrated": mean([line.get("not_calibrated", {}).get(name) for line in lines]),
                **curve_columns(lines, given, name),
                "against the control": signed_share(against_control(by, given, model, name)),
            }
        )
    return f"Bits per byte: {tuning.TITLES.get(name, name)}", rows


def against_control(by: dict[str, list[Result]], given: argparse.Namespace, model: str, name: str) -> float | None:
    """Return how far a model ends above (or below) the lower of the two controls, as a share; means over seeds."""
    end = curve_columns(by[model], given, name)["end"]
    controls = [curve_columns(by[control], given, name)["end"] for control in CONTROLS]
    known = [value for value in controls if value is not None]
    return None if end is None or not known else end / min(known) - 1


def signed_share(share: float | None) -> str:
    return "stopped" if share is None else f"{share:+.1%}"


def notes(by: dict[str, list[Result]], given: argparse.Namespace) -> list[str]:
    most = max(line["tokens"] for lines in by.values() for line in lines)
    found = [
        tuning.budget(given, by["control"][0]),
        "Step 0 of the controls is the untuned source; of the others, the converted model as `make demo` begins "
        "with it. Against the control: the end against the lower end of the two controls.",
        f"Tokens: at most {most:,}, {most / PAPERS_TOKENS:.2%} of the papers' 1,000 steps scaled to this model.",
    ]
    for model in given.targets:
        verdicts = []
        for name in SLICES:
            share = against_control(by, given, model, name)
            gain = by[model][0]["bytes_per_token"][name] / by["control"][0]["bytes_per_token"][name]
            if name == "prose":
                verdicts.append(f"English {signed_share(share)} (within {BAR:.0%}: {met(share, BAR)})")
            elif name != "code" and gain > 1:
                verdicts.append(
                    f"{name}, {gain:.1f} times the bytes per token, {signed_share(share)} (below: {met(share, 0.0)})"
                )
        found.append(f"{model}: {'; '.join(verdicts)}.")
    return [*found, *(tuning.cost(model, lines) for model, lines in by.items())]


def met(share: float | None, bar: float) -> str:
    return "yes" if share is not None and share <= bar else "no"


if __name__ == "__main__":
    main()
