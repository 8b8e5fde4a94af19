"""Pages about time and memory: vectors, search, tuning, generation, panels, notebooks."""

from __future__ import annotations

from functools import partial

import plots
from page import ROOT, Page, Raw, Row, digits, number, percent


def vectors_speed(raw: Raw) -> Page:
    rows = raw.by("smollm2-135m and sp32k", "vectors")
    theirs, ours, anchored = rows["Stanford's GloVe"], rows["our GloVe"], rows["anchored"]
    seconds = {
        "Stanford's GloVe": theirs["seconds"],
        "our GloVe, 20 iterations": ours["seconds"] * 20 / 15,
        "anchored": anchored["seconds"],
    }
    return Page(
        "Speed of token vectors",
        "How long does training vectors take, and are they as good as Stanford's GloVe?",
        f"Anchored vectors take {digits(anchored['seconds'], 2)} s, Stanford's GloVe {digits(theirs['seconds'])} s; they find "
        f"{100 * anchored['P@1']:.1f} % of held-out shared tokens instead of {100 * theirs['P@1']:.1f} %.",
        partial(
            plots.points,
            groups={name: [(value, 100 * rows[name]["P@1"], "")] for name, value in seconds.items()},
            x="seconds for both vocabularies (20 iterations: scaled from 15)",
            y="P@1, %",
        ),
        "Quality (P@1) against time.",
        ["vectors", "seconds", "times as fast", "P@1"],
        [[name, row["seconds"], row["times as fast"], row["P@1"]] for name, row in rows.items()],
        f"SmolLM2-135M and sp32k, 2.8 MB of text, 2 threads, {raw.noted(r'n = (.+?)[.] ')} held-out shared tokens, one seed. *Equal "
        f"loss*: {raw.noted('after (.+?) and')} iterations. P@1 of both GloVes is with VecMap and CSLS. Peak memory: anchored "
        f"{raw.noted('anchored (.+?) GB')} GB, our GloVe {raw.noted('our GloVe (.+?) GB')} GB.",
    )


def search_cost(raw: Raw) -> tuple[float, float]:
    """Return the time of the exact CSLS search relative to the matrix products alone, and its peak memory in GB."""
    bare, ours = (row["seconds"] for row in raw.table("CSLS"))
    return ours / bare, float(raw.noted(r"included: ([\d.]+) GB"))


def alignment_speed(raw: Raw) -> Page:
    bare, ours = (row["seconds"] for row in raw.table("CSLS"))
    script = raw.table("The script's rules")
    times, memory = search_cost(raw)
    names = ["matrix products alone", "exact CSLS search", "script's rules, as described", "script's rules, ours"]
    return Page(
        "Speed of the neighbour search",
        "How fast is an exact CSLS search over two large vocabularies?",
        f"{digits(times)} times the time of the matrix products alone ({ours:.0f} s for 262,144 x 151,936 vectors), in {digits(memory, 2)} GB.",
        partial(
            plots.dots,
            names=names,
            series={"seconds": [bare, ours, *(row["seconds"] for row in script)]},
            label="seconds",
            log=True,
        ),
        "Seconds of the search and of its references.",
        ["what", "seconds"],
        [["the two matrix products alone", bare], ["exact CSLS search, densities included", ours],
         *([f"the paper's script, {row['what'].split(':')[0]}", row["seconds"]] for row in script)],
        "Random vectors with 300 dimensions, 2 threads. The script's rules ran on 17,382 x 16,339 "
        "vectors; all answers that are neither copied nor random agree.",
    )  # fmt: skip


