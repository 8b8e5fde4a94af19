r"""Check on one GPU that every CUDA path of the engine gives the same results as the CPU; takes at most 8 minutes.

    python benchmarks/gpu_check.py                         the GPU compared with the CPU, on real assets
    python benchmarks/gpu_check.py --device cpu --quick    the same program without a GPU, in small sizes

Two processes do the same work at the same time: one on the device, the other on the CPU with all GPUs hidden. With
`--device cpu` both run on the CPU; counts, GloVe and the exact search still use the code for GPUs. Tuning on the device
computes in bfloat16 and is compared with float32 on the CPU, so its tolerance is the widest. A failed check does not
stop the others, because its process is replaced. The exit code is 0 only if every check passed.

Not checked are the six tasks (they need lm-eval; their log-likelihoods come from the same code as "bits per byte"),
several GPUs, and counting on a cluster. **This program has not run on a GPU yet; no GPU was available.**

A machine without a network needs the assets as files. Copy these four from the cache of a machine that has them
($TOKALIGN_CACHE, else ~/.cache/tokalign-lab; `tokalign-lab assets get NAME` fetches one), and pass their paths. Any
text of about 500 kB can be used:

    python benchmarks/gpu_check.py --model assets/smollm2-135m-0.1.2 --target assets/sp32k-1.13.1 \
        --encoder assets/minilm-0.1.0 --text assets/default-1-*/default.jsonl

Run it from a checkout with PYTHONPATH set to its root. It needs torch, transformers, accelerate, numba, pandas,
pyarrow, psutil, rich, scipy and sentence-transformers. It does not need gensim, umap-learn, plotly, ipywidgets,
datasets or pydantic.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import limit_threads, parser, report

from tokalign_lab.documents import Document, read_documents, split_documents
from tokalign_lab.errors import InputError
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.progress import silent

TEXT_BYTES = {False: 500_000, True: 60_000}
RECIPES = (
    "anchored",
    "multivariate",
    "random",
)  # rows that are mixtures, random with the covariance of the source rows, random
EVERY = 8  # every eighth row of a matrix is compared

Found = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One of the two processes that do the same work.

    Attributes
    ----------
    device : str
        "cpu" or "cuda".
    reference : bool
        Whether this is the reference, which works without a GPU.
    model, target, encoder : str
        Folders of the source model, the target tokenizer and the sentence encoder.
    folder : Path
        Folder of the results of `prepare`.
    quick : bool
        Whether to use small sizes.
    """

    device: str
    reference: bool
    model: str
    target: str
    encoder: str
    folder: Path
    quick: bool

    @property
    def work(self) -> Path:
        """Folder of this process, with its cache, so that no process finds results of the other."""
        return self.folder / ("reference" if self.reference else "device")

    @property
    def text(self) -> str:
        """Path of the text, a JSONL file."""
        return str(self.folder / "text.jsonl")

    def documents(self) -> tuple[list[Document], list[Document]]:
        """Return the train and the held-out documents of the text."""
        return split_documents(read_documents([self.text]))

    def size(self, full: int, quick: int) -> int:
        """Return `quick` for small sizes, else `full`."""
        return quick if self.quick else full


def prepare(side: Side, text: str) -> None:
    """Make the inputs of the checks on the CPU: text, lexicons, and a student and a teacher with the same tokenizer."""
    from tokalign_lab import align, calibrate, load_vocabulary, save_model, tokenize_pair

    documents = read_documents([text], max_bytes=TEXT_BYTES[side.quick])
    train, held_out = split_documents(documents)
    with open(side.text, "w", encoding="utf-8") as file:
        for split, part in (("train", train), ("held_out", held_out)):
            file.writelines(json.dumps({**asdict(document), "split": split}) + "\n" for document in part)
    source, target = load_vocabulary(side.model), load_vocabulary(side.target)
    pair = tokenize_pair(source, target, train)
    for recipe in RECIPES:
        align(pair, recipe).lexicon.save(side.folder / f"{recipe}.parquet")
    student = rearrange(load_model(side.model), _lexicon(side, "anchored"), source, target)
    save_model(student, target, side.folder / "student")
    calibrate(student, target, train, side.size(20_000, 2_000))
    save_model(student, target, side.folder / "teacher")


def _lexicon(side: Side, recipe: str) -> Any:
    from tokalign_lab.alignment.lexicon import Lexicon

    return Lexicon.load(side.folder / f"{recipe}.parquet")


