"""Recovery: ways to tune a converted model on little text, compared on the same text and on text of other domains.

    python benchmarks/recovery.py --tokens 10000 --out benchmarks/results/recovery.jsonl

SmolLM2-135M is converted to the target by `anchored` and calibrated to the token frequencies of a text. `recover`, the
default of `adapt`, starts from a model that is also calibrated to the source's predictions, as `rearrange --calibrate`
does; the other ways do not, so that recipes are compared from one start. Each way tunes on the same number of tokens
of the default text (equal parts of prose, code, ru, ja). It is measured on held-out text of these four slices, and on
three texts of other domains: passages of Wikipedia (BoolQ), C++ headers of torch, and German interface texts. The
control is the source model tuned on the same bytes with its own tokenizer. All ways use a plain loop with torch's
AdamW (fused) or `FlooredAdamW`, one thread, float32; the engine's loop is `adaptation.train`.

Each result is a line of the file `--out`, and a stopped program continues after the last one.
"""

from __future__ import annotations

import copy
import glob
import math
import os
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tuning
from harness import Kept, limit_threads, parser, report

from tokalign_lab import catalog
from tokalign_lab.adaptation.coverage import new_tokens
from tokalign_lab.adaptation.optimizer import FlooredAdamW
from tokalign_lab.adaptation.processes import Processes
from tokalign_lab.adaptation.recovery.objective import Objective
from tokalign_lab.adaptation.recovery.recovery_loss import RecoveryLoss
from tokalign_lab.adaptation.recovery.states import state_loss
from tokalign_lab.adaptation.settings import RATE_TOKENS
from tokalign_lab.cross_tokenizer.layers import states_after
from tokalign_lab.cross_tokenizer.source import Retokenizer, SourceTeacher
from tokalign_lab.documents import Document, excerpts
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.head import Head
from tokalign_lab.model.calibrate import calibrate
from tokalign_lab.model.load import load_model
from tokalign_lab.vocabulary import Vocabulary

LENGTH = 128
OTHER = {"Wikipedia": "o_en", "C++": "o_code", "German": "o_de"}
TEXTS = {**{name: name for name in tuning.SLICES}, **OTHER}
BYTES_PER_TOKEN = 3.4  # of sp32k on this text; 1.3 times as many bytes are drawn, for targets with longer tokens


ROWS_LAYER, ROWS_RATE = 8, 0.1  # settings of Token Distillation; the rate is relative to the rows' root mean square


@dataclass(frozen=True)
class Way:
    """One way to tune; rates are peaks of a cosine schedule.

    `by_source`: the start is also calibrated to the source's predictions. `falls`: rates are lower for runs with more
    tokens, as those of `adapt`. `states_first`: Token Distillation of the new rows comes first.
    """

    rows: float = 3e-4
    body: float = 1e-4
    batch: int = 1
    floor: bool = True
    stage1: float = 0.0
    stage1_rows: float = 6.4e-4
    warmup: float = 0.1
    clip: float = 1.0
    source: bool = False
    by_source: bool = False
    falls: bool = False
    states_first: bool = False
    losses: dict[str, float] = field(default_factory=dict)


RECOVER = {"prefix": 1.0, "branches": 1.0}
WAYS = {
    "papers": Way(rows=5e-5, body=5e-5, batch=4, floor=False, stage1=0.5, warmup=0.03, clip=0.3),
    "one stage, 1e-4": Way(rows=1e-4, floor=False),
    "text": Way(),
    "text, head not floored": Way(floor=False),
    "text, rows 1e-3": Way(rows=1e-3),
    "text, batch 4": Way(rows=6e-4, body=2e-4, batch=4),
    "step 0, calibrated by the source": Way(by_source=True),
    "recover": Way(by_source=True, falls=True, losses=RECOVER),
    "recover, calibrated by the text": Way(losses=RECOVER),
    "recover, half the rates": Way(rows=1.5e-4, body=5e-5, losses=RECOVER),
    "recover, batch 4": Way(rows=6e-4, body=2e-4, batch=4, losses=RECOVER),
    "prefix alone": Way(losses={"prefix": 1.0}),
    "branches alone": Way(losses={"branches": 1.0}),
    "shared KL": Way(losses={"shared": 1.0}),
    "ALM, debiased": Way(losses={"likelihood": 1.0}),
    "states": Way(losses={"states": 1.0}),
    "MATT": Way(losses={"values": 1.0}),
    "Token Distillation, text": Way(states_first=True),
    "source": Way(source=True),
    "control": Way(source=True, rows=1e-4, floor=False),
    "control, falling rates": Way(source=True, rows=1e-4, floor=False, falls=True),
}


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(threads=1)
    options.add_argument("--tokens", type=int, default=10_000, help="amount of text, in tokens of the converted model")
    options.add_argument("--target", default="sp32k", help="a tokenizer of the catalogue")
    options.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options.add_argument("--seeds", type=int, default=1)
    given = options.parse_args()
    if given.quick:
        given.tokens, given.ways = 1_024, ["papers", "recover", "control"]
    limit_threads(given.threads)
    torch.set_num_threads(given.threads)
    kept = Kept(given, tokens=given.tokens, target=given.target)
    start = kept(lambda: measure(*converted(given.target)), way="step 0")
    lines = {
        way: [
            kept(lambda way=way, seed=seed: tune(way, given.tokens, seed, given.target), way=way, seed=seed)
            for seed in range(given.seeds)
        ]
        for way in given.ways
    }
    control = mean(lines["control"]) if "control" in lines else None
    rows = [
        {"way": way, **figures(line), "CPU s": line.get("cpu"), **closed(start, line, control)}
        for way, line in {"step 0": start, **{way: mean(found) for way, found in lines.items()}}.items()
    ]
    notes = [
        f"{given.target}, {given.tokens:,} tokens of text, mean of {given.seeds} seed(s), {given.threads} thread(s). "
        "Share of the gap closed: (step 0 - x) / (step 0 - control).",
        "Branches are tokens that are not of the text; the seconds count them.",
    ]
    report("Recovery on little text", [("Bits per byte", rows)], notes, given.out)


