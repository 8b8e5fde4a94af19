"""Inject damaged files, kills, full disks and missing permissions, and compare with the undisturbed result.

    python benchmarks/faults.py --out benchmarks/results/faults.jsonl
    python benchmarks/faults.py --injections 100 --seed 7

An artefact is the result of a small piece of work. The artefacts are: a tokenised corpus, counts, vectors, a token
table and a layout in the cache; a lexicon, edits, run folders, a checkpoint and the view of a lab; the runs of all
eight kinds on a tiny model; and the results of all commands that write files outside of a run. For each, up to five
kinds of fault are injected:

- damage: a file is cut off, emptied, zeroed or made longer, or a bit is flipped or bytes are replaced; then the work is
  repeated. A cache and a checkpoint must give the undisturbed result; files that users keep may be refused instead.
- kill: the process is killed at one of its file operations; repeating the work must give the undisturbed result.
- two at once: two processes do the work in one folder; each must end with the result or with one `InputError`.
- full disk: no file may grow beyond 64 bytes; the work must end with one `InputError` and leave no file behind.
- no permission: the folder is read-only; the same must hold. Injected only if the program runs as root.

Each kill and full disk happens in a fork of the process, so that an injection takes milliseconds. Any other outcome
counts as failed and is printed with the number of the injection; so does one that takes more than two minutes or 4 GiB.
With `--out`, a stopped program continues after the last complete block of 25 injections.

The commands `demo` and `gallery record` are left out, because they repeat the same steps for minutes or an hour; so are
`app`, which is a server, and commands that write only to the cache.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

# Threads do not survive a fork: neither those of OpenMP nor those of tokenizers. So nothing may start any.
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NUMBA_NUM_THREADS"] = "1"  # before numba is imported: it refuses another number later

import numpy as np
from harness import Kept, limit_threads, parser, report
from typer.testing import CliRunner

from tokalign_lab.adaptation.checkpoints import latest_checkpoint
from tokalign_lab.adaptation.stages import Stage
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.edits import LexiconEdits
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.cli import app
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document
from tokalign_lab.draft import was_interrupted
from tokalign_lab.errors import InputError, plain_disk_errors
from tokalign_lab.files import seal, write_json
from tokalign_lab.locks import lock
from tokalign_lab.model import llama_cpp
from tokalign_lab.projection import project
from tokalign_lab.runs import process
from tokalign_lab.runs.control import gallery_root, list_runs
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.kinds import run_kind
from tokalign_lab.runs.trash import delete_run, restore_run
from tokalign_lab.runs.worker import RunContext
from tokalign_lab.vectors.glove import GloveSettings, glove_vectors
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets.common.state import LabState

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny import tiny_model

KINDS = ("damage", "kill", "two at once", "full disk", "no permission")
_BLOCK = 25  # injections per line of `--out`
_MOST_SECONDS, _MOST_BYTES = 120, 4 * 2**30  # limits of time and memory for an injection
_FULL_BYTES = 64  # maximum size of a file on the full disk
_NOBODY = 65_534
_SHARES = {"align": 0.1, "export": 0.083, "rearrange": 0.04, "generate": 0.02, "draft": 0.01, "report": 0.01}
# For commands that complete an earlier call's unfinished folder: the file that they write last.
_LAST = {"prepare": "run.json", "notebooks": "always again"}
_TEXT = "The quick brown fox jumps over the lazy dog; seventeen small birds sing about rain, bread and quiet rivers.\n"
_KILLED, _REFUSED, _FAILED = -signal.SIGKILL, 3, 4
# Names of Python's audit events for file operations.
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
    """A result that is stored in files.

    Attributes
    ----------
    make : Callable
        Does the work in a folder, or finds its result there; returns the result as bytes.
    files : str
        Glob of the files in the folder that are damaged; "" if they belong to other artefacts.
    again : bool
        Whether repeating the work must repair damage; otherwise it may refuse the damaged file.
    share : float
        Number of faults relative to the other artefacts; below 1 if the work takes long.
    """

    make: Callable[[Path], bytes]
    files: str
    again: bool = True
    share: float = 1.0

    def injections(self, kind: str, n: int) -> int:
        """Return the number of faults of a kind, if n faults of the kind "damage" were asked for."""
        if kind == "damage" and not self.files:
            return 0
        of_kind = {"damage": n, "kill": n, "two at once": n // 5}.get(kind, min(n, 3))
        return max(int(of_kind * self.share), 1)


class Shared:
    """Tokenizers and a lexicon that all artefacts use, made once."""

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
            self.vocabularies.append(Vocabulary.from_tokenizer(fast, str(folder / str(size))))
        write_json(folder / "map.json", {str(i): i for i in range(0, 270, 2)})
        self.lexicon = Lexicon.from_json(folder / "map.json", *self.vocabularies)
        self.corpus = Corpus.build([Document(_TEXT * 20, "a", "a")], self.vocabularies[0])
        rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
        self.vectors = TokenVectors(np.arange(40), rows, np.ones(40, np.int64), "x")
        self.lexicon.save(folder / "lexicon.parquet")
        self.vectors.save(folder / "vectors.npz")
        for vocabulary in self.vocabularies:
            tiny_model("llama", vocabulary.size).save_pretrained(vocabulary.name)
        shutil.copytree(folder / "280", folder / "small")
        tiny_model("gpt_neox", self.vocabularies[0].size).save_pretrained(folder / "small")  # can be calibrated
        # A stand-in for llama.cpp's converter.
        program = "import shutil, sys\nshutil.copyfile(sys.argv[1] + '/model.safetensors', sys.argv[3])\n"
        (folder / "convert_hf_to_gguf.py").write_text(program, encoding="utf-8")
        llama_cpp.is_installed = lambda: False
        for name, lines in (("text.txt", 40), ("long.txt", 400)):
            (folder / name).write_text("".join(f"{number}. {_TEXT}" for number in range(lines)), encoding="utf-8")

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
            "align run": Artefact(partial(self._run, "align"), "", share=0.05),
            "rearrange run": Artefact(partial(self._run, "rearrange"), "", share=0.05),
            "adapt run": Artefact(partial(self._run, "adapt"), "", share=0.05),
            "measure run": Artefact(partial(self._run, "measure"), "", share=0.05),
            "score run": Artefact(partial(self._run, "score"), "", share=0.05),
            "compare run": Artefact(partial(self._run, "compare"), "", share=0.05),
            "project run": Artefact(partial(self._run, "project"), "", share=0.05),
            "advise run": Artefact(partial(self._run, "advise"), "", share=0.05),
            "lab state": Artefact(self._lab_state, "lab.json"),
            **{
                f"{name} command": Artefact(partial(self._command, name), "", share=_SHARES.get(name, 0.042))
                for name in self._commands()
            },
            "score command": Artefact(self._score_command, "", share=0.042),
            "doctor command": Artefact(self._doctor_command, "", share=0.042),
            "runs commands": Artefact(self._runs_commands, "", share=0.01),
            "resume command": Artefact(self._resume_command, "", share=0.01),
            "assets command": Artefact(self._assets_command, "", share=0.01),
        }

    def _commands(self) -> dict[str, tuple[str, str]]:
        """Return the commands that write one result: name of the result and its option, and the other arguments."""
        source, target, lexicon = f"{self.folder}/280", f"{self.folder}/300", f"{self.folder}/lexicon.parquet"
        text, writing = f"--text {self.folder}/text.txt", "--documents 20 --prompt-tokens 8 --new-tokens 4"
        return {
            "align": ("a.parquet --out", f"align {source} {target} {text} --recipe pieces"),
            "rearrange": ("moved --out", f"rearrange {source} {lexicon}"),
            "export": ("model.gguf --gguf", f"export {source} --converter {self.folder}"),
            "train": ("trained --out", f"tokenizer train {text} --size 270"),
            "extend": ("extended --out", f"tokenizer extend {source} {text} --add 5"),
            "prepare": ("run --run", f"adapt {source} {text} --prepare --steps 1 --batch-size 1 --sequence-length 16"),
            "notebooks": ("lessons", "notebooks"),
            "generate": ("written.jsonl --out", f"generate {source} --text {self.folder}/long.txt {writing}"),
            "draft": ("drafts --out", f"draft {self.folder}/small --for {target} {text} --prompts 1 --new-tokens 4"),
            "report": ("report.html --out", f"report {gallery_root() / 'recorded-align-anchored'}"),
        }

    def _command(self, name: str, folder: Path) -> bytes:
        """Run a command unless its result exists; return the content of the result without times."""
        result, words = self._commands()[name]
        file, _, option = result.partition(" ")
        if not (folder / file / _LAST.get(name, "")).exists() or was_interrupted(folder / file):
            call(*words.split(), *option.split(), folder / file)
        return content_of(folder / file)

    def _score_command(self, folder: Path) -> bytes:
        lexicon = folder / "lexicon.parquet"
        if not lexicon.exists():
            self.lexicon.save(lexicon)
        call("score", lexicon, "--text", self.folder / "text.txt", "--encoder", "")
        return content_of(lexicon)

    def _assets_command(self, folder: Path) -> bytes:
        call("assets", "get", "default")
        return content_of(folder / "assets")

    def _doctor_command(self, folder: Path) -> bytes:
        """Remove the files that killed processes left in the cache; return the names of the remaining files."""
        os.environ["TOKALIGN_RUNS"] = str(folder / "runs")
        if not (folder / "swept").exists():
            with plain_disk_errors(folder):
                for name in ("corpora/.a-12345678/ids", "corpora/b/ids", ".c-12345678.json"):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).touch()
                    for path in (folder / name, (folder / name).parent):
                        os.utime(path, (0, 0))
                (folder / "swept").touch()
        call("doctor", "--clean")
        return repr(sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))).encode()

    def _runs_commands(self, folder: Path) -> bytes:
        """Rename a run, delete and restore it; make another run, and delete it permanently."""
        root = folder / "runs"
        for name in ("one", "two"):
            if name == "two" and not (root / "one").exists():
                call("runs", "restore", "one", "--root", root)
            if not any((place / name / "run.json").exists() for place in (root, root / ".trash")):
                RunFolder.create(root / name, "align", {"source": "a", "target": "b"}).update(state="finished")
            if (root / name).exists():
                call("runs", "rename", root / name, f"run {name}")
                call("runs", "delete", root / name)
        call("runs", "trash", "--empty", "--root", root)
        return repr([(run.name, run.title, run.state) for run in list_runs(root)]).encode()

    def _resume_command(self, folder: Path) -> bytes:
        """Start a run in its worker process, and follow it to its end."""
        process.WORKER = (str(Path(__file__).parents[1] / "tests" / "runs_worker.py"),)
        run = RunFolder(folder / "run")
        if not run.exists:
            RunFolder.create(run.path, "count", {"steps": 3})
        try:
            if run.state != "finished":
                call("runs", "resume", run.path)
        except InputError:
            if run.state != "finished":  # the worker that a killed command had started has just ended
                raise
        with lock(run.worker_lock):  # wait until the worker has ended
            pass
        return repr([(event["step"], event["loss"]) for event in run.curve()]).encode()

    def _run(self, kind: str, folder: Path) -> bytes:
        """Do the work of a run as its worker does, unless the run is finished; return its result."""
        source, target, text = str(self.folder / "280"), str(self.folder / "300"), [str(self.folder / "text.txt")]
        lexicon = str(self.folder / "lexicon.parquet")
        read = {"text": text, "held_out_share": 0.2}
        settings: dict[str, dict[str, Any]] = {
            "align": {"source": source, "target": target, "recipe": "pieces", **read},
            "rearrange": {"model": source, "lexicon": lexicon},
            "adapt": {"model": source, **read, "steps": 4, "sequence_length": 16, "batch_size": 1, "save_every": 1,
                      "gradient_accumulation_steps": 1, "evaluate_bytes": 200, "prompts": [], "device": "cpu"},
            "measure": {"model": source, **read, "evaluate_bytes": 200, "device": "cpu"},
            "score": {"lexicon": lexicon, **read, "encoder": "", "twins": False},
            "compare": {"left": lexicon, "right": lexicon, **read, "encoder": ""},
            "project": {"vectors": [str(self.folder / "vectors.npz")], "method": "pca"},
            "advise": {"model": source, "target": target, "text": text, "device": "cpu"},
        }  # fmt: skip
        run = RunFolder(folder / kind)
        with plain_disk_errors(run.path):
            if not run.exists:
                RunFolder.create(run.path, kind, settings[kind])
            with lock(run.worker_lock):
                if run.info()["state"] != "finished":
                    run_kind(kind, settings[kind], RunContext(run, resume=True))
                    run.update(state="finished")
        if kind == "align":
            return Lexicon.load(run.path / "alignment" / "lexicon.parquet").table.to_json().encode()
        if kind == "measure":
            return repr([event["bits_per_byte"] for event in run.curve("evaluation")]).encode()
        if kind in ("score", "compare"):
            return (run.path / "scores.json").read_bytes()
        if kind == "advise":  # remove the measured time of a generation step
            return repr(json.loads((run.path / "advice.json").read_text(encoding="utf-8"))["rows"]).encode()
        if kind == "project":
            return project([self.vectors], "pca")[0].xy.tobytes()
        return (run.path / "model" / "model.safetensors").read_bytes()

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
        """Write a checkpoint, unless there is a complete one; return the content of its files."""
        root, stage = folder / "checkpoints", Stage(1, 0, 4, 1e-3)
        with plain_disk_errors(root), lock(folder / ".worker.lock"):  # as the worker of a run does
            found = latest_checkpoint(root, [stage])
            if found is None or found.step < 2:
                path = root / "stage1" / "checkpoint-2"
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

    def _lab_state(self, folder: Path) -> bytes:
        """Open the stored view of a lab, whatever is in its file, then change it and open it again."""
        state = LabState(folder / "lab.json")
        state.source, state.sentence, state.pins = "a", "One sentence.", (("source", 1), ("target", 2))
        again = LabState(folder / "lab.json")
        return repr((again.source, again.sentence, again.pins)).encode()

    def _runs(self, folder: Path) -> bytes:
        """Make a run, finish it, delete it and restore it; return what the list of runs shows."""
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
        runs = list_runs(root)
        if not runs:
            raise InputError("Another process has just deleted the run.")
        return repr([(run.name, run.title, run.state) for run in runs]).encode()


def call(*words: object) -> None:
    """Run a command of the command line; if the command refuses, raise `InputError` with its message."""
    ended = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    logging.getLogger("tokalign_lab").handlers.clear()  # its output is closed
    if ended.exit_code == 2:
        raise InputError(json.loads(ended.stdout.splitlines()[-1])["error"])
    if ended.exit_code:
        raise AssertionError(f"exit code {ended.exit_code}: {ended.output}")


def content_of(path: Path) -> bytes:
    """Return the content of a file or folder, without unfinished files and without times and random names."""
    if path.suffix == ".parquet":
        found = Lexicon.load(path)
        return found.table.to_json().encode() + repr(sorted(found.provenance.get("scores", {}).items())).encode()
    if path.name == "run.json":
        return repr(RunFolder(path.parent).info()["settings"]).encode()
    if path.suffix == ".html":  # plotly gives each plot a random id
        return re.sub(rb"\w{8}(-\w{4}){3}-\w{12}", b"", path.read_bytes())
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
        return b"".join(file.name.encode() + content_of(file) for file in files)
    return b"" if path.name in ("README.md", "tokalign.json") else path.read_bytes()


# --- faults


def damaged(content: bytes, draw: np.random.Generator) -> tuple[str, bytes]:
    """Damage the content of a file in one of six ways; return the way and the damaged content."""
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


def in_a_copy(work: Callable[[], Any], before: Callable[[], None] = lambda: None) -> int:
    """Call `before` and then `work` in a fork of this process; return its exit code, negative for a signal."""
    return ended(copy_of(work, before))


def ended(child: int) -> int:
    """Wait for a process to end; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def copy_of(work: Callable[[], Any], before: Callable[[], None] = lambda: None) -> int:
    """Start a fork of this process that calls `before` and then `work`; return its process id."""
    child = os.fork()
    if not child:
        code = _FAILED
        signal.alarm(_MOST_SECONDS)
        try:
            before()
            work()
            code = 0
        except InputError as error:
            code = _REFUSED if "\n" not in str(error) else _FAILED
        except BaseException:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def watch_files(report: Callable[[int], Any]) -> None:
    """From now on, call `report` with the number of each file operation of this process: 1, 2, ..."""
    numbers = count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_OPERATIONS):
            report(next(numbers))

    sys.addaudithook(watch)


