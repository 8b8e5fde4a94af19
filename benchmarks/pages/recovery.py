"""Pages about tuning: recovery, stages, amount of text, and distillation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import plots
from page import Page, Raw, Row, digits, interval, mean, number, percent, span

CONTROLS = ("control", "control, one stage")
SLICES = {"prose": "English", "code": "Python", "ru": "Russian", "ja": "Japanese"}
OTHER = {"prose": "English prose", "o_en": "Wikipedia", "o_code": "C++", "o_de": "German"}


def curve(line: Row, slice: str = "all") -> tuple[list[int], list[float]]:
    """Return steps and bits per byte of a measurement."""
    steps = sorted(map(int, line["curve"]))
    return steps, [line["curve"][str(step)][slice] for step in steps]


def end(line: Row, slice: str = "all") -> float:
    """Return the bits per byte of a measurement after its last step."""
    return curve(line, slice)[1][-1]


def behind(raw: Raw) -> dict[str, dict[str, float]]:
    """Return by slice and target how far the converted model ends above the better control, as a share of its bits."""
    by = {line["model"]: line for line in raw.measured}
    best = {slice: min(end(by[name], slice) for name in CONTROLS) for slice in SLICES}
    targets = [name for name in by if name not in CONTROLS]
    return {slice: {name: end(by[name], slice) / best[slice] - 1 for name in targets} for slice in SLICES}


def six_tasks(raw: Raw) -> tuple[float, float, float]:
    """Return the average accuracy of source and tuned model, and half of the source's 95 % confidence interval."""
    source, tuned = (
        [row for row in raw.table("Six tasks") if row["model"] == name] for name in ("source", "converted and tuned")
    )
    half = 1.96 * sum(row["acc_stderr"] ** 2 for row in source) ** 0.5 / len(source)
    return mean([row["acc"] for row in source]), mean([row["acc"] for row in tuned]), half


def budget(raw: Raw) -> str:
    """Return the tokens read, as a share of the papers' tokens scaled to this model."""
    return raw.noted(r"at most [\d,]+, ([\d.]+)% of the papers") + " %"


def recovery(raw: Raw) -> Page:
    by = {line["model"]: line for line in raw.measured}
    over = behind(raw)
    ends = [end(by[name]) for name in CONTROLS]
    titles = dict(zip(CONTROLS, ("source, two stages", "source, one stage"), strict=True))

    return Page(
        "Recovery with the papers' recipe",
        "Does a converted model catch up with its source when both are tuned on the same text?",
        f"No, not with 40 steps: it ends {span(over['prose'].values())} behind the tuned source "
        f"in English and {span(over['ru'].values())} behind in Russian.",
        partial(
            plots.lines,
            series={titles.get(name, name): curve(line, "prose") for name, line in by.items()},
            x="step",
            y="bits per byte of English prose",
        ),
        "Bits per byte of English prose during tuning: three converted models and the source (control). The table shows how far each ends behind it.",
        ["target", *SLICES.values()],
        [[name, *(f"{100 * over[slice][name]:+.0f} %" for slice in SLICES)] for name in over["prose"]],
        "SmolLM2-135M, two stages as in the papers, 64 kB of text in equal parts, at most 24,000 tokens: "
        f"{budget(raw)} of the papers' budget scaled to this model. One seed, 6,000 held-out bytes per slice. The control that ends lower is the reference: one "
        f"stage ({digits(ends[1])} over all text) ends below two ({digits(ends[0])}). The goal, within 2 % in "
        "English after 1,000 steps of the papers' size, is not tested. The default recipe `recover` is in "
        "[decision 16](../decisions/0016-recovery-defaults.md).",
    )


def search_lines(raw: Raw, target: str = "sp32k") -> dict[int, dict[str, list[Row]]]:
    """Return the measurements of `recovery_search.py` by number of tokens, ascending, and way; one per seed."""
    by: dict[int, dict[str, list[Row]]] = {}
    for line in raw.measured:
        if line["settings"]["target"] != target:
            continue
        by.setdefault(line["settings"]["tokens"], {}).setdefault(line["way"], []).append(line)
    return dict(sorted(by.items()))


def search_means(raw: Raw, target: str = "sp32k") -> dict[int, dict[str, Row]]:
    """Return the measurements of `search_lines`, averaged over seeds."""

    def means(lines: list[Row]) -> Row:
        keys = [key for key in (*OTHER, "cpu") if all(isinstance(line.get(key), int | float) for line in lines)]
        return {key: mean([line[key] for line in lines]) for key in keys}

    return {
        tokens: {way: means(lines) for way, lines in ways.items()} for tokens, ways in search_lines(raw, target).items()
    }


DEFAULT = "recover, calibrated by the source"


def default_way(ways: Mapping[str, object]) -> str:
    """Return the name of the default way of `adapt`, or of the default before decision 19 if it was not measured."""
    return next(way for way in (DEFAULT, *ways) if way in ways and "recover" in way)


def closed_gap(raw: Raw) -> tuple[int, float, float]:
    """Return the largest budget with a control, and the shares of the gap that the default closes: Wikipedia, C++."""
    whole = {tokens: ways for tokens, ways in search_means(raw).items() if {"step 0", "control"} <= ways.keys()}
    tokens, ways = max(whole.items())
    return tokens, *closed(ways, default_way(ways))


def closed(ways: Mapping[str, Row], way: str) -> tuple[float, float]:
    """Return the shares of the gap that a way closes: Wikipedia, C++."""
    start, ours, control = ways["step 0"], ways[way], ways["control"]
    wikipedia, code = ((start[key] - ours[key]) / (start[key] - control[key]) for key in ("o_en", "o_code"))
    return wikipedia, code