def _stream(side: Side) -> Any:
    """Return the train documents as target tokens, in the form that counting reads."""
    from tokalign_lab import load_vocabulary
    from tokalign_lab.corpus import Corpus
    from tokalign_lab.vectors.stream import make_stream

    target = load_vocabulary(side.target)
    corpus = Corpus.build(side.documents()[0], target)
    return make_stream(corpus.ids, corpus.offsets, target.size)


def _counts(side: Side, stream: Any, right_offset: int = 0) -> Any:
    from tokalign_lab.vectors.cooccurrence import count_contexts, to_float, weights_of
    from tokalign_lab.vectors.torch_backend import sum_contexts

    n = len(stream.ids)
    columns = np.arange(n, dtype=np.int32)
    if side.reference:
        return count_contexts(stream, columns, n + right_offset, right_offset=right_offset, device="cpu")
    weights = weights_of(15, stream.counts)
    return to_float(sum_contexts(stream, columns, n + right_offset, weights, right_offset, side.device))


def counts(side: Side) -> Found:
    """Count co-occurrences with both sides of the window together, and separately."""
    stream = _stream(side)
    together, apart = _counts(side, stream), _counts(side, stream, len(stream.ids))
    parts = {"together": together, "apart": apart}
    return {f"{name}_{field}": getattr(made, field) for name, made in parts.items() for field in vars(made)}


def glove(side: Side) -> Found:
    """Train GloVe, pair by pair on the CPU and in batches on a GPU; the losses are compared."""
    from tokalign_lab.vectors import glove, torch_backend

    settings = glove.GloveSettings(dimensions=side.size(300, 30), iterations=side.size(5, 3))
    counted = _counts(replace(side, device="cpu", reference=True), _stream(side))
    if side.reference:
        losses = glove.train_glove(counted, settings)[1]
    else:
        losses = torch_backend.train_glove(counted, settings, 0, silent, side.device)[1]
    return {"loss": losses}


def _embeddings(side: Side) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the source model's embedding rows with even ids and with odd ids, float32."""
    rows = load_model(side.model, device="cpu").get_input_embeddings().weight.detach().numpy()
    return rows[::2], rows[1::2]


def search(side: Side) -> Found:
    """Find nearest neighbours by CSLS among a model's rows; `block_search` and `gpu_search` must agree bit by bit."""
    from functools import partial

    from tokalign_lab.alignment.search import block_search, gpu_search
    from tokalign_lab.vectors.token_vectors import unit_rows

    queries, keys = (unit_rows(rows) for rows in _embeddings(side))
    best = block_search.best if side.reference else partial(gpu_search.best, side.device)
    _, of_queries, of_keys = best(queries, keys, 10, of_keys=True)
    penalty = of_keys.mean(axis=1, dtype=np.float64).astype(np.float32)
    longer = np.concatenate([2 * queries, np.full((len(queries), 1), -1, np.float32)], axis=1)
    positions, scores, _ = best(longer, np.concatenate([keys, penalty[:, None]], axis=1), 10)
    return {"of_queries": of_queries, "of_keys": of_keys, "positions": positions, "scores": scores}


def omp(side: Side) -> Found:
    """Approximate rows by 16 others (orthogonal matching pursuit); the relative residual of each row is compared."""
    from tokalign_lab.alignment.methods.omp import pursue

    atoms, vectors = (torch.tensor(rows) for rows in _embeddings(side))
    vectors = vectors[: side.size(2_000, 100)]
    chosen, weights = (torch.from_numpy(made) for made in pursue(vectors.to(side.device), atoms.to(side.device), 16))
    left = vectors - torch.einsum("nk,nkd->nd", weights, atoms[chosen])
    return {"left": (left.norm(dim=1) / vectors.norm(dim=1)).numpy()}


def hidden_states(side: Side) -> Found:
    """Compute the source model's hidden states of every target token."""
    from tokalign_lab import load_vocabulary
    from tokalign_lab.alignment.methods.pieces import spell
    from tokalign_lab.vectors.hidden_states import hidden_state_vectors

    source, target = load_vocabulary(side.model), load_vocabulary(side.target)
    model = load_model(side.model, device=side.device)
    vectors = hidden_state_vectors(model, source, target, np.zeros(target.size, np.int64), spell=spell)
    return {"rows": vectors.rows}


