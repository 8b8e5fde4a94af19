"""Pages about tuning: recovery, stages, amount of text, and distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import plots
from page import Page, Raw, Row, digits, interval, mean, number, percent

SLICES = {"prose": "English", "code": "Python", "ru": "Russian", "ja": "Japanese"}
OTHER = {"o_en": "Wikipedia", "o_code": "C++", "o_de": "German"}
PAPERS_TOKENS = 1_000 * 2_097_152 * 134.5e6 / 1.01e9  # TokAlign++ section 5.1 with Pythia-1B, scaled to SmolLM2-135M
PUBLISHED = ("ALM", "ALM, debiased", "MATT", "Token Distillation, text")


def curve(line: Row, slice: str = "all") -> tuple[list[int], list[float]]:
    """Return steps and bits per byte of a measurement."""
    steps = sorted(map(int, line["curve"]))
    return steps, [line["curve"][str(step)][slice] for step in steps]


def end(line: Row, slice: str = "all") -> float:
    """Return the bits per byte of a measurement after its last step."""
    return curve(line, slice)[1][-1]


def six_tasks(raw: Raw) -> tuple[float, float, float]:
    """Return the average accuracy of source and tuned model, and half of the source's 95 % confidence interval."""
    source, tuned = (
        [row for row in raw.table("Six tasks") if row["model"] == name] for name in ("source", "converted and tuned")
    )
    half = 1.96 * sum(row["acc_stderr"] ** 2 for row in source) ** 0.5 / len(source)
    return mean([row["acc"] for row in source]), mean([row["acc"] for row in tuned]), half


def measured(raw: Raw, target: str = "sp32k") -> dict[int, dict[str, list[Row]]]:
    """Return the measurements of `recovery.py` by number of tokens, ascending, and recipe; one per seed."""
    by: dict[int, dict[str, list[Row]]] = {}
    for line in raw.measured:
        if line["settings"]["target"] == target:
            by.setdefault(line["settings"]["tokens"], {}).setdefault(line["way"], []).append(line)
    return dict(sorted(by.items()))


def means(raw: Raw, target: str = "sp32k") -> dict[int, dict[str, Row]]:
    """Return the measurements averaged over seeds, for each text over the seeds that measured it.

    `control` is the best of the controls: the one with the fewest bits per byte in prose.
    """

    def averaged(lines: list[Row]) -> Row:
        values = {key: [line[key] for line in lines if key in line] for key in (*SLICES, *OTHER)}
        return {key: mean(of) for key, of in values.items() if of}

    found = {
        tokens: {way: averaged(lines) for way, lines in ways.items()} for tokens, ways in measured(raw, target).items()
    }
    for ways in found.values():
        controls = [row for way, row in ways.items() if way.startswith("control")]
        if controls:
            ways["control"] = min(controls, key=lambda row: row["prose"])
    return found


def targets(raw: Raw) -> list[str]:
    """Return the targets with a control, in the order of the file."""
    return list(dict.fromkeys(line["settings"]["target"] for line in raw.measured if line["way"] == "control"))


def with_fewest(raw: Raw) -> dict[str, dict[str, Row]]:
    """Return by target the means with the fewest tokens."""
    return {target: next(iter(means(raw, target).values())) for target in targets(raw)}


def budget(raw: Raw) -> str:
    """Return the most tokens that were read, as a share of the papers' tokens."""
    return f"{max(measured(raw)) / PAPERS_TOKENS:.2%}"


def with_control(raw: Raw, target: str = "sp32k", most: int = 30_000) -> tuple[int, dict[str, Row]]:
    """Return the largest number of tokens up to `most` that was measured with a control, and its means by recipe."""
    needed = {"step 0", "recover", "control"}
    by = means(raw, target).items()
    return max((tokens, ways) for tokens, ways in by if tokens <= most and needed <= ways.keys())


def closed(ways: Mapping[str, Row], way: str, text: str, begin: str = "step 0") -> float:
    """Return the share of the gap to the control that a recipe closes on a text."""
    start, end, control = (ways[name][text] for name in (begin, way, "control"))
    return (start - end) / (start - control)


def closed_by_target(raw: Raw, texts: Sequence[str] = ("o_en", "o_code")) -> dict[str, list[float]]:
    """Return by target and `with_control`'s tokens what `recover` closes on each text."""
    found = {target: with_control(raw, target) for target in targets(raw)}
    return {
        f"{target}, {tokens:,} tokens": [closed(ways, "recover", text) for text in texts]
        for target, (tokens, ways) in found.items()
    }