def mean(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Average the measurements of one way over seeds."""
    return {key: statistics.mean(line[key] for line in lines) for key in (*TEXTS.values(), "cpu")}


def figures(line: dict[str, Any]) -> dict[str, float]:
    return {name: line[key] for name, key in TEXTS.items()}


def closed(start: dict[str, Any], line: dict[str, Any], control: dict[str, Any] | None) -> dict[str, float | None]:
    """Return the share of the gap to the control that is closed, by text."""
    return {
        f"{name}, closed": None if control is None else (start[key] - line[key]) / (start[key] - control[key])
        for name, key in TEXTS.items()
    }


@cache
def measured() -> dict[str, list[Document]]:
    """Return held-out text of the same kinds as the tuning text, and texts of other domains."""
    return {
        **{name: tuning.draw_slice(name, "held_out", 4_000, 1_000, 0) for name in tuning.SLICES},
        "o_de": tuning.draw_slice("de", "held_out", 5_000, 1_000, 0),
        **other_domains(),
    }


def other_domains() -> dict[str, list[Document]]:
    """Return passages of Wikipedia from BoolQ, and C++ headers of the installed torch; about 9 kB each, with seed 0."""
    import json

    rng = np.random.default_rng(0)
    lines = Path(str(catalog.get("boolq"))).read_text(encoding="utf-8").splitlines()
    passages = sorted({json.loads(line)["passage"] for line in lines})
    rng.shuffle(passages)
    headers = sorted(glob.glob(os.path.join(os.path.dirname(torch.__file__), "include/c10/**/*.h"), recursive=True))
    rng.shuffle(headers)
    texts = (Path(header).read_text(encoding="utf-8") for header in headers)
    code = (text[800:2000] for text in texts if len(text) >= 2500)
    found = {"o_en": _until((passage[:1200] for passage in passages), 9_000), "o_code": _until(code, 9_000)}
    return {
        key: [Document(text, f"{key}{i}", f"{key}{i}", key) for i, text in enumerate(texts)]
        for key, texts in found.items()
    }


def _until(texts: Any, size: int) -> list[str]:
    """Take texts until they have more than `size` bytes."""
    taken: list[str] = []
    for text in texts:
        if sum(len(one.encode()) for one in taken) > size:
            break
        taken.append(text)
    return taken


def converted(target: str = "sp32k", by_source: bool = False) -> tuple[Any, Vocabulary]:
    """Return a copy of the source model, converted to a tokenizer and calibrated."""
    return copy.deepcopy(_converted_once(target, by_source)), catalog.load_vocabulary(target)


@cache
def _converted_once(name: str, by_source: bool) -> Any:
    target = catalog.load_vocabulary(name)
    model, _ = tuning.converted(target, 0, "cpu")
    text = excerpts(tuning.align_text(), 100_000, 2_000, 0)
    calibrate(model, target, text, tuning.CALIBRATE_TOKENS, source=tuning.source("cpu") if by_source else None)
    return model


def measure(model: Any, vocabulary: Vocabulary) -> dict[str, float]:
    model.eval()
    return {key: bits_per_byte(model, vocabulary, documents).bits_per_byte for key, documents in measured().items()}


def blocks(documents: list[Document], vocabulary: Vocabulary, seed: int) -> torch.Tensor:
    """Concatenate documents to int64 (n, LENGTH), in a seeded order."""
    bos, eos = vocabulary.roles.get("bos"), vocabulary.roles.get("eos")
    before, after = [] if bos is None or bos == eos else [bos], [] if eos is None else [eos]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(documents))
    ids: list[int] = []
    for encoded in vocabulary.encode([documents[i].text for i in order]):
        ids += [*before, *encoded.tolist(), *after]
    n = len(ids) // LENGTH
    return torch.from_numpy(np.array(ids[: n * LENGTH]).reshape(n, LENGTH)[rng.permutation(n)])


def as_source(read: torch.Tensor, target: Vocabulary, source: Vocabulary) -> torch.Tensor:
    """Tokenize the same text with the source's tokenizer, int64 (n, LENGTH); a shorter remainder is dropped."""
    write = Retokenizer(target, source)
    ids = np.concatenate([write(block)[1].ids for block in read.numpy()])
    n = len(ids) // LENGTH
    return torch.from_numpy(ids[: n * LENGTH].reshape(n, LENGTH))


def tune(name: str, tokens: int, seed: int, target: str) -> dict[str, Any]:
    """Tune once by one of `WAYS`, and measure."""
    way = WAYS[name]
    if name == "source":
        return {**measure(*tuning.source("cpu")), "cpu": 0}
    if name.startswith("step 0"):
        return {**measure(*converted(target, way.by_source)), "cpu": 0}
    model, vocabulary, work = tuned(way, tokens, seed, target)
    return {**measure(model, vocabulary), **work}


def tuned(way: Way, tokens: int, seed: int = 0, target: str = "sp32k") -> tuple[Any, Vocabulary, dict[str, int]]:
    """Return a tuned model, its tokenizer, and the CPU seconds, steps and tokens of the tuning."""
    torch.manual_seed(seed)
    size = int(tokens * BYTES_PER_TOKEN * 1.3) // len(tuning.SLICES)
    text = [passage for name in tuning.SLICES for passage in tuning.draw_slice(name, "train", size, 2_000, seed)]
    source, own = catalog.load_vocabulary(tuning.SOURCE), catalog.load_vocabulary(target)
    read = blocks(text, own, seed)[: tokens // LENGTH]
    if way.source:
        model, vocabulary, read = load_model(tuning.SOURCE, device="cpu"), source, as_source(read, own, source)
    else:
        model, vocabulary = converted(target, way.by_source)
    model.train()
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    rows = [embedding] if head is embedding else [embedding, head]
    body = [weight for weight in model.parameters() if all(weight is not one for one in rows)]
    scale = math.sqrt(min(1.0, RATE_TOKENS / read.numel())) if way.falls else 1.0
    groups = [{"params": body, "lr": way.body}, {"params": rows, "lr": way.rows}]
    options: dict[str, Any] = {"weight_decay": 0.0, "fused": True}
    used = torch.unique(read)
    optimizer = FlooredAdamW(groups, head, used, **options) if way.floor else torch.optim.AdamW(groups, **options)
    steps = len(read) // way.batch
    first = round(way.stage1 * steps)
    began = time.process_time()
    loss_of: Any = nullcontext()
    if way.losses or way.states_first:
        teacher = SourceTeacher(load_model(tuning.SOURCE, device="cpu"), source, vocabulary)
    if way.states_first:
        distil_new_rows(model, teacher, vocabulary, read)
    if way.losses:
        objective = Objective.of(way.losses, model.config.num_hidden_layers)
        loss_of = RecoveryLoss(model, Head(model), teacher, vocabulary, objective, Processes(torch.device("cpu")))
    for step in range(steps):
        batch = read[step * way.batch : (step + 1) * way.batch]
        with loss_of:  # within its context, a RecoveryLoss computes the model's loss
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), way.clip)
        alone = step < first
        share = scale * _schedule(*((step, first) if alone else (step - first, steps - first)), way.warmup)
        optimizer.param_groups[0]["lr"] = way.body * share
        optimizer.param_groups[1]["lr"] = (way.stage1_rows if alone else way.rows) * share
        if alone:
            for weight in body:
                weight.grad = None
        optimizer.step()
        optimizer.zero_grad()
    cpu = time.process_time() - began
    return model, vocabulary, {"cpu": round(cpu), "steps": steps, "read": steps * way.batch * LENGTH}