def rearranged(side: Side) -> Found:
    """Make new rows by lexicons that copy, mix and draw rows."""
    from tokalign_lab import load_vocabulary

    source, target = load_vocabulary(side.model), load_vocabulary(side.target)
    model = load_model(side.model, device=side.device)
    made = {name: rearrange(model, _lexicon(side, name), source, target) for name in RECIPES}
    return {
        f"{name}_{which}": _some_rows(getattr(new, f"get_{which}_embeddings")())
        for name, new in made.items()
        for which in ("input", "output")
    }


def _some_rows(module: Any) -> np.ndarray[Any, Any]:
    return module.weight.detach()[::EVERY].float().cpu().numpy()


def calibrated(side: Side) -> Found:
    """Calibrate the student's output."""
    from tokalign_lab import calibrate, load_vocabulary

    model = load_model(str(side.folder / "student"), device=side.device)
    target = load_vocabulary(side.target)
    done = calibrate(model, target, side.documents()[0], side.size(20_000, 2_000))
    nats = np.array([[done.nats_before], [done.nats_after]])
    return {
        "head": _some_rows(model.get_output_embeddings()),
        "nats": nats,
        "note": f"{done.nats_before:.3f} to {done.nats_after:.3f} nats per token",
    }


def _bits(side: Side, dtype: torch.dtype) -> Found:
    from tokalign_lab import bits_per_byte, load_vocabulary
    from tokalign_lab.documents import excerpts

    model = load_model(str(side.folder / "teacher"), device=side.device, dtype=dtype)
    text = excerpts(side.documents()[1], side.size(20_000, 2_000))
    found = bits_per_byte(model, load_vocabulary(side.target), text)
    values = [found.bits_per_byte, *found.by_slice.values()]
    return {"bits": values, "note": f"{found.bits_per_byte:.4f} bits per byte"}


def bits(side: Side) -> Found:
    """Score held-out text in float32."""
    return _bits(side, torch.float32)


def bits_in_bfloat16(side: Side) -> Found:
    """Score held-out text in bfloat16; the reference computes in float32."""
    return _bits(side, torch.float32 if side.reference else torch.bfloat16)


def encoder(side: Side) -> Found:
    """Encode texts."""
    from tokalign_lab.evaluation.encoder import Encoder

    read = Encoder(side.encoder).read([document.text for document in side.documents()[1]][: side.size(64, 4)])
    return {"sentence": [text.sentence for text in read]}


def writing(side: Side) -> Found:
    """Generate text with the teacher, greedily; the number of different texts is compared."""
    from tokalign_lab import load_vocabulary
    from tokalign_lab.adaptation.teacher_text import write_text
    from tokalign_lab.settings.kinds import WritingSettings

    model = load_model(str(side.folder / "teacher"), device=side.device)
    settings = WritingSettings(documents=16, prompt_tokens=8, new_tokens=side.size(32, 4), temperature=0)
    out = side.work / "written.jsonl"
    write_text(model, load_vocabulary(side.target), *side.documents(), settings, out)
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {"text": [line["text"] for line in written if line["split"] == "train"]}


def _tuned(side: Side, name: str, **more: Any) -> Found:
    """Tune the student in both stages; the loss of each step and bits per byte after it are compared."""
    from tokalign_lab.adaptation.settings import AdaptSettings
    from tokalign_lab.adaptation.train import adapt

    settings = AdaptSettings(
        **{
            "steps": side.size(8, 2),
            "stage1_share": 0.5,  # both stages
            "batch_size": side.size(4, 2),
            "sequence_length": side.size(256, 32),
            "evaluate_bytes": side.size(10_000, 1_000),
            "prompts": ("The capital of France is",),
            "bf16": not side.reference,
            "warmup_ratio": 0.25,
            **more,
        }
    )
    events: list[dict[str, Any]] = []
    student, folder = str(side.folder / "student"), side.work / name
    adapt(student, [side.text], settings, folder, events.append, device=side.device)
    of_kind = {kind: [event for event in events if event["kind"] == kind] for kind in ("step", "evaluation")}
    losses = [event["loss"] for event in of_kind["step"]]
    values = [event["bits_per_byte"] for event in of_kind["evaluation"]]
    return {"loss": losses, "bits": values, "note": f"loss {losses[0]:.3f} to {losses[-1]:.3f}"}


def tuning(side: Side) -> Found:
    """Tune in bfloat16."""
    return _tuned(side, "tuning")


def tuning_in_float32(side: Side) -> Found:
    """Tune in float32, without attention across documents, with gradient checkpointing and two batches per step."""
    apart = {"bf16": False, "cross_documents": False, "gradient_checkpointing": True, "gradient_accumulation_steps": 2}
    return _tuned(side, "tuning_in_float32", **apart)


