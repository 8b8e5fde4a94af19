"""Inject damage, kills, full disks and missing permissions by seed, and compare with the undisturbed result.

    python benchmarks/faults.py --out benchmarks/results/faults.jsonl
    python benchmarks/faults.py --injections 100 --seed 7

Every artefact is made by a small piece of work: a tokenised corpus, counts, vectors, a tokenizer's table and a layout
in the cache, a lexicon, edits, run folders, a checkpoint. For each, four kinds of fault are injected:

- damage: a file is torn, emptied, zeroed, made longer, or has a bit flipped or some bytes replaced; then the work is
  done again. A cache and a checkpoint must give the undisturbed result; what a person keeps may be refused instead.
- kill: the process is killed at one of its file operations; then the work is done again, with the undisturbed result.
- full disk: no file may grow beyond 64 bytes; the work must end in one sentence and leave nothing behind.
- no permission: the folder may not be written to; one sentence, nothing behind. Injected where the bench runs as root.

Kills and disks happen in a copy of the process, so that an injection takes milliseconds. What is neither the right
result nor one `InputError` counts as failed, and is printed with its number.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Threads do not survive a fork: neither OpenMP's nor those of tokenizers, whoever asked for them.
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NUMBA_NUM_THREADS"] = "1"  # before numba is imported: it refuses another number later

import numpy as np
from harness import limit_threads, parser, report

from tokalign_lab.adaptation.checkpoints import latest_checkpoint
from tokalign_lab.adaptation.stages import Stage
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.edits import LexiconEdits
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError, plain_disk_errors
from tokalign_lab.files import seal, write_json
from tokalign_lab.projection import project
from tokalign_lab.runs.control import list_runs
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.trash import delete_run, restore_run
from tokalign_lab.vectors.glove import GloveSettings, glove_vectors
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

KINDS = ("damage", "kill", "full disk", "no permission")
_FULL_BYTES = 64  # how large a file may become on the full disk
_NOBODY = 65_534
_TEXT = "The quick brown fox jumps over the lazy dog; seventeen small birds sing about rain, bread and quiet rivers.\n"
_KILLED, _SAID, _FAILED = -signal.SIGKILL, 3, 4
# What Python tells of the work of a process with files, by the names of its audit events.
_OPERATIONS = (
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
    "tempfile",
    "shutil",
)


@dataclass(frozen=True)
class Artefact:
    """Something that is kept in files.

    Attributes
    ----------
    make : Callable
        Does the work in a folder, or finds it done there; returns the result as bytes.
    files : str
        Below the folder, what can be damaged: a glob.
    again : bool
        Whether damage is mended by doing the work again; otherwise it may be refused.
    """

    make: Callable[[Path], bytes]
    files: str
    again: bool = True


class Shared:
    """Tokenizers and a lexicon that all jobs use, made once."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        self.folder = folder
        self.vocabularies: list[Vocabulary] = []
        for size in (280, 300):
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                vocab_size=size, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
            )
            tokenizer.train_from_iterator([_TEXT], trainer)
            fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
            fast.save_pretrained(folder / str(size))
            self.vocabularies.append(Vocabulary.from_tokenizer(fast, str(size)))
        write_json(folder / "map.json", {str(i): i for i in range(0, 270, 2)})
        self.lexicon = Lexicon.from_json(folder / "map.json", *self.vocabularies)
        self.corpus = Corpus.build([Document(_TEXT * 20, "a", "a")], self.vocabularies[0])
        rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
        self.vectors = TokenVectors(np.arange(40), rows, np.ones(40, np.int64), "x")

    def artefacts(self) -> dict[str, Artefact]:
        """Every artefact by its name."""
        return {
            "corpus": Artefact(self._corpus, "corpora/**/*"),
            "counts": Artefact(self._vectors, "counts/**/*"),
            "vectors": Artefact(self._vectors, "vectors/**/*"),
            "token table": Artefact(self._table, "vocabularies/**/*"),
            "layout": Artefact(self._layout, "projections/**/*"),
            "checkpoint": Artefact(self._checkpoint, "checkpoints/**/*"),
            "lexicon": Artefact(self._lexicon, "lexicon.parquet", again=False),
            "edits": Artefact(self._edits, "edits.json", again=False),
            "run": Artefact(self._runs, "runs/*/*", again=False),
        }

    def _corpus(self, folder: Path) -> bytes:
        corpus = Corpus.build([Document(_TEXT * 3, "a", "a"), Document(_TEXT, "b", "b")], self.vocabularies[0])
        return bytes(corpus.ids) + corpus.offsets.tobytes() + corpus.byte_lengths.tobytes()

    def _vectors(self, folder: Path) -> bytes:
        made = glove_vectors(self.corpus, self.vocabularies[0].size, GloveSettings(dimensions=4, iterations=1))
        return made.ids.tobytes() + made.rows.tobytes() + made.counts.tobytes()

    def _table(self, folder: Path) -> bytes:
        read = load_vocabulary(str(self.folder / "280"))
        return repr((read.token_bytes, read.roles, read.fingerprint, read.is_control.tolist())).encode()

    def _layout(self, folder: Path) -> bytes:
        return project([self.vectors], "pca")[0].xy.tobytes()

    def _checkpoint(self, folder: Path) -> bytes:
        """Write a checkpoint, or find a whole one; the content of its files."""
        root, stage = folder / "checkpoints", Stage(1, 0, 4, 1e-3)
        found = latest_checkpoint(root, [stage])
        if found is None or found.step < 2:
            path = root / "stage1" / "checkpoint-2"
            with plain_disk_errors(path):  # as the worker of a run does
                path.mkdir(parents=True, exist_ok=True)
                for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"):
                    (path / name).write_bytes(name.encode() * 20)
                seal(path)
            found = latest_checkpoint(root, [stage])
        assert found is not None
        names = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")
        return b"".join((found.path / name).read_bytes() for name in names)

    def _lexicon(self, folder: Path) -> bytes:
        path = folder / "lexicon.parquet"
        if not path.exists():
            self.lexicon.save(path)
        found = Lexicon.load(path)
        return found.table.to_json().encode() + found.reverse.to_json().encode() + json.dumps(found.provenance).encode()

    def _edits(self, folder: Path) -> bytes:
        edits = LexiconEdits(self.lexicon, folder / "edits.json")
        if not edits.done:
            edits.choose(4, 6)
        return repr([(edit.target_id, edit.action, edit.source_id, edit.pieces) for edit in edits.done]).encode()

    def _runs(self, folder: Path) -> bytes:
        """Make a run, end it, delete it and take it back; what a list of runs shows."""
        root = folder / "runs"
        path = root / "one"
        if not (path / "run.json").exists() and not (root / ".trash" / "one").exists():
            RunFolder.create(path, "align", {"source": "a", "target": "b"})
        if path.exists():
            run = RunFolder(path)
            run.emit({"kind": "progress", "share": 1.0, "message": "done"})
            if run.state == "damaged":
                raise InputError(str(run.info()["error"]))
            run.update(state="finished")
            run.entitle("the first one")
            delete_run(run)
        restore_run("one", root)
        (run,) = list_runs(root)
        return repr((run.name, run.title, run.state)).encode()