def growth(raw: Raw) -> Page:
    text = [row for row in raw.table("Text:") if row["megabytes"]]
    slope = raw.row("Text:", what="slope")
    full = raw.row("Vocabulary, full", what="slope")
    libraries = [row["of which before"] for row in text]
    shown = {
        f"{name} (slope {digits(slope[key], 2)})": ([row["megabytes"] for row in text], [row[key] for row in text])
        for name, key in (("anchored vectors", "anchored s"), ("one iteration of GloVe", "GloVe s"))
    }

    return Page(
        "Growth with the text and the vocabulary",
        "How do time and memory grow?",
        f"Less than proportionally with the text (exponent {digits(slope['anchored s'], 2)} for anchored vectors, "
        f"{digits(slope['GloVe s'], 2)} for GloVe) and proportionally with the number of vectors searched ({digits(full['CSLS s'], 3)}).",
        partial(plots.lines, series=shown, x="text, MB", y="seconds", log=(True, True)),
        "Seconds by amount of text, both axes logarithmic.",
        ["text, MB", "vectors", "anchored, s", "GloVe iteration, s", "peak GB"],
        [
            [f"{row['megabytes']:.0f}", row["vectors"], row["anchored s"], row["GloVe s"], row["peak GB"]]
            for row in text
        ],
        "SmolLM2-135M and sp32k, Python files, 300 dimensions, one run per size. A vocabulary eight times as large takes about a "
        "seventh longer on the same text, since only tokens that occur get vectors. Peak memory includes "
        f"{digits(min(libraries), 2)} to {digits(max(libraries), 2)} GB of libraries.",
    )


def rearrange_memory(raw: Raw) -> Page:
    rows = raw.by("Rearranging it", "way")
    model = raw.table("The model")[0]
    files, memory = rows["shard by shard"], rows["in memory"]
    groups = {name: [(row["seconds"], row["added GB"], name)] for name, row in rows.items()}

    return Page(
        "Memory of rearranging",
        "Must the model fit in memory to be rearranged?",
        f"No: shard by shard, {digits(model['model GB'], 2)} GB of files take {digits(files['added GB'], 2)} GB and "
        f"{files['seconds']:.0f} s; in memory they take {digits(memory['added GB'], 2)} GB and {memory['seconds']:.0f} s.",
        partial(plots.points, groups=groups, x="seconds", y="memory added, GB"),
        "Memory against time of both methods.",
        ["method", "seconds", "peak GB", "added GB", "of model size"],
        [
            [name, row["seconds"], row["peak GB"], row["added GB"], row["added over model"]]
            for name, row in rows.items()
        ],
        "A random model of 8 layers in 7 shards, one run, 1 thread. Memory-mapped file pages count as memory here. Both "
        "folders have bit-identical tensors. `--calibrate` needs the whole model.",
    )


def tuning_speed(raw: Raw) -> Page:
    rows = raw.table("Tokens per second")
    at2048 = Raw.read("tuning_speed_2048").by("Tokens per second", "loop")
    by = {(row["target"], row["stage"], row["loop"]): row for row in rows}
    ours = [by["gemma3", stage, "ours"] for stage in (1, 2)]
    groups: dict[str, list[tuple[float, float, str]]] = {}
    short = {"plain": "plain", "ours": "ours", "ours, gradient checkpointing": "checkpointing"}
    for row in rows:
        if row["loop"] in short:
            name = f"{'262k' if row['target'] == 'gemma3' else '32k'} tokens, stage {row['stage']}"
            groups.setdefault(name, []).append((row["tokens per second"], row["peak GB"], short[row["loop"]]))

    def line(name: str, row: Row) -> list[object]:
        return [name, row["tokens per second"], row["times plain"], row["peak GB"], row["share of plain"]]

    return Page(
        "Speed and memory of tuning",
        "Does our training loop need less time and memory than a plain Hugging Face loop?",
        f"Not both at once as planned (1.3 times in half the memory): at 262k tokens it is {digits(ours[0]['times plain'])} and "
        f"{digits(ours[1]['times plain'])} times as fast in {percent(ours[0]['share of plain'])} and "
        f"{percent(ours[1]['share of plain'])} of the memory; at 32k tokens it is no faster.",
        partial(plots.points, groups=groups, x="tokens per second", y="peak memory, GB"),
        "Peak memory against tokens per second, by vocabulary, stage and loop.",
        ["setting", "tokens per second", "of plain loop", "peak GB", "of plain loop"],
        [
            line("262k tokens, stage 1", ours[0]),
            line("262k tokens, stage 2", ours[1]),
            line("the same, checkpointing", by["gemma3", 2, "ours, gradient checkpointing"]),
            line("262k, stage 1, length 2,048", at2048["ours"]),
            line("32k tokens, stage 1", by["sp32k", 1, "ours"]),
            line("32k tokens, stage 2", by["sp32k", 2, "ours"]),
        ],
        "SmolLM2-135M on a processor, 2 threads, float32; 6 steps of 4 sequences of 256 tokens, at length 2,048 three steps of one. "
        "Losses agree with the plain loop to 1e-6. The machine's speed varies: three days earlier the same loops gave 1.51 (stage 1) and 1.21 "
        "(stage 2) times.",
        also=["tuning_speed_2048"],
    )