def shares_text(by_target: Mapping[str, Sequence[float]]) -> str:
    """Return shares by target as text."""
    return ", ".join(f"{' and '.join(map(percent, shares))} ({target})" for target, shares in by_target.items())


def closed_by_tokens(raw: Raw) -> dict[int, dict[str, float]]:
    """Return by number of tokens (sp32k) what `recover` closes on each text, against the last control so far."""
    control: Row = {}
    found = {}
    for tokens, ways in means(raw).items():
        control = ways.get("control", control)
        of = {**ways, "control": control}
        found[tokens] = {text: closed(of, "recover", text) for text in ("prose", *OTHER)}
    return found


def rivals(raw: Raw) -> dict[str, tuple[float, str, float]]:
    """Return by text, with the fewest tokens: the share of `recover`, and the best published recipe with its share.

    All of them start from the same model, which is calibrated by the text alone, without the prior. The papers' recipe
    is left out: its start had the prior.
    """
    ways, start = next(iter(means(raw).values())), "step 0, without the prior"
    found = {}
    for text in ("o_en", "o_code"):
        shares = {way: closed(ways, way, text, start) for way in PUBLISHED if way in ways}
        best = max(shares, key=lambda way: shares[way])
        found[OTHER[text]] = (closed(ways, "recover, calibrated by the text", text, start), best, shares[best])
    return found


def behind(raw: Raw, text: str) -> list[float]:
    """Return how far `recover` ends above the control with the fewest tokens, as a share of its bits, for each target."""
    return [ways["recover"][text] / ways["control"][text] - 1 for ways in with_fewest(raw).values()]


def seeds_of(raw: Raw) -> str:
    """Return as text the number of seeds of `recover` by target and amount of text."""
    parts = []
    for target in targets(raw):
        runs = {tokens: len(ways["recover"]) for tokens, ways in measured(raw, target).items() if "recover" in ways}
        counts = " and ".join(f"{n} {'seed' if n == 1 else 'seeds'} at {tokens:,}" for tokens, n in runs.items())
        parts.append(f"{counts} ({target})")
    return ", ".join(parts)


def seed_range(raw: Raw) -> float:
    """Return the largest difference between two seeds of a recipe in prose, Wikipedia or C++, with the fewest tokens."""
    least = next(iter(measured(raw).values()))
    return max(
        max(line[key] for line in lines) - min(line[key] for line in lines)
        for lines in least.values()
        for key in ("prose", "o_en", "o_code")
    )


def recovery(raw: Raw) -> Page:
    by = means(raw)
    fewest = min(by)
    by_tokens = closed_by_tokens(raw)
    series = {
        name: (list(by_tokens), [100 * shares[key] for shares in by_tokens.values()])
        for key, name in {"prose": "English prose", **OTHER}.items()
    }
    texts = {key: {**SLICES, **OTHER}[key] for key in ("o_en", "o_code", "o_de", "ru")}

    def cell(ways: Mapping[str, Row], way: str, text: str) -> str | None:
        return f"{digits(ways[way][text])} ({percent(closed(ways, way, text))})" if text in ways[way] else None

    return Page(
        "Recovery on little text",
        "How much of the gap to the tuned source does tuning close with little text?",
        f"Only a part: on Wikipedia and C++, `recover` closes {shares_text(closed_by_target(raw))}.",
        partial(plots.lines, series=series, x="tokens of text", y="share of the gap closed, %", levels={"goal": 60.0},
                log=(True, False)),
        "Share of the gap that `recover` closes with sp32k, by tokens of text. "
        f"The table has bits per byte after {fewest:,} tokens, and the share of the gap that is closed.",
        ["target, recipe", *texts.values()],
        [[f"{target}, `{way}`", *(cell(ways, way, text) for text in texts)]
         for target, ways in with_fewest(raw).items() for way in ("papers", "recover")],
        f"SmolLM2-135M, the default text. The gap is from the converted model to the source tuned on the same bytes. `recover` has {seeds_of(raw)}; "
        "the control has one. Of these texts, only Russian is in the tuning text. In English prose, which is in it too, "
        f"`recover` closes {shares_text(closed_by_target(raw, ('prose',)))}. "
        f"Seeds (sp32k, {fewest:,} tokens) differ by at most {digits(seed_range(raw), 2)}. Other recipes and more text: "
        "[decision 16](../decisions/0016-recovery-defaults.md). The runs are from several days and machines; only the last is dated here.",
        command=f"python benchmarks/recovery.py --target sp32k --tokens {fewest} --ways recover papers control",
    )  # fmt: skip