def kill_at(operation: int) -> None:
    """Kill this process at its nth file operation."""
    watch_files(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == operation else None)


def fill_disk() -> None:
    """Prevent files of this process from growing beyond a few bytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FULL_BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def take_permission() -> None:
    """Become a user who may not write here."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


# --- injections


@contextmanager
def _fresh(folder: Path, template: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder that is the cache, or a copy of `template`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder) if template else folder.mkdir(parents=True)
    os.environ["TOKALIGN_CACHE"] = str(folder)
    yield folder


@dataclass(frozen=True)
class Case:
    """An artefact, and the folder in which it is made."""

    of: str
    artefact: Artefact
    folder: Path

    @property
    def work(self) -> Path:
        """The folder of the current injection."""
        return self.folder / "work"

    @cached_property
    def good(self) -> tuple[Path, bytes]:
        """A folder made without a fault, and the result."""
        with _fresh(self.folder / "good") as good:
            expected = self.artefact.make(good)
            if self.artefact.make(good) != expected:
                raise AssertionError(f"{self.of} does not give the same result twice")
        return good, expected

    @cached_property
    def operations(self) -> int:
        """Number of file operations of the work, at each of which it can be killed."""
        with _fresh(self.work) as folder, tempfile.TemporaryFile() as counted:
            in_a_copy(
                partial(self.artefact.make, folder),
                partial(watch_files, lambda number: os.pwrite(counted.fileno(), b"%08d" % number, 0)),
            )
            return int(counted.read())

    def block(self, kind: str, numbers: range, seed: list[int]) -> dict[str, Any]:
        """Inject faults of one kind; return a sentence for each failure."""
        wrong = {number: inject(kind, self, np.random.default_rng([*seed, number])) for number in numbers}
        return {"failed": [f"{kind} of {self.of}, number {number}: {what}" for number, what in wrong.items() if what]}