# --- faults


def damaged(content: bytes, draw: np.random.Generator) -> tuple[str, bytes]:
    """Damage a file's content in one of six ways."""
    at = int(draw.integers(max(len(content), 1)))
    ways: dict[str, Callable[[], bytes]] = {
        "torn": lambda: content[:at],
        "empty": lambda: b"",
        "zeros": lambda: bytes(len(content)),
        "longer": lambda: content + draw.bytes(int(draw.integers(1, 50))),
        "flipped": lambda: content[:at] + bytes([content[at] ^ (1 << int(draw.integers(8)))]) + content[at + 1 :],
        "replaced": lambda: content[:at] + draw.bytes(8) + content[at + 8 :],
    }
    way = str(draw.choice(list(ways))) if content else "longer"
    return way, ways[way]()


def in_a_copy(work: Callable[[], Any], before: Callable[[], None]) -> int:
    """Do work in a copy of this process after `before`; returns its exit code, or less than 0 for a signal."""
    child = os.fork()
    if not child:
        code = _FAILED
        try:
            before()
            work()
            code = 0
        except InputError as error:
            code = _SAID if "\n" not in str(error) else _FAILED
        except BaseException:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(operation: int) -> None:
    """Kill this process at its nth operation on files."""
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event.startswith(_OPERATIONS):
            seen += 1
            if seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def fill_disk() -> None:
    """Let no file of this process grow beyond a few bytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FULL_BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def take_permission() -> None:
    """Be a user who owns nothing here."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


# --- injections


@contextmanager
def _fresh(folder: Path, template: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder that is the cache, or one like `template`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder) if template else folder.mkdir(parents=True)
    os.environ["TOKALIGN_CACHE"] = str(folder)
    yield folder