def utilisation(raw: Raw) -> Page:
    rows = raw.table("Both stages")
    shown = {
        "all of attention counted": [100 * row["utilisation"] for row in rows],
        "half of attention counted": [100 * row["half of attention counted"] for row in rows],
    }

    return Page(
        "CPU utilisation in tuning",
        "How close is tuning to the speed of matrix products?",
        f"At {percent(rows[0]['utilisation'])} in stage 1 and {percent(rows[1]['utilisation'])} in stage 2; no GPU was measured.",
        partial(
            plots.dots,
            names=[f"stage {row['stage']}" for row in rows],
            series=shown,
            label="share of the speed of a matrix product, %",
        ),
        "Utilisation by stage.",
        ["stage", "tokens per second", "GFLOP per token", "utilisation", "half of attention"],
        [
            [
                str(row["stage"]),
                row["tokens per second"],
                row["GFLOP per token"],
                row["utilisation"],
                row["half of attention counted"],
            ]
            for row in rows
        ],
        "Four steps of one sequence of 2,048 tokens, float32, 2 threads. The reference is the best product of two square matrices before "
        "and after. Softmax, norms and AdamW are not counted.",
    )


def compression(raw: Raw) -> Page:
    saved = raw.by("Tokens for the same text", "slice")
    speed = raw.by("Greedy generation", "model")

    names = {"prose": "English prose", "code": "Python", "ja": "Japanese"}
    targets = ["sp32k", "qwen2", "gemma3"]
    groups = {
        target: [
            (-number(saved[slice][target]), speed[target][f"{title}, times the source"], title)
            for slice, title in names.items()
        ]
        for target in targets
    }

    return Page(
        "Tokens and time",
        "Do fewer tokens also save time?",
        "Not in English or Python on a small model: the larger head costs more time than fewer tokens save (Gemma 3's tokenizer: "
        f"{digits(speed['gemma3']['English prose, times the source'], 2)} times the source's speed); in Japanese Qwen2's is "
        f"{digits(speed['qwen2']['Japanese, times the source'], 3)} times as fast.",
        partial(plots.points, groups=groups, x="tokens saved, %", y="speed of generation, times the source"),
        "Speed of generation against tokens saved.",
        ["target", "tokens saved, all", "speed in English, relative to source", "Python", "Japanese"],
        [
            [
                t,
                f"{-number(saved['all'][t]):.0f} %",
                *(speed[t][f"{title}, times the source"] for title in names.values()),
            ]
            for t in targets
        ],
        "SmolLM2-135M on 2 threads, float32, batch 1; 5 repeats of 64 new tokens. *All*: 27 languages, English prose and code, 30 kB "
        "each. Scoring of text, and single languages, are in the raw data. In a larger model the head is a smaller share.",
    )


def in_page(raw: Raw, start: str) -> float:
    """Return a value measured in the page, found by the start of its name; times are in seconds."""
    return float(raw.row("In the page", what=start)["value"])


def slowest_action(raw: Raw) -> float:
    """Return the milliseconds of the slowest search, filter or sort among 262,144 tokens."""
    actions = ("search", "filter", "sort", "regular")
    return max(row["ms"] for row in raw.table("In the kernel") if row["what"].startswith(actions))