def split_words(raw: Raw) -> Page:
    lost = {(row["text"], row["model"], row["stretches"]): row["lost"] for row in raw.table("Bits per byte")}
    texts, models, kinds = (list(dict.fromkeys(key[i] for key in lost)) for i in range(3))
    nats = {
        (row["text"], row["model"]): row for row in raw.table("Nats per split word") if row["piece"] == "second piece"
    }
    share = [
        lost["Wikipedia", model, "split words"] / sum(lost["Wikipedia", model, kind] for kind in kinds)
        for model in models
    ]

    return Page(
        "Loss by kind of word",
        "On which words does a converted model lose, before and after tuning?",
        f"On words that the new tokenizer splits: they carry {percent(share[0])} of the loss on Wikipedia before tuning and "
        f"{percent(share[-1])} after 10,000 tokens of `{models[-1]}`.",
        partial(
            plots.dots,
            names=[f"{text}, {model}" for text in texts for model in models],
            series={kind: [lost[text, model, kind] for text in texts for model in models] for kind in kinds},
            label="bits per byte lost",
        ),
        "Bits per byte lost, by how both tokenizers split a chunk of text.",
        ["text and model", *kinds, "second piece, nats above expected"],
        [[f"{text}, {model}", *(lost[text, model, kind] for kind in kinds),
          nats[text, model]["moved"] - nats[text, model]["expected"]]
         for text in texts for model in models],
        "SmolLM2-135M → sp32k, `anchored`, calibrated; one seed; about 9 kB of each text. A split word is one token of the source and several "
        "of the new tokenizer. The default recipe learns from this: [decision 16](../decisions/0016-recovery-defaults.md).",
    )  # fmt: skip


def stage_ends(raw: Raw) -> dict[tuple[str, float], float]:
    """Return bits per byte at the end by learning rate and share of stage 1."""
    return {(line["rate"], line["share"]): end(line) for line in raw.measured if "curve" in line}


def stages(raw: Raw) -> Page:
    by = stage_ends(raw)
    rates = ("6.4e-4", "8e-5")
    shares = sorted({share for rate, share in by if rate == rates[0]})
    papers = next(bits for (rate, _), bits in by.items() if rate.startswith("6.4e-4, then"))
    series = {f"rate {rate}": ([100 * s for s in shares], [by[rate, s] for s in shares]) for rate in rates}
    series["rates 6.4e-4, then 5e-5 (papers)"] = ([50.0], [papers])
    start = next(curve(line)[1][0] for line in raw.measured if "curve" in line)

    return Page(
        "Two stages or one",
        "Is it better to train the new rows first, as the papers do, or everything from the start?",
        f"At this budget, everything from the start: it ends at {digits(by[rates[0], 0.0])} bits per byte, half and half at "
        f"{digits(by[rates[0], 0.5])}, and the papers' pair of rates at {digits(papers)}.",
        partial(
            plots.lines,
            series=series,
            x="share of the steps that train rows only (stage 1), %",
            y="bits per byte at the end",
            levels={"start": start},
        ),
        "Bits per byte after 80 steps by share of stage 1.",
        ["share of stage 1", *(f"rate {rate}" for rate in rates)],
        [[f"{100 * share:.0f} %", *(by[rate, share] for rate in rates)] for share in shares],
        "SmolLM2-135M → sp32k, calibrated; 80 steps, 128 kB of text, one seed, 5,000 held-out bytes per slice. Equal steps, not equal "
        "time: a step of stage 1 is cheaper. The papers' order may hold with a thousand times the tokens.",
    )


def extreme(raw: Raw) -> Page:
    by = {line["model"]: line for line in raw.measured}
    byte_model, control = by["bytes"], by["control"]
    last = raw.row("Recovered", model="bytes")
    shown = {"source (control)": control, "single bytes": byte_model}

    return Page(
        "Vocabularies with nothing in common",
        "Does a swap still work when the target shares no string with the source?",
        f"Not at this budget: a model converted to single bytes goes from {digits(curve(byte_model)[1][0])} to {digits(end(byte_model))} bits per byte in 120 steps, "
        f"{percent(last['end'])} of the way to the tuned source ({digits(end(control))}).",
        partial(
            plots.lines,
            series={"converted to single bytes": curve(byte_model), "source (control)": curve(control)},
            x="step",
            y="bits per byte of held-out text",
        ),
        "Bits per byte over all slices; the second half trains the whole model.",
        ["model", *SLICES.values()],
        [[name, *(end(line, slice) for slice in SLICES)] for name, line in shown.items()],
        "SmolLM2-135M → 260 byte tokens, 192 kB of text, one seed, 5,000 held-out bytes per slice. By bytes 91 % of the target is "
        "shared: the model has to learn byte sequences, not rows. Stage 1 alone reaches "
        f"{percent(last['step 60'])}. A vocabulary of characters has not been measured.",
    )