def inject(kind: str, case: Case, draw: np.random.Generator) -> str:
    """Inject one fault; return "" if the outcome was right, else a description of the failure."""
    artefact, work, (good, expected) = case.artefact, case.work, case.good
    if kind == "damage":
        with _fresh(work, good) as folder:
            found = [file for file in sorted(folder.glob(artefact.files)) if file.is_file()]
            file = found[int(draw.integers(len(found)))]
            way, content = damaged(file.read_bytes(), draw)
            file.write_bytes(content)
            return _judge(artefact, folder, expected, not artefact.again, f"{file.name} {way}")
    if kind == "kill":
        operation = int(draw.integers(1, case.operations + 1))
        while True:
            with _fresh(work) as folder:
                code = in_a_copy(partial(artefact.make, folder), partial(kill_at, operation))
                if code == _KILLED:
                    return _judge(artefact, folder, expected, False, f"killed at operation {operation}")
            if code or operation == 1:
                return f"to be killed at operation {operation}: exit code {code}"
            # The process ended before this operation: one that waits for another sometimes needs fewer of them.
            operation = int(draw.integers(1, operation))
    if kind == "two at once":
        with _fresh(work) as folder:
            codes = [ended(child) for child in [copy_of(partial(artefact.make, folder)) for _ in range(2)]]
            if not set(codes) <= ({0} if artefact.again and artefact.files else {0, _REFUSED}):
                return f"exit codes {codes}"
            return _judge(artefact, folder, expected, False, "after two at once")
    with _fresh(work) as folder:
        folder.chmod(0o755)
        code = in_a_copy(partial(artefact.make, folder), fill_disk if kind == "full disk" else take_permission)
        names = (str(path.relative_to(folder)) for path in folder.rglob(".*"))
        half = [name for name in names if re.fullmatch(r"\..*-\w{8}(\.\w+)?", Path(name).name)]
        if code not in (0, _REFUSED):
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


