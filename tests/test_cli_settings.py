"""The command line by its settings: the parts of a text, `--config`, the command that repeats a run, exit codes."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_cli import Done, run, run_json
from tiny import tiny_model, tiny_tokenizer
from typer.testing import CliRunner

import tokalign_lab
from tokalign_lab import pipeline
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.cli import app
from tokalign_lab.documents import read_parts, text_hash
from tokalign_lab.errors import InputError
from tokalign_lab.files import write_json
from tokalign_lab.runs import kinds, process
from tokalign_lab.runs.control import runs_root
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.kinds import command_of
from tokalign_lab.runs.worker import RunContext
from tokalign_lab.settings.kinds import BitsSettings, TextSettings

TEXT = "".join(
    f"The {n} small birds sing about rain and the {n + 7} brown foxes jump over {n % 13} lazy dogs, said number {n}.\n"
    for n in range(1500)
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's text of many different lines, two small tokenizers, and a model of the first."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "own.txt").write_text(TEXT, encoding="utf-8")
    for name, size in (("a", 300), ("b", 340)):
        tiny_tokenizer(size).save_pretrained(folder / name)
    tiny_model("llama_tied", load_vocabulary(str(folder / "a")).size).save_pretrained(folder / "model")
    tiny_tokenizer(300).save_pretrained(folder / "model")
    return folder


def done_here(folder: Path, kind: str, settings: dict[str, Any]) -> RunFolder:
    """Do the work of a run in this process."""
    made = RunFolder.create(folder, kind, settings)
    kinds.run_kind(kind, settings, RunContext(made, resume=False))
    made.update(state="finished")
    return made


def repeat(made: RunFolder, out: Path, cwd: Path) -> Done:
    """Run the command that repeats a run, with `out` as its output."""
    words = shlex.split(command_of(made.info()))
    assert words.pop(0) == "tokalign-lab"
    words[-1] = str(out)
    return run(*words, "--json", cwd=cwd)


@pytest.fixture(scope="module")
def aligned(work: Path) -> RunFolder:
    settings = {
        "source": str(work / "a"), "target": str(work / "b"), "text": [str(work / "own.txt")],
        "max_bytes": 20_000, "seed": 3, "held_out_share": 0.2,
    }  # fmt: skip
    return done_here(work / "runs" / "align-1", "align", settings)


# --- parts of a user's text -----------------------------------------------------------------------------------


def test_a_users_text_is_aligned_and_scored_on_disjoint_parts(work: Path, aligned: RunFolder) -> None:
    given = ("--max-bytes", "20000", "--seed", "3", "--held-out-share", "0.2")
    run_json("align", "a", "b", "--text", "own.txt", "--out", "own.parquet", *given, cwd=work)
    settings = TextSettings(text=(str(work / "own.txt"),), max_bytes=20_000, seed=3, held_out_share=0.2)
    train, held_out = read_parts(settings)
    lines = [set(document.text.splitlines()) for document in (*train, *held_out)]
    assert len(lines) == 2
    assert not lines[0] & lines[1]
    assert len(lines[1]) / (len(lines[0]) + len(lines[1])) == pytest.approx(0.2, abs=0.01)
    own = Lexicon.load(work / "own.parquet")
    of_run = Lexicon.load(aligned.path / "alignment" / "lexicon.parquet")
    assert own.provenance["text_hash"] == of_run.provenance["text_hash"] == text_hash(train)
    # The split is not given here; it is that of the alignment.
    scores = run_json("score", "own.parquet", "--text", "own.txt", cwd=work)
    reported = json.loads((aligned.path / "scores.json").read_text(encoding="utf-8"))["lexicon"]
    for measure in ("bleu1", "coverage_text", "documents", "intervals"):
        assert scores[measure] == reported[measure]
    whole = run_json("score", "own.parquet", "--text", "own.txt", "--max-bytes", str(10**6), cwd=work)
    assert whole["coverage_text"] != scores["coverage_text"], "the command line takes precedence"


def test_a_lexicon_is_not_scored_on_documents_that_it_has_read(work: Path) -> None:
    lines = [{"text": TEXT[place : place + 600]} for place in range(0, 30_000, 600)]
    (work / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    for seed in ("0", "1"):
        given = ("--text", "lines.jsonl", "--recipe", "pieces", "--seed", seed, "--out", f"{seed}.parquet")
        run_json("align", "a", "b", *given, "--held-out-share", "0.2", cwd=work)
    plain = ("--text", "lines.jsonl", "--encoder", "")
    assert run_json("score", "1.parquet", *plain, cwd=work)["documents"] > 0
    for command in (("score", "1.parquet", "--seed", "0"), ("compare", "0.parquet", "1.parquet")):
        done = run(*command, *plain, cwd=work)
        assert done.returncode == 2
        assert "'1.parquet' was aligned on documents that are held out here, such as lines.jsonl:" in done.stderr


@pytest.mark.parametrize("command", [["bpb"], ["evaluate"], ["bpb", "--seed", "1", "--max-bytes", "8000"]])
def test_a_model_is_not_measured_on_documents_that_it_was_tuned_on(
    work: Path, tmp_path: Path, command: list[str]
) -> None:
    lines = [json.dumps({"text": f"{place} {TEXT[place * 40 :][:400]}"}) for place in range(40)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
    settings = BitsSettings(model=str(tmp_path / "tuned"), text=(str(tmp_path / "text.jsonl"),), seed=1)
    train, _ = read_parts(settings)
    shutil.copytree(work / "model", tmp_path / "tuned")
    training = {"seed": 1, "held_out_share": 0.05, "text_hash": text_hash(train)}
    write_json(tmp_path / "tuned" / "tokalign.json", {"training": training})
    assert pipeline.measure(settings).bytes
    done = CliRunner().invoke(app, [*command, settings.model, "--text", settings.text[0]])
    assert done.exit_code == 2
    assert "tuned' was tuned on documents that are held out here, such as text.jsonl:" in done.stderr


def test_a_model_is_measured_on_held_out_text(work: Path) -> None:
    result = run_json("bpb", "model", "--text", "own.txt", "--held-out-share", "0.1", cwd=work)
    settings = TextSettings(text=(str(work / "own.txt"),), held_out_share=0.1)
    assert result["bytes"] == sum(len(document.text.encode()) for document in read_parts(settings)[1])


def test_calibration_reads_no_held_out_text(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokalign_lab.model import calibrate

    read: list[str] = []
    monkeypatch.setattr(calibrate, "calibrate", lambda model, vocabulary, documents, *rest: read.extend(
        line for document in documents for line in document.text.splitlines()
    ))  # fmt: skip
    split = {"seed": 3, "held_out_share": 0.2, "max_bytes": 20_000}
    _, held_out = read_parts(TextSettings(text=(str(work / "own.txt"),), **split))
    lines = {line for document in held_out for line in document.text.splitlines()}
    calibrate.calibrate_on(None, None, [str(work / "own.txt")], split=split)  # type: ignore[arg-type]
    assert len(read) > 50
    assert not lines & set(read)
    calibrate.calibrate_on(None, None, [str(work / "own.txt")])  # type: ignore[arg-type]
    assert lines & set(read), "another split reads these lines, so the first assertion can fail"


def test_a_text_is_not_overwritten_by_a_result(work: Path, tmp_path: Path) -> None:
    documents = pd.DataFrame({"text": TEXT.splitlines()})
    documents.to_parquet(tmp_path / "text.parquet")
    documents.to_json(tmp_path / "text.jsonl", orient="records", lines=True)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "text.jsonl")
    writing = ("--documents", "1", "--prompt-tokens", "8", "--new-tokens", "4")
    for words in (
        ("align", work / "a", work / "b", "--text", "text.parquet", "--out", tmp_path / "text.parquet"),
        ("generate", work / "model", "--text", "text.jsonl", *writing, "--out", "link.jsonl"),
    ):
        done = run(*words, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "which --text reads" in done.stderr
    assert len(pd.read_parquet(tmp_path / "text.parquet")) == len(documents)


def test_a_text_of_one_split_can_be_measured_and_not_learned_from(work: Path) -> None:
    line = {"text": TEXT[:2000], "split": "test"}
    (work / "test.jsonl").write_text(json.dumps(line), encoding="utf-8")
    assert run_json("bpb", "model", "--text", "test.jsonl", cwd=work)["bytes"] == 2000
    done = run("align", "a", "b", "--text", "test.jsonl", "--out", "x.parquet", cwd=work)
    assert done.returncode == 2
    assert "No document of the text is in the split 'train'" in done.stderr


# --- the command that repeats a run ---------------------------------------------------------------------------


def test_the_command_of_an_align_run_makes_the_same_lexicon(work: Path, aligned: RunFolder) -> None:
    assert repeat(aligned, work / "again.parquet", work).returncode == 0
    again, before = Lexicon.load(work / "again.parquet"), Lexicon.load(aligned.path / "alignment" / "lexicon.parquet")
    pd.testing.assert_frame_equal(again.table, before.table)
    assert again.provenance["parameters"] == before.provenance["parameters"]
    assert again.provenance["split"] == {"seed": 3, "held_out_share": 0.2, "max_bytes": 20_000}


def test_the_command_of_a_rearrange_run_makes_the_same_model(work: Path, aligned: RunFolder) -> None:
    lexicon = str(aligned.path / "alignment" / "lexicon.parquet")
    settings = {
        "model": str(work / "model"), "lexicon": lexicon, "seed": 5, "pad_to_multiple_of": 64, "keep_tied": True,
    }  # fmt: skip
    made = done_here(work / "runs" / "rearrange-1", "rearrange", settings)
    assert repeat(made, work / "moved", work).returncode == 0
    weights = [path / "model.safetensors" for path in (made.path / "model", work / "moved")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert json.loads((work / "moved" / "config.json").read_text())["vocab_size"] % 64 == 0


def test_the_command_of_a_tuning_run_takes_the_same_steps(work: Path) -> None:
    settings = {
        "recipe": "papers", "model": str(work / "model"), "text": [str(work / "own.txt")], "steps": 4, "batch_size": 2,
        "seed": 2,
        "sequence_length": 16, "held_out_share": 0.1, "evaluate_bytes": 500, "prompts": [], "warmup_ratio": 0.5,
        "learning_rate_stage2": 3e-4, "mix": {"prose": 2.0}, "cross_documents": False, "bf16": None, "teacher": "",
    }  # fmt: skip
    made = done_here(work / "runs" / "adapt-1", "adapt", settings)
    assert repeat(made, work / "runs" / "adapt-2", work).returncode == 0
    again = RunFolder(work / "runs" / "adapt-2")
    for kind, names in (("step", ("loss", "learning_rate")), ("evaluation", ("bits_per_byte", "bytes"))):
        pairs = list(zip(made.curve(kind), again.curve(kind), strict=True))
        assert len(pairs) >= 3
        assert [[a[name] for name in names] for a, _ in pairs] == [[b[name] for name in names] for _, b in pairs]


# --- --config -------------------------------------------------------------------------------------------------


def test_options_come_from_a_file_and_the_command_line_takes_precedence(work: Path) -> None:
    (work / "align.yaml").write_text(
        "source: a\ntarget: b\ntext: own.txt\nrecipe: pieces\nseed: 7\nmax_bytes: 30000\nout: file.parquet\n"
    )
    result = run_json("align", "--config", "align.yaml", "--seed", "8", cwd=work)
    assert (result["recipe"], result["seed"], result["lexicon"]) == ("pieces", 8, "file.parquet")
    assert Lexicon.load(work / "file.parquet").provenance["split"]["max_bytes"] == 30_000


def test_run_json_can_be_given_as_config(work: Path, aligned: RunFolder) -> None:
    result = run_json("align", "--config", aligned.path / "run.json", "--out", "from_run.parquet", cwd=work)
    assert result["seed"] == 3
    before = Lexicon.load(aligned.path / "alignment" / "lexicon.parquet")
    pd.testing.assert_frame_equal(Lexicon.load(work / "from_run.parquet").table, before.table)
    # Only the text of a run of another kind is used; relative paths are relative to the folder where it was made.
    made = RunFolder.create(work / "runs" / "adapt-3", "adapt", {"model": "no", "text": ["own.txt"], "seed": 1})
    made.update(cwd=str(work))
    result = run_json("bpb", work / "model", "--config", made.path / "run.json", cwd=work / "runs")
    assert result["bytes"] > 0
    values = {"steps": 9, "mix": {"de": 2, "no": 0.5}, "learning_rate_stage1": "5e-5", "prompts": [], "bf16": False}
    file = work / "adapt.yaml"
    lines = "\n".join(f"{name}: {json.dumps(value)}" for name, value in values.items())
    file.write_text(lines.replace('"5e-5"', "5e-5").replace('"no"', "no"))  # YAML 1.1: a text, and false
    options = ("--text", "own.txt", "--run", "runs/adapt-4", "--prepare", "--seed", "4")
    run_json("adapt", "model", "--config", file, *options, cwd=work)
    settings = RunFolder(work / "runs" / "adapt-4").info()["settings"]
    assert settings == {
        "model": str(work / "model"), "text": [str(work / "own.txt")], "steps": 9, "mix": {"de": 2.0, "no": 0.5},
        "learning_rate_stage1": 5e-5, "prompts": [], "bf16": False, "seed": 4,
        "recipe": "recover", "batch_size": 1, "sequence_length": 128,  # kept with a run, whatever the defaults become
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "has the option 'sed', but `align` takes"),
        ("- 1", "must hold options and values"),
        ("a: [", "cannot be read as YAML"),
        ("seed: 1\nrecipe: pieces\nseed: 2", "'seed' occurs twice"),
        ("seed: 1.5", "--seed"),
        ("max_bytes: 1:30", "--max-bytes"),  # 90 in YAML 1.1
        ("seed: 4294967296", "seed is 4294967296"),
        ("one_to_one: perhaps", "one-to-one"),
        ('{"kind": "dance", "settings": {}}', "no kind of run named 'dance'"),
        ('{"kind": ["align"], "settings": {}}', "has the option 'kind'"),
    ],
)
def test_an_invalid_config_file_is_refused(work: Path, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    done = run("align", "a", "b", "--text", "own.txt", "--out", "y.parquet", "--config", file, cwd=work)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (work / "y.parquet").exists()


def test_every_command_takes_a_config_file() -> None:
    from typer.main import get_command

    from tokalign_lab.cli import app

    def leaves(group: Any) -> list[Any]:
        return [one for c in group.commands.values() for one in (leaves(c) if hasattr(c, "commands") else [c])]

    commands = leaves(get_command(app))
    assert len(commands) > 20
    assert [one.name for one in commands if "config" not in {p.name for p in one.params}] == []


# --- exit codes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "code"), [("crash", 1), ("refuse", 2)])
def test_internal_errors_and_user_errors_have_different_exit_codes(
    kind: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "WORKER", (str(Path(__file__).with_name("runs_worker.py")),))
    made = RunFolder.create(tmp_path / "r", kind, {})
    made.start()
    done = run("runs", "watch", made.path, "--json")
    assert done.returncode == code
    reported = json.loads(done.stdout.splitlines()[-1])
    if code == 1:
        assert reported["state"] == "failed"
        assert "ZeroDivisionError" in done.stderr
        assert str(made.path / "log.txt") in done.stderr
    else:
        assert "The text is empty; give some." in reported["error"]


@pytest.mark.parametrize("state", ["cancelled", "lost", "paused"])
def test_a_run_that_has_not_finished_exits_with_an_error(state: str, tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "r", "adapt", {})
    if state == "lost":
        made.update(state="running", pid=2**22 + 1, pid_started=1.0)
    else:
        made.update(state=state)
    done = run("runs", "watch", made.path)
    assert done.returncode == 1
    assert f"The run r is {state}" in done.stderr


def test_resuming_a_running_run_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WORKER", (str(Path(__file__).with_name("runs_worker.py")),))
    made = RunFolder.create(tmp_path / "r", "count", {"steps": 60, "seconds": 0.1})
    made.start()
    done = run("runs", "resume", made.path, "--json")
    assert done.returncode == 0
    assert "The run r is already running. This command follows it." in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "finished"
    assert [event["step"] for event in made.events()[0] if event["kind"] == "step"] == list(range(1, 61))


def test_an_old_run_that_failed_names_its_log(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "r", "adapt", {})
    made.update(state="failed", error="Something.")  # without the field that tells user errors from internal ones
    assert run("runs", "watch", made.path).returncode == 1


# --- the program itself ---------------------------------------------------------------------------------------


def test_the_program_prints_its_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, tokalign_lab.__version__)
    assert tokalign_lab.__version__[0].isdigit()
    assert "--install-completion" in run("--help").stdout


def test_a_tilde_that_the_shell_has_left_is_the_home_folder(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TOKALIGN_RUNS", "~/runs")
    shutil.copy(work / "own.txt", tmp_path / "own.txt")
    for folder, lexicon in (("here", "~/lexicons/a.parquet"), ("there", "~/lexicons/b.parquet")):
        (tmp_path / folder).mkdir()
        options = ("--text=~/own.txt", "--recipe=pieces", f"--out={lexicon}")
        run_json("align", work / "a", work / "b", *options, cwd=tmp_path / folder)
        assert not any((tmp_path / folder).iterdir())
    run_json("compare", "~/lexicons/a.parquet", "~/lexicons/b.parquet")
    run_json("score", "~/lexicons/a.parquet", "--text=~/own.txt", "--encoder=")
    assert runs_root() == tmp_path / "runs"


def test_a_name_that_begins_with_a_tilde_is_a_name(work: Path, tmp_path: Path) -> None:
    shutil.copy(work / "own.txt", tmp_path / "~$own.txt")
    shutil.copytree(work / "model", tmp_path / "~model")
    assert run_json("bpb", "~model", "--text", "~$own.txt", cwd=tmp_path)["bytes"] > 0


# --- settings of runs as they were before -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("align", {"source": "a", "target": "b", "text": ["t"], "max_bytes": None, "model": None, "donor": None}),
        ("rearrange", {"model": "m", "lexicon": "l", "out": "o", "calibrate": None, "pad_to_multiple_of": None}),
        ("adapt", {"model": "m", "text": ["t"], "steps": 2, "max_bytes": None, "device": None, "processes": 2}),
        ("measure", {"model": "m", "text": ["t"], "seed": 1, "evaluate_bytes": 9, "device": "cpu"}),
        ("score", {"lexicon": "l", "text": ["t"], "encoder": None, "before": None, "parts": "p", "twins": False}),
        ("project", {"vectors": ["v"], "method": "pca", "shared": True, "fit_on": 9, "seed": 0}),
    ],
)
def test_settings_of_earlier_runs_are_still_accepted(kind: str, settings: dict[str, Any]) -> None:
    kinds.check_kind(kind, settings)
    with pytest.raises(InputError, match="has no setting 'epochs'; it takes"):
        kinds.check_kind(kind, {**settings, "epochs": 3})


def test_every_recorded_run_can_still_be_read() -> None:
    from tokalign_lab.runs.gallery import recorded_runs

    runs = recorded_runs()
    assert {run.info()["kind"] for run in runs} == {"align", "rearrange", "adapt", "measure"}
    for one in runs:
        info = one.info()
        kinds.check_kind(info["kind"], info["settings"])
        assert command_of(info)


# --- vectors and counts from elsewhere ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vanilla(work: Path) -> Lexicon:
    """A lexicon by GloVe vectors that this process trains."""
    options = ("--recipe", "tokalign-vanilla", "--max-bytes", "20000")
    run_json("align", "a", "b", "--text", "own.txt", "--out", "vanilla.parquet", *options, cwd=work)
    return Lexicon.load(work / "vanilla.parquet")


def test_vectors_from_files_replace_glove(work: Path, vanilla: Lexicon, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokalign_lab.vectors.glove import glove_vectors

    text = read_parts(TextSettings(text=(str(work / "own.txt"),), max_bytes=20_000))[0]
    source, target = load_vocabulary(str(work / "a")), load_vocabulary(str(work / "b"))
    pair = tokalign_lab.tokenize_pair(source, target, text)
    made = [glove_vectors(c, v.size) for c, v in ((pair.source_corpus, source), (pair.target_corpus, target))]
    by_count = np.argsort(-made[0].counts, kind="stable")
    lines = [f"{made[0].ids[i]} {' '.join(map(str, made[0].rows[i]))}\n" for i in by_count]
    (work / "a.txt").write_text("".join(lines))
    for name, array in (("b", made[1].rows), ("b.ids", made[1].ids), ("b.counts", made[1].counts)):
        np.save(work / f"{name}.npy", array)
    made[1].save(work / "b.npz")
    monkeypatch.setattr("tokalign_lab.vectors.glove.glove_vectors", None)  # training would fail
    common = ("--recipe", "tokalign-vanilla", "--max-bytes", "20000", "--text", "own.txt", "--vectors", "a.txt")
    for file in ("b.npy", "b.npz"):
        run_json("align", "a", "b", *common, "--vectors", file, "--out", "given.parquet", cwd=work)
        given = Lexicon.load(work / "given.parquet")
        pd.testing.assert_frame_equal(given.table, vanilla.table)
        assert given.provenance["parameters"]["vectors"][0]["file"] == "a.txt"
    for wrong, message in (
        (("--vectors", "a.txt"), "vectors names 3 files; name two"),
        (("--recipe", "anchored"), "'anchored' trains no GloVe, so it cannot use vectors; tokalign, "),
    ):
        done = run("align", "a", "b", *common, "--vectors", "b.npz", "--out", "z.parquet", *wrong, cwd=work)
        assert done.returncode == 2
        assert message in done.stderr
    done = run(
        "align", "b", "a", *common[:-2], "--vectors", "b.npz", "--vectors", "b.npz", "--out", "z.parquet", cwd=work
    )
    assert done.returncode == 2
    assert "holds vectors of another tokenizer" in done.stderr


def test_counts_of_a_cluster_are_used_by_glove(
    work: Path, vanilla: Lexicon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("dask.distributed")
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))  # an empty cache
    monkeypatch.setattr("tokalign_lab.vectors.text_counts.sum_blocks", None)  # counting in this process would fail
    options = ("--recipe", "tokalign-vanilla", "--max-bytes", "20000", "--text", "own.txt", "--out", "dask.parquet")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp"
    ) as cluster:
        run_json("align", "a", "b", *options, "--cluster", cluster.scheduler_address, cwd=work)
    pd.testing.assert_frame_equal(Lexicon.load(work / "dask.parquet").table, vanilla.table)
    done = run("align", "a", "b", *options, "--recipe", "pieces", "--cluster", "tcp://127.0.0.1:9", cwd=work)
    assert done.returncode == 2
    assert "cannot use cluster" in done.stderr