def distillation(side: Side) -> Found:
    """Tune in bfloat16 with a teacher that runs live at each step."""
    return _tuned(side, "distillation", teacher=str(side.folder / "teacher"), distillation_temperature=2.0)


def distillation_kept(side: Side) -> Found:
    """Tune in bfloat16 on a teacher's most likely tokens, which are stored before the first step."""
    teacher = str(side.folder / "teacher")
    return _tuned(side, "distillation_kept", teacher=teacher, distillation_top_k=side.size(64, 8))


def utilisation(side: Side) -> Found:
    """Measure model FLOP utilisation of both stages; it is reported, not compared."""
    if side.reference:
        return {}
    import utilisation as program

    if side.quick:
        program.SIDES, program.SECONDS = dict.fromkeys(program.SIDES, 512), 0.1
    rows = [
        program.utilisation(str(side.folder / "student"), stage, 6 if side.device == "cuda" else 2, side.size(8, 1),
                side.size(1024, 32), False, text=side.text)
        for stage in (1, 2)
    ]  # fmt: skip
    note = "; ".join(f"stage {row['stage']}: {row['tokens_per_second']:,.0f} tokens per second" for row in rows)
    shares = ", ".join(f"{row['utilisation']:.1%}" for row in rows)
    return {"note": f"{note}; {shares} of the bare product in {rows[0]['computed_in']}"}


Measure = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], float]