def corpus_size(raw: Raw) -> Page:
    by = raw.by("Bits per byte", "text")
    rows = list(by.values())
    source = next(line["all"] for line in raw.measured if line["text_share"] == "floor")
    sizes = [row["bytes of text"] / 1e6 for row in rows[1:]]
    helps = {
        when: next(row["bytes of text"] for row in rows[1:] if row[when] < rows[0][when]) / 1e6
        for when in ("step 0", "end")
    }
    shown = {
        "before tuning": (sizes, [row["step 0"] for row in rows[1:]]),
        "after 24 steps": (sizes, [row["end"] for row in rows[1:]]),
    }
    levels = {"no text, before": rows[0]["step 0"], "no text, after": rows[0]["end"]}

    return Page(
        "How much text the vectors need",
        "How much text do vectors need before they help?",
        f"With {digits(by['1%']['bytes of text'] / 1000, 2)} kB vectors are worse than none ({digits(by['1%']['step 0'])} against "
        f"{digits(rows[0]['step 0'])} bits per byte); from {digits(helps['step 0'], 2)} MB on they help before tuning, "
        f"from {digits(helps['end'], 2)} MB on also after it.",
        partial(
            plots.lines,
            series=shown,
            x="text for the vectors, MB",
            y="bits per byte",
            levels=levels,
            log=(True, False),
        ),
        "Bits per byte by amount of text, before and after 24 steps of tuning.",
        ["text", "aligned by vectors", "first-step loss", "before tuning", "after 24 steps"],
        [
            [row["text"], row["tokens aligned by vectors"], row["first-step loss"], row["step 0"], row["end"]]
            for row in rows
        ],
        f"SmolLM2-135M → sp32k, `anchored`; 100 % is 5.6 MB. The source has {digits(source)} before tuning. One seed, 38 kB of "
        "tuning text, 5,000 held-out bytes per slice. The curve still falls at the largest size.",
    )


def taught(raw: Raw) -> dict[str, Row]:
    """Return the rows of `distillation` by method of teaching."""
    return {row["row"].split(":")[0]: row for row in raw.table("Bits per UTF-8")}


def distillation(raw: Raw) -> Page:
    rows = taught(raw)
    tuned = [
        "token, temperature 2",
        "token, weight 0.5",
        "token, share 0.5",
        "token",
        "token, weight 2",
        "sentence",
        "token, reverse",
    ]
    values = {name: [float(one) for one in str(rows[name]["seed by seed"]).split()] for name in tuned}
    points = [(mean(values[name]), min(values[name]), max(values[name])) for name in tuned]
    token, direct, hot = rows["token"], rows["direct"], rows["token, temperature 2"]
    return Page(
        "Distillation after the swap",
        "Does a teacher with the same tokenizer teach more than the text alone?",
        f"Almost nothing with default settings: {digits(token['all'], 4)} bits per byte against {digits(direct['all'], 4)} without a "
        f"teacher; temperature 2 reaches {digits(hot['all'], 4)}.",
        partial(
            plots.dots,
            names=tuned,
            series={"difference": points},
            label="bits per byte minus direct tuning (below 0: better); lines are the range of seeds",
            at=0,
        ),
        "Difference to direct tuning of the same seed, by setting.",
        ["method", "seeds", "bits per byte", "minus direct", "seconds"],
        [
            [name, rows[name]["seeds"], rows[name]["all"], *_minus(values.get(name)), rows[name]["seconds"]]
            for name in ("direct", "token", "token, temperature 2", "sentence", "own", "gold")
        ],
        "Student: SmolLM2-135M converted to Gemma 3's vocabulary; teacher: Gemma-3-270M; 12,288 tokens; two seeds for five methods, one for the "
        "others. `own` and `gold` (TRL's GOLD) keep the source's tokenizer; `own` has no teacher, so GOLD's gain may not come from the "
        "teacher. Six tasks with 40 questions each cannot separate the methods. The machine was busy.",
    )


def _minus(values: list[float] | None) -> list[str | None]:
    return [f"{mean(values):+.3f}" if values else None]