def distil_new_rows(model: Any, teacher: SourceTeacher, vocabulary: Vocabulary, read: torch.Tensor) -> None:
    """Train the input rows of new tokens towards the source's hidden states after a layer (arXiv 2505.20133)."""
    rows = model.get_input_embeddings().weight
    is_new = torch.zeros(len(rows), 1)
    is_new[new_tokens(vocabulary, teacher.vocabulary)] = 1
    rate = ROWS_RATE * float(rows.detach().square().mean().sqrt())
    optimizer = torch.optim.AdamW([rows], lr=rate, weight_decay=0.0)
    batches = read.split(8)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        reading = teacher.read(batch, [ROWS_LAYER])
        here = reading.positions[~reading.positions.special & ~reading.positions.first]
        mine = states_after(model, batch, [ROWS_LAYER])[ROWS_LAYER].flatten(0, 1)[here.student[:, 1]]
        state_loss(mine, reading.layers[ROWS_LAYER][here.source[:, 1]]).backward()
        rows.grad *= is_new  # rows with a gradient of 0 do not change, since there is no weight decay
        optimizer.step()
        schedule.step()
        model.zero_grad()


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Return the share of the peak rate: linear warmup, then a cosine to 0."""
    rise = max(1, math.floor(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


if __name__ == "__main__":
    main()
