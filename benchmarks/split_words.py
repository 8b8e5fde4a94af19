"""Where does a swap lose quality? Bits per byte of the source and of the converted model on the same chunks of text.

    python benchmarks/split_words.py --out benchmarks/results/split_words.jsonl

SmolLM2-135M is converted to sp32k by `anchored`, calibrated, and tuned by `recover` on 10,000 tokens as in
`recovery.py`. The source and the converted model, before and after tuning, read the texts of that program. A
chunk ends where both tokenizers have a token boundary. Chunks are grouped by their tokens: one token on each side; one
token of the source and several of the converted model ("split words"); all others. For split words, nats per word are
compared with the nats that the source itself assigns to the first and the second piece (`cross_tokenizer.pieces`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import recovery
import torch
import tuning
from harness import Kept, limit_threads, parser, report

from tokalign_lab import catalog
from tokalign_lab.cross_tokenizer.pieces import Pieces
from tokalign_lab.cross_tokenizer.source import SourceTeacher
from tokalign_lab.documents import n_bytes
from tokalign_lab.model.load import load_model
from tokalign_lab.vocabulary import Vocabulary

KINDS = {"one to one": "1:1", "split words": "1:n", "others": "n:m"}
PARTS = ("first piece", "second piece", "later pieces")
WINDOW = 512
MODELS = ("step 0", "recover")
TOKENS = 10_000


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(threads=1)
    given = options.parse_args()
    limit_threads(given.threads)
    torch.set_num_threads(given.threads)
    kept = Kept(given)
    texts = ["o_en"] if given.quick else ["prose", "o_en", "o_code"]
    titles = {"prose": "prose", **{key: name for name, key in recovery.OTHER.items()}}
    lines = {
        (key, model): kept(lambda key=key, model=model: measure(key, model, given.quick), text=titles[key], model=model)
        for model in MODELS
        for key in texts
    }
    named = [({"text": line["text"], "model": line["model"]}, line) for line in lines.values()]
    by_kind = [
        {**name, "stretches": kind, **line[kind], "lost": line[kind]["moved"] - line[kind]["source"]}
        for name, line in named
        for kind in KINDS
    ]
    of_words = [{**name, "words": line["words"], "piece": part, **line[part]} for name, line in named for part in PARTS]
    tables = [("Bits per byte of the whole text", by_kind), ("Nats per split word", of_words)]
    report("Where a swap loses", tables, ["One seed."], given.out)


@cache
def model_of(model: str, quick: bool) -> tuple[Any, Vocabulary]:
    """Return one of `MODELS` and its tokenizer."""
    if model == "step 0":
        return recovery.converted()
    return recovery.tuned(recovery.WAYS[model], 1_024 if quick else TOKENS)[:2]


def measure(key: str, name: str, quick: bool) -> dict[str, Any]:
    """Score one text by chunks."""
    model, student = model_of(name, quick)
    model.eval()
    source = catalog.load_vocabulary(tuning.SOURCE)
    teacher = SourceTeacher(load_model(tuning.SOURCE, device="cpu"), source, student)
    pieces = Pieces(student, source)
    documents = recovery.measured()[key][: 2 if quick else None]
    nats: dict[str, list[float]] = {kind: [0.0, 0.0] for kind in KINDS}
    parts: dict[str, list[float]] = {part: [0.0, 0.0] for part in PARTS}
    words = stretches = 0
    for document in documents:
        (ids,) = student.encode([document.text])
        for kind, own, expected, made in _chunks(
            torch.tensor([[*student.start_ids, *ids.tolist()][:WINDOW]]), model, teacher, pieces
        ):
            stretches += 1
            nats[kind][0] += own
            nats[kind][1] += sum(made)
            if kind == "split words" and expected is not None:
                words += 1
                for place, part in enumerate(PARTS):
                    parts[part][0] += expected[place]
                    parts[part][1] += made[place] if place < 2 else sum(made[2:])
    bits = math.log(2) * n_bytes(documents)
    return {
        **{kind: {"source": own / bits, "moved": mine / bits} for kind, (own, mine) in nats.items()},
        **{part: {"expected": a / max(words, 1), "moved": b / max(words, 1)} for part, (a, b) in parts.items()},
        "words": words,
        "stretches": stretches,
    }


@torch.no_grad()
def _chunks(
    ids: torch.Tensor, model: Any, teacher: SourceTeacher, pieces: Pieces
) -> Iterator[tuple[str, float, list[float] | None, list[float]]]:
    """Yield of each chunk: kind, nats of the source, its nats for each piece, nats of the converted model by token."""
    reading = teacher.read(ids, predicts=True)
    assert reading.hidden is not None
    theirs = torch.log_softmax(teacher.head.logits(reading.hidden), dim=1)
    mine = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), dim=1)
    yours = reading.input_ids.flatten().tolist()
    positions = reading.positions
    for student, source in zip(
        positions.student[~positions.first].tolist(), positions.source[~positions.first].tolist(), strict=True
    ):
        made = [-float(mine[i - 1, ids[0, i]]) for i in range(student[0], student[1] + 1)]
        own = sum(-float(theirs[i - 1, yours[i]]) for i in range(source[0], source[1] + 1))
        if source[0] != source[1]:
            yield "others", own, None, made
        elif len(made) == 1:
            yield "one to one", own, None, made
        else:
            token, log_p = yours[source[0]], theirs[source[0] - 1][: len(pieces.first)]
            begins = pieces.first == pieces.first[token]
            both = begins & (pieces.second == pieces.second[token])
            if int(pieces.count[token]) < 2:
                yield "split words", own, None, made
                continue
            first, second = (-float(torch.logsumexp(log_p[chosen], dim=0)) for chosen in (begins, both))
            yield "split words", own, [first, second - first, own - second], made


if __name__ == "__main__":
    main()