def row_moves(raw: Raw) -> Page:
    bands = ["used 10 to 29 times", "used 30 to 99 times", "used 100 to 999 times"]
    rows, output = raw.by("Input rows", "rows"), raw.by("Output rows", "rows")

    return Page(
        "Which rows tuning changes most",
        "Do rows of identical tokens, and of tokens with equal suffixes, change least during tuning, as TokAlign++ reports?",
        "Identical tokens do, by the mean of every frequency band; an equal suffix does not help: input rows differ little, and output "
        "rows change more with it.",
        partial(
            plots.dots,
            names=bands,
            series={name: [interval(row[band]) for band in bands] for name, row in rows.items()},
            label="change of an input row, % of its length, with 95 % interval",
        ),
        "Change of input rows by origin and frequency, % of their length; the table also has output rows.",
        ["rows", *bands],
        [[f"{kind}, {name}", *(number(row[band]) for band in bands)] for kind, table in (("input", rows), ("output", output))
         for name, row in table.items()],
        "The recorded run of the papers' recipe, 250 steps of 512 tokens, SmolLM2-135M → sp32k. Bands are uses in the text of the lexicon. First record the "
        "runs: `tokalign-lab gallery record --work gallery-runs --out gallery`.",
    )  # fmt: skip


def demo_end(raw: Raw) -> tuple[float, float]:
    """Return the demo's bits per byte after tuning, and its seconds."""
    return raw.row("Bits per UTF-8", model="tuned")["all"], raw.row("Seconds", stage="all")["seconds"]


def demo(raw: Raw) -> Page:
    rows = raw.by("Bits per UTF-8", "model")
    tuned = next(name for name in rows if name.startswith("tuned"))
    names = {
        "source, own tokenizer": "source, own tokenizer",
        "shared bytes copied, others by pieces": "copies and pieces",
        "rearranged by tokalign": "`tokalign`",
        "rearranged by anchored": "`anchored`",
        "rearranged by anchored, calibrated": "`anchored`, calibrated",
        tuned: f"tuned, {tuned.split(', ')[1][:-1]}",
    }
    titles = {
        "every row random": "random rows",
        **{name: title.replace("`", "") for name, title in names.items()},
    }
    chosen = sorted(titles, key=lambda name: -rows[name]["all"])
    before = rows["rearranged by anchored, calibrated"]["all"]
    after, seconds = demo_end(raw)
    source = rows["source, own tokenizer"]["all"]
    return Page(
        "The demo",
        "What does the whole pipeline achieve on one pair?",
        f"It does not reach the source's quality: {digits(after)} bits per byte after tuning, {digits(before)} before; the source has {digits(source)}.",
        partial(
            plots.dots,
            names=[titles[name] for name in chosen],
            series={"all text": [rows[name]["all"] for name in chosen]},
            label="bits per byte",
        ),
        "Bits per byte of held-out text by recipe.",
        ["model", "all", "prose", "code", "interface texts"],
        [
            [title, *(rows[name][key] for key in ("all", "prose", "code", "interface texts"))]
            for name, title in names.items()
        ],
        f"SmolLM2-135M-Instruct → sp32k, one seed, 23,045 held-out bytes: differences below 0.02 are noise. It took {seconds:.0f} seconds. The fair control, "
        "a source tuned on the same bytes, is in [recovery](recovery.md).",
    )


def seconds_to_half(raw: Raw) -> float:
    """Return the seconds until the quick start has passed half of the gap; infinite if it does not."""
    return next((row["seconds"] for row in raw.table("Tuning") if row["closed"] >= 0.5), math.inf)


def quickstart(raw: Raw) -> Page:
    rows = raw.table("Tuning")
    half, last = seconds_to_half(raw), rows[-1]
    return Page(
        "The quick start",
        "When does its tuning pass half of the gap to the untuned source?",
        f"After {half:.0f} seconds; it ends at {percent(last['closed'])} after {last['seconds']:.0f} seconds.",
        partial(plots.lines, series={"gap closed": ([row["seconds"] for row in rows], [100 * row["closed"] for row in rows])},
                x="seconds from the start of the run", y="share of the gap closed, %", levels={"half": 50.0}),
        "Every other measurement.",
        ["step", "seconds", "bits per byte", "closed, %"],
        [[row["step"], f"{row['seconds']:.0f}", row["bits per byte"], f"{100 * row['closed']:.0f}"] for row in rows[::2]],
        "One run in a browser, one seed, 10 kB of held-out text of 15 slices. The gap to a tuned source is larger.",
    )  # fmt: skip


PAGES = {
    "split_words": split_words,
    "recovery": recovery,
    "stages": stages,
    "extreme": extreme,
    "corpus_size": corpus_size,
    "distillation": distillation,
    "row_moves": row_moves,
    "demo": demo,
    "quickstart": quickstart,
}