def closed_later(raw: Raw) -> tuple[float, float]:
    """Return `closed` of the best way with the largest budget, against the control of the budget before."""
    _, *_, before, last = search_means(raw).values()
    best = min((way for way in last if "recover" in way), key=lambda way: last[way]["o_en"] + last[way]["o_code"])
    return closed({**last, "control": before["control"]}, best)


def rivals(raw: Raw) -> dict[str, tuple[float, str, float]]:
    """Return by text, with the smallest budget: the share of `recover`, and the best published recipe with its share.

    All of them start from the same calibrated model.
    """
    ways = next(iter(search_means(raw).values()))
    ours = closed(ways, "recover")
    published = {
        name: closed(ways, name)
        for name in ("ALM", "ALM, debiased", "MATT", "Token Distillation, text", "papers")
        if name in ways
    }
    best = [max(published, key=lambda name, place=place: published[name][place]) for place in range(2)]
    return {text: (ours[i], best[i], published[best[i]][i]) for i, text in enumerate(("Wikipedia", "C++"))}


def closed_by_target(raw: Raw) -> dict[str, tuple[float, float]]:
    """Return `closed` of the default for each target with a measured control, at the smallest budget."""
    targets = dict.fromkeys(line["settings"]["target"] for line in raw.measured)
    least = {target: next(iter(search_means(raw, target).values())) for target in targets}
    return {target: closed(ways, default_way(ways)) for target, ways in least.items() if "control" in ways}


def seeds_by_target(raw: Raw) -> str:
    """Return `seeds` at the smallest budget of each target."""
    return ", ".join(
        f"{seeds(raw, min(search_lines(raw, target)), target)} ({target})" for target in closed_by_target(raw)
    )


def seeds(raw: Raw, tokens: int, target: str = "sp32k") -> str:
    """Return as text the number of seeds that the default recipe was measured with at a budget."""
    ways = search_lines(raw, target)[tokens]
    found = {line.get("seed", 0) for line in ways[default_way(ways)]}
    return "one seed" if len(found) == 1 else f"{len(found)} seeds"


def seed_range(raw: Raw) -> float:
    """Return the largest difference between two seeds of one way in English prose, Wikipedia or C++, with the smallest budget."""
    least = next(iter(search_lines(raw).values()))
    return max(
        max(line[key] for line in lines) - min(line[key] for line in lines)
        for lines in least.values()
        for key in list(OTHER)[:3]
    )


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


def recovery_search(raw: Raw) -> Page:
    by = search_means(raw)
    budgets = list(by)
    least = by[budgets[0]]
    start, control = least["step 0"], least.get("control")
    ways = [way for way in least if way != "control" and not way.startswith("step 0")]
    ours = default_way({way: least[way] for way in ways})
    shares = [f"{percent(a)} and {percent(b)} ({target})" for target, (a, b) in closed_by_target(raw).items()]
    answer = "The control was not measured"
    if shares:
        most, *most_shares = closed_gap(raw)
        answer = f"A small part: on Wikipedia and on C++ it closes {', '.join(shares)}"
        if most > budgets[0]:
            answer += f"; with {most:,} tokens {' and '.join(map(percent, most_shares))} (sp32k)"
    order = sorted(ways, key=lambda way: least[way]["o_en"])
    shown = list(dict.fromkeys([*order[:4], ours, "papers" if "papers" in ways else order[-1]]))[:5]
    measured = {way: [by[tokens][way] for tokens in budgets if "cpu" in by[tokens].get(way, ())] for way in shown[:3]}
    series = {way: ([row["cpu"] for row in rows], [row["o_en"] for row in rows]) for way, rows in measured.items()}
    levels = {"step 0": start["o_en"]} | ({"tuned source": control["o_en"]} if control else {})

    return Page(
        "How to tune a converted model on little text",
        f"How much of the gap to the tuned source does the default recipe close with {budgets[0]:,} tokens, on text of other domains?",
        f"{answer}.",
        partial(plots.lines, series=series, x="CPU seconds", y="bits per byte of Wikipedia", levels=levels),
        "Bits per byte of Wikipedia against CPU seconds, one marker per budget.",
        ["recipe", *list(OTHER.values())[:3], "CPU seconds"],
        [[name, *(row.get(key) for key in list(OTHER)[:3]), row.get("cpu")] for name, row in
         [*((way, least[way]) for way in shown), *([("tuned source (control)", control)] if control else [])]],
        f"SmolLM2-135M → sp32k, {', '.join(f'{tokens:,}' for tokens in budgets)} tokens. Default, smallest budget: {seeds_by_target(raw)}; with sp32k 3 for `recover`, `text`, `papers`; others one. "
        "`recover` is the default before decisions [16](../decisions/0016-recovery-defaults.md#a-high-temperature) and "
        "[19](../decisions/0019-calibration-reads-the-source.md); gemma3 had no prior in its calibration. "
        f"Seeds of the table (sp32k, smallest budget) differ by at most {digits(seed_range(raw), 2)}. "
        "Some ways ran on an Intel Xeon.",
        command=f"python benchmarks/recovery_search.py --tokens {budgets[0]} --ways recover text papers 'recover, calibrated by the source' --seeds 3",
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


PAGES = {
    "split_words": split_words,
    "recovery": recovery,
    "stages": stages,
    "extreme": extreme,
    "corpus_size": corpus_size,
    "distillation": distillation,
    "row_moves": row_moves,
    "demo": demo,
}