def run(injections: int, seed: int, kept: Kept, quick: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Inject faults of each kind into each artefact; fewer (if `quick`, none) if its work takes long.

    Returns
    -------
    rows, failures
        Number of injections, successes and failures by kind and artefact; a sentence for each failure.
    """
    logging.getLogger("tokalign_lab").setLevel(logging.ERROR)
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    rows, failures = [], []
    before = os.environ.get("TOKALIGN_CACHE")
    with tempfile.TemporaryDirectory(prefix="tokalign-faults-") as name:
        Path(name).chmod(0o755)
        for place, (of, artefact) in enumerate(Shared(Path(name) / "shared").artefacts().items()):
            if quick and artefact.share < 1:
                continue
            case = Case(of, artefact, Path(name) / of)
            for kind in KINDS if os.getuid() == 0 else KINDS[:-1]:
                wanted, draws = range(artefact.injections(kind, injections)), [seed, place, KINDS.index(kind)]
                failed = []
                for first in wanted[::_BLOCK]:
                    numbers = wanted[first : first + _BLOCK]
                    key = {"kind": kind, "of": of, "first": first, "injected": len(numbers)}
                    failed += kept(partial(case.block, kind, numbers, draws), **key)["failed"]
                failures += failed
                done = {"injected": len(wanted), "survived": len(wanted) - len(failed), "failed": len(failed)}
                rows += [{"kind": kind, "of": of, **done}] if wanted else []
    os.environ.pop("TOKALIGN_CACHE", None) if before is None else os.environ.update(TOKALIGN_CACHE=before)
    return rows, failures


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--injections", type=int, default=600, help="damaged files and kills for each artefact")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    limit_threads(1)
    injections = 20 if chosen.quick else chosen.injections
    rows, failures = run(injections, chosen.seed, Kept(chosen, seed=chosen.seed), chosen.quick)
    names = ("injected", "survived", "failed")
    total = [{"kind": kind, **{n: sum(r[n] for r in rows if r["kind"] == kind) for n in names}} for kind in KINDS]
    notes = [*failures[:20], f"{sum(row['injected'] for row in rows):,} injected, {len(failures):,} failed."]
    report("Faults", [("By kind", total), ("By kind and artefact", rows)], notes, chosen.out)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