def ui(raw: Raw) -> Page:
    kernel = raw.by("In the kernel", "what")
    page = {name: row["value"] for name, row in raw.by("In the page", "what").items()}
    slowest = slowest_action(raw)
    every = [in_page(raw, f"maps with all points: {what}") for what in ("from Run", "box of 20,000")]
    points = in_page(raw, "maps with all points: points")
    usual = [
        ("lexicon: first rows after Run, s", page["lexicon: from Run to a table with rows, s"], "3"),
        ("slowest search, filter or sort, ms", slowest, "150"),
        ("longest callback, ms", max(row["worst ms"] for row in raw.table("In callbacks")), "50"),
        ("largest message, kB", max(row["largest kB"] for row in kernel.values()), "1,000"),
        (f"maps of all {points:,.0f} tokens: both drawn after Run, s", every[0], "3"),
        (f"maps of all {points:,.0f} tokens: box of 20,000 points, s", every[1], "0.5"),
    ]
    chosen = [name for name in kernel if not name.startswith("open")]
    verdict = "Yes" if all(value <= float(goal.replace(",", "")) for _, value, goal in usual) else "Not everywhere"

    return Page(
        "Speed of the panels",
        "Are the panels fast with 262,144 and 49,152 tokens?",
        f"{verdict}: maps with every token open in {digits(every[0], 2)} s (goal 3), a box of 20,000 points takes "
        f"{digits(every[1], 2)} s (goal 0.5), and searches and sorts take at most {slowest:.0f} ms.",
        partial(
            plots.dots,
            names=["search: one Han character" if "東" in name else name.split(": ^")[0] for name in chosen],
            series={"ms": [kernel[name]["ms"] for name in chosen]},
            label="ms in the kernel (limit: 150)",
            at=150,
            log=True,
        ),
        "Time in the kernel by action.",
        ["what", "measured", "goal"],
        [[name, value, goal] for name, value, goal in usual],
        "Chromium draws in software on the same two cores. Only tokens of the text have a vector (14,479 of Gemma 3's); in the maps of "
        "all tokens, the others have random vectors.",
    )


def untimed(raw: Raw) -> list[str]:
    """Return the names of the notebooks that were not measured."""
    measured = {row["notebook"] for row in raw.table("From top to bottom")}
    folder = ROOT / "notebooks"
    paths = (path.relative_to(folder) for path in folder.rglob("*.ipynb"))
    return sorted({path.as_posix() for path in paths if ".ipynb_checkpoints" not in path.parts} - measured)


def notebooks(raw: Raw) -> Page:
    rows = raw.table("From top to bottom")
    missing = "".join(f"; {name} was not measured" for name in untimed(raw))
    slow = sorted(rows, key=lambda row: -row["minutes"])

    return Page(
        "Time of the notebooks",
        "Does every notebook run from top to bottom within 15 minutes?",
        f"{'The' if missing else 'Yes: the'} slowest takes {digits(slow[0]['minutes'])} minutes, and no cell fails{missing}.",
        partial(
            plots.dots,
            names=[row["notebook"].removesuffix(".ipynb") for row in rows],
            series={"minutes": [row["minutes"] for row in rows]},
            label="minutes from Run All to the end (limit: 15)",
            at=15,
        ),
        "Minutes per notebook, full sizes, in a browser.",
        ["notebook", "cells", "minutes", "failed cells"],
        [[row["notebook"], row["cells"], row["minutes"], row["failed cells"]] for row in slow[:6]],
        "2 threads, empty cache of runs and vectors, assets present. The quick start and lessons 3 and 4 shared the machine with a tuning "
        f"run. The six slowest of {len(rows)} are in the table.",
    )


PAGES = {
    "vectors_speed": vectors_speed,
    "alignment_speed": alignment_speed,
    "growth": growth,
    "rearrange_memory": rearrange_memory,
    "tuning_speed": tuning_speed,
    "utilisation": utilisation,
    "compression": compression,
    "ui": ui,
    "notebooks": notebooks,
}