def unequal(tried: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the number of entries that differ."""
    return float((tried != expected).sum())


def apart(tried: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the largest absolute difference."""
    return float(np.abs(tried - expected).max())


def relative(tried: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the largest relative difference."""
    return float((np.abs(tried - expected) / np.abs(expected)).max())


def of_rows(tried: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the largest norm of a row's difference, relative to the mean norm of the rows."""
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
    return float(np.linalg.norm(tried.astype(np.float64) - expected, axis=1).max() / lengths.mean())


@dataclass(frozen=True)
class Check:
    """Work that both processes do, and the largest allowed difference of the results."""

    name: str
    work: Callable[[Side], Found]
    measure: Measure
    allowed: float
    unit: str


CHECKS = (
    Check("co-occurrence counts", counts, unequal, 0, "unequal entries"),
    Check("GloVe", glove, relative, 0.05, "of the loss"),
    Check("exact search by CSLS", search, unequal, 0, "unequal entries"),
    Check("orthogonal matching pursuit", omp, apart, 0.01, "of a row"),
    Check("hidden states", hidden_states, of_rows, 1e-3, "of a row"),
    Check("rearrange", rearranged, of_rows, 1e-4, "of a row"),
    Check("calibrate", calibrated, of_rows, 1e-3, "of a row"),
    Check("bits per byte", bits, apart, 1e-3, "bits per byte"),
    Check("bits per byte, bfloat16", bits_in_bfloat16, apart, 0.03, "bits per byte"),
    Check("sentence encoder", encoder, of_rows, 1e-3, "of a row"),
    Check("text written by a teacher", writing, unequal, 2, "texts of 16"),
    Check("tuning, bfloat16", tuning, apart, 0.05, "nats; bits per byte"),
    Check("tuning, float32, documents apart", tuning_in_float32, apart, 5e-3, "nats; bits per byte"),
    Check("distillation, live teacher", distillation, apart, 0.1, "nats; bits per byte"),
    Check("distillation, kept predictions", distillation_kept, apart, 0.1, "nats; bits per byte"),
    Check("utilisation", utilisation, apart, 0, "(not compared)"),
)


def row_of(check: Check, tried: Found, expected: Found) -> dict[str, Any]:
    """Compare the results of both processes; return a row of the table."""
    error = tried.get("error") or expected.get("error")
    difference: float | None = None
    if error is None:
        differences = []
        for name in expected.keys() - {"note", "seconds"}:
            ours, theirs = np.asarray(tried[name]), np.asarray(expected[name])
            differences.append(check.measure(ours, theirs) if ours.shape == theirs.shape else float("inf"))
        difference = max(differences, default=0.0)
    good = difference is not None and difference <= check.allowed  # False for NaN
    return {
        "check": check.name,
        "ok": "ok" if good else "NOT OK",
        "device_s": tried.get("seconds"),
        "cpu_s": expected.get("seconds"),
        "difference": "" if difference is None else f"{difference:.2g}",
        "allowed": f"{check.allowed:g} {check.unit}",
        "note": error or tried.get("note", ""),
    }


def _set_up(side: Side) -> None:
    """Set up a process before it looks for a GPU."""
    if side.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["TOKALIGN_CACHE"] = str(side.work / "cache")
    side.work.mkdir(exist_ok=True)


def _process(side: Side) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_up, (side,))


def _timed(work: Callable[[Side], Found], side: Side) -> Found:
    started = time.perf_counter()
    try:
        found = work(side)
        if side.device != "cpu":
            torch.cuda.synchronize()
    except Exception:
        traceback.print_exc()
        raise
    return {**found, "seconds": time.perf_counter() - started}


def _one_side(checks: Sequence[Check], side: Side, until: float, report: Callable[[Check, Found], None]) -> None:
    """Do all checks of one side, one after another, in one process, which is replaced after a failure."""
    pool: ProcessPoolExecutor | None = None
    for check in checks:
        pool = pool or _process(side)
        try:
            found = pool.submit(_timed, check.work, side).result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            found = {"error": "The time limit was reached."}
        except Exception as error:  # continue with the other checks after any error
            found = {"error": f"{'CPU' if side.reference else side.device}: {type(error).__name__}: {error}"}
        if "error" in found:
            pool.shutdown(wait=False, cancel_futures=True)
            pool = None  # after a CUDA error, all later calls in that process fail too
        report(check, found)
    if pool is not None:
        pool.shutdown()


def run(checks: Sequence[Check], sides: Sequence[Side], until: float) -> list[dict[str, Any]]:
    """Run all checks on both devices; return the rows of the table, and print each as soon as it is known."""
    found: dict[str, dict[bool, Found]] = {check.name: {} for check in checks}
    rows: dict[str, dict[str, Any]] = {}
    lock = threading.Lock()

    def report(reference: bool, check: Check, result: Found) -> None:
        with lock:
            found[check.name][reference] = result
            if len(found[check.name]) == 2:
                rows[check.name] = row = row_of(check, found[check.name][False], found[check.name][True])
                print(json.dumps(row), file=sys.stderr, flush=True)

    threads = [
        threading.Thread(target=_one_side, args=(checks, side, until, functools.partial(report, side.reference)))
        for side in sides
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in multiprocessing.active_children():  # processes that reached the time limit
        process.kill()
    return [rows[check.name] for check in checks]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--model", default="smollm2-135m", help="source model: a name or a folder")
    options.add_argument("--target", default="sp32k", help="target tokenizer: a name or a folder")
    options.add_argument("--encoder", default="minilm", help="sentence encoder: a name or a folder; '' for none")
    options.add_argument("--text", default="default", help="a name or a file")
    options.add_argument(
        "--minutes", type=float, default=8, help="time limit; checks that have not finished by then fail"
    )
    options.add_argument("--only", nargs="+", default=(), help="run only checks whose names begin with one of these")
    options.set_defaults(threads=os.cpu_count())
    given = options.parse_args()
    until = time.monotonic() + 60 * given.minutes
    limit_threads(given.threads, gpu=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        rows = _check(given, until)
    except InputError as error:
        sys.exit(str(error))
    notes = [f"{row['check']}: {note}" for row in rows if (note := row.pop("note"))]
    notes += [
        "Seconds are those of each side; both ran at the same time. The reference is the CPU in float32.",
        f"{given.threads} threads, {TEXT_BYTES[given.quick]:,} bytes of text.",
    ]
    report(f"Every CUDA path on {given.device}, compared with the CPU", [("Checks", rows)], notes, given.out)
    sys.exit(any(row["ok"] != "ok" for row in rows))


def _check(given: Any, until: float) -> list[dict[str, Any]]:
    from tokalign_lab.device import pick_device

    pick_device(given.device)
    checks = [check for check in CHECKS if not given.only or check.name.startswith(tuple(given.only))]
    if not given.encoder:
        checks = [check for check in checks if check.work is not encoder]
    assets = [_path(name) for name in (given.model, given.target, given.encoder)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        side = Side("cpu", True, *assets, Path(folder), given.quick)
        with _process(side) as pool:
            pool.submit(prepare, side, _path(given.text)).result()
        return run(checks, [replace(side, device=given.device, reference=False), side], until)


def _path(name: str) -> str:
    """Return the path of an asset of the catalogue; any other name is a path."""
    from tokalign_lab import catalog

    return str(catalog.get(name)) if catalog.is_known(name) else name


if __name__ == "__main__":
    main()