def operations_of(artefact: Artefact, work: Path) -> int:
    """Count the file operations of a piece of work: the last one at which it can be killed."""
    first, last = 0, 4096
    while last - first > 1:
        middle = (first + last) // 2
        with _fresh(work) as folder:
            killed = in_a_copy(partial(artefact.make, folder), partial(kill_at, middle)) == _KILLED
        first, last = (middle, last) if killed else (first, middle)
    return first


def inject(
    kind: str,
    artefact: Artefact,
    good: Path,
    expected: bytes,
    work: Path,
    draw: np.random.Generator,
    operations: int,
) -> str:
    """Inject one fault; returns "" where all went well, else what did not."""
    if kind == "damage":
        with _fresh(work, good) as folder:
            found = [file for file in sorted(folder.glob(artefact.files)) if file.is_file()]
            file = found[int(draw.integers(len(found)))]
            way, content = damaged(file.read_bytes(), draw)
            file.write_bytes(content)
            return _judge(artefact, folder, expected, not artefact.again, f"{file.name} {way}")
    if kind == "kill":
        with _fresh(work) as folder:
            operation = int(draw.integers(1, operations + 1))
            code = in_a_copy(partial(artefact.make, folder), partial(kill_at, operation))
            if code != _KILLED:
                return f"to be killed at operation {operation}: exit code {code}"
            return _judge(artefact, folder, expected, False, f"killed at operation {operation}")
    with _fresh(work) as folder:
        folder.chmod(0o755)
        code = in_a_copy(partial(artefact.make, folder), fill_disk if kind == "full disk" else take_permission)
        half = [str(path.relative_to(folder)) for path in folder.rglob(".*-????????*")]
        if code not in (0, _SAID):
            return f"exit code {code}"
        if half:
            return f"left {half[0]}"
        return _judge(artefact, folder, expected, False, "with space again")


def _judge(artefact: Artefact, folder: Path, expected: bytes, may_refuse: bool, what: str) -> str:
    try:
        found = artefact.make(folder)
    except InputError as error:
        return "" if may_refuse and "\n" not in str(error) else f"{what}: {error}"
    except Exception as error:
        traceback.print_exc()
        return f"{what}: {type(error).__name__}: {error}"
    return "" if found == expected else f"{what}: another result"


def run(injections: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[str]]:
    """Inject that many faults of each kind into each artefact.

    Returns
    -------
    rows, failures
        What was injected, survived and failed by kind and artefact; a sentence for each failure.
    """
    logging.getLogger("tokalign_lab").setLevel(logging.ERROR)
    rows, failures = [], []
    before = os.environ.get("TOKALIGN_CACHE")
    with tempfile.TemporaryDirectory(prefix="tokalign-faults-") as name:
        Path(name).chmod(0o755)
        for place, (of, artefact) in enumerate(Shared(Path(name) / "shared").artefacts().items()):
            with _fresh(Path(name) / "good") as good:
                expected = artefact.make(good)
                if artefact.make(good) != expected:
                    raise AssertionError(f"{of} does not give the same result twice")
            operations = operations_of(artefact, Path(name) / "work")
            for kind in KINDS if os.getuid() == 0 else KINDS[:-1]:
                failed = 0
                for number in range(injections if kind in ("damage", "kill") else min(injections, 3)):
                    draw = np.random.default_rng([seed, place, KINDS.index(kind), number])
                    wrong = inject(kind, artefact, good, expected, Path(name) / "work", draw, operations)
                    if wrong:
                        failed += 1
                        failures.append(f"{kind} of {of}, seed {seed}, number {number}: {wrong}")
                done = number + 1
                rows.append({"kind": kind, "of": of, "injected": done, "survived": done - failed, "failed": failed})
    os.environ.pop("TOKALIGN_CACHE") if before is None else os.environ.update(TOKALIGN_CACHE=before)
    return rows, failures


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--injections", type=int, default=600, help="of damage and of kills, into each artefact")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    limit_threads(1)
    rows, failures = run(20 if chosen.quick else chosen.injections, chosen.seed)
    names = ("injected", "survived", "failed")
    total = [{"kind": kind, **{n: sum(r[n] for r in rows if r["kind"] == kind) for n in names}} for kind in KINDS]
    notes = [*failures[:20], f"{sum(row['injected'] for row in rows):,} injected, {len(failures):,} failed."]
    report("Faults", [("By kind", total), ("By kind and artefact", rows)], notes, chosen.out)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
