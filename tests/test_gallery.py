"""The gallery of recorded runs: they are marked as recorded, cannot be changed and need no other files."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tokalign_lab import projection, record
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.cli import app as commands
from tokalign_lab.errors import InputError
from tokalign_lab.progress import silent
from tokalign_lab.projection import project
from tokalign_lab.runs import gallery
from tokalign_lab.runs.control import find_run, gallery_root, rename_run, runs_root, start_again
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import align_run_of, diagnosis_of, lexicon_path
from tokalign_lab.runs.trash import delete_run
from tokalign_lab.vocabulary import Vocabulary

ROOT = Path(__file__).parent.parent
MOST_BYTES = 3_000_000


def content(folder: Path) -> dict[str, str]:
    """Return the hash of every file in a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def work(anchored: Alignment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs as `gallery record` makes them, with the files that packing reads; on a small text, without training."""
    folder = tmp_path_factory.mktemp("work")
    for one in record.plan(4)[:3]:
        run = RunFolder.create(folder / one.name, one.kind, one.settings)
        if one.kind == "align":
            anchored.save(run.path / "alignment")
        run.emit({"kind": "heartbeat"})
        run.emit({"kind": "step", "step": 1, "loss": 2.0})
        run.emit({"kind": "progress", "share": 1.0})
        run.update(state="finished", cwd=str(folder), pid=17)
    return folder


@pytest.fixture(scope="module")
def packed(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery packed from these runs; with PCA only, because UMAP takes a minute."""
    out = tmp_path_factory.mktemp("packed") / "gallery"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "METHODS", {"pca": ""})
        record.pack_gallery(out, work, record.plan(4)[:3], record.COMMAND)
    return out


def test_a_vocabulary_without_its_tokenizer_can_do_everything_except_tokenize(
    smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary, tmp_path: Path
) -> None:
    for vocabulary in (smollm_vocabulary, sp32k_vocabulary):  # byte-level, and SentencePiece with byte fallback
        vocabulary.save_tokens(tmp_path / "tokens.json.xz")
        tokens = Vocabulary.from_tokens(tmp_path / "tokens.json.xz", vocabulary.name)
        assert tokens is not None
        assert tokens.token_bytes == vocabulary.token_bytes
        assert (tokens.name, tokens.size, tokens.kind) == (vocabulary.name, vocabulary.size, vocabulary.kind)
        assert (tokens.fingerprint, tokens.roles) == (vocabulary.fingerprint, vocabulary.roles)
        for mask in ("is_control", "is_hole", "is_byte_fallback"):
            assert np.array_equal(getattr(tokens, mask), getattr(vocabulary, mask))
        assert [tokens.label(i) for i in range(300)] == [vocabulary.label(i) for i in range(300)]
        assert vocabulary.has_tokenizer
        assert not tokens.has_tokenizer
        with pytest.raises(InputError, match="Only the tokens"):
            tokens.encode(["a text"])


class TestPacking:
    def test_the_lexicon_keeps_its_key_and_its_rows(self, packed: Path, anchored: Alignment) -> None:
        made, kept = anchored.lexicon, Lexicon.load(packed / "recorded-align-anchored/alignment/lexicon.parquet")
        assert kept.key == made.key
        exact = ["target_id", "source_id", "score", "target_count", "source_count", "source_token", "target_token"]
        for name in (*exact, "origin"):
            assert kept.table[name].equals(made.table[name]), name
        for ids in ("candidate_ids", "sources", "output_sources"):
            assert all(np.array_equal(a, b) for a, b in zip(kept.table[ids], made.table[ids], strict=True)), ids
        for values in ("weights", "output_weights", "candidate_scores"):
            near = zip(kept.table[values], made.table[values], strict=True)
            assert all(np.allclose(a, b, rtol=1 / 4000, atol=0) for a, b in near), values
        assert np.array_equal(kept.target_of(), made.target_of())
        assert kept.reverse["origin"].equals(made.reverse["origin"])
        assert set(kept.provenance) - set(made.provenance) == {"recorded"}

    def test_maps_are_stored_and_vectors_are_not(
        self, packed: Path, anchored: Alignment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(projection, "SHIPPED", packed / "layouts")
        kept = Alignment.load(packed / "recorded-align-anchored/alignment")
        vectors, bare = ([one.source_vectors, one.target_vectors] for one in (anchored, kept))
        laid, drawn = project(vectors, "pca", shared=True), project(bare, "pca", shared=True)
        for (a, b), (some, few) in zip(zip(laid, drawn, strict=True), zip(vectors, bare, strict=True), strict=True):
            assert np.array_equal(a.ids, b.ids)
            assert np.array_equal(some.counts, few.counts)
            assert np.abs(a.xy - b.xy).max() < 1e-4 * np.abs(a.xy).max()
            assert some.is_stored
            assert not few.is_stored
            with pytest.raises(InputError, match="not stored"):
                few.rows_for(few.ids[:1])
        with pytest.raises(InputError, match="not stored"):
            project(bare, "pca", shared=False)
        with pytest.raises(InputError, match="not stored"):
            project(bare, "umap", shared=True)

    def test_a_run_describes_itself_and_names_no_path_of_this_machine(self, packed: Path, work: Path) -> None:
        for file in packed.rglob("*.json*"):
            if file.suffix != ".xz":
                assert str(work) not in file.read_text(encoding="utf-8"), file
        info = RunFolder(packed / "recorded-align-anchored").info()
        assert (info["pid"], info["cwd"]) == (None, "..")
        words = gallery.recorded_words(info)
        for fact in ("Recorded run", info["created"][:10], record.COMMAND, "cores", "torch", "Not in it: the token v"):
            assert fact in words
        assert gallery.recorded_words({**info, "recorded": None}) == ""

    def test_events_keep_their_times_and_few_heartbeats(self, packed: Path, work: Path, tmp_path: Path) -> None:
        events, _ = RunFolder(packed / "recorded-adapt-recover").events()
        assert [event["kind"] for event in events] == ["heartbeat", "step"]
        pytest.importorskip("ipywidgets")
        from tokalign_lab.runs.folding import view_of

        beats = [{"time": 100.0 + 2 * i, "kind": "heartbeat"} for i in range(60)]
        beats.insert(45, {"time": 189.0, "kind": "step", "step": 1, "loss": 2.0})
        run = RunFolder.create(tmp_path / "run", "adapt", {})
        (run.path / "events.jsonl").write_text("".join(json.dumps(beat) + "\n" for beat in beats))
        (tmp_path / "packed").mkdir()
        record._pack_events(run, tmp_path / "packed")
        kept, _ = RunFolder(tmp_path / "packed").events()
        assert len(kept) < 15
        assert view_of(kept, 1).seconds == pytest.approx(view_of(beats, 1).seconds, abs=record.ALIVE_S + 2)

    def test_parent_runs_are_found_next_to_the_gallery(self, packed: Path, tmp_path: Path) -> None:
        shutil.copytree(packed, tmp_path / "elsewhere")
        for root in (packed, tmp_path / "elsewhere"):
            tuned = RunFolder(root / "recorded-adapt-recover")
            assert lexicon_path(tuned) == root / "recorded-align-anchored/alignment/lexicon.parquet"
            first = align_run_of(tuned)
            assert first is not None
            assert first.name == "recorded-align-anchored"

    def test_a_failed_packing_keeps_the_old_gallery(
        self, packed: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(record, "METHODS", {"pca": ""})
        shutil.copytree(packed, tmp_path / "gallery")
        before = content(tmp_path / "gallery")
        with pytest.raises(InputError):
            record.pack_gallery(tmp_path / "gallery", work, record.plan(4), "")  # the last runs were never made
        assert content(tmp_path / "gallery") == before
        assert [path.name for path in tmp_path.iterdir()] == ["gallery"]

    def test_runs_with_other_settings_are_not_packed(self, work: Path, tmp_path: Path) -> None:
        shutil.copytree(work, tmp_path / "work")
        with pytest.raises(InputError, match="other settings"):
            record._finish(record.plan(8)[2], tmp_path / "work", silent)


def test_a_recorded_run_cannot_be_changed(packed: Path) -> None:
    before = content(packed)
    run = RunFolder(packed / "recorded-adapt-recover")
    attempts = (
        run.start, run.resume, lambda: run.update(state="paused"), lambda: rename_run(run, "mine"),
        lambda: delete_run(run), lambda: start_again(run, {}),
    )  # fmt: skip
    for attempt in attempts:
        with pytest.raises(InputError, match="is a recorded run"):
            attempt()
    run.request_pause()  # has no effect: the run has ended
    assert run.cancel() == "finished"
    assert content(packed) == before


class TestShipped:
    """The gallery of the package itself."""

    def test_it_contains_a_complete_chain_and_is_small(self) -> None:
        chains = gallery.recorded_chains()
        assert chains
        planned = {one.name for one in record.plan(1000)}
        for run in gallery.recorded_runs():
            assert run.name in planned
            assert run.name.startswith("recorded-")
            assert run.title.startswith("Recorded: ")
            assert run.state == "finished"
            assert "Recorded run" in gallery.recorded_words(run.info())
        assert sum(path.stat().st_size for path in gallery_root().rglob("*") if path.is_file()) < MOST_BYTES
        tuned = chains[0]["adapt"]
        assert tuned.curve()[-1]["step"] == tuned.info()["settings"]["steps"]
        measured = [event["bits_per_byte"] for event in tuned.curve("evaluation")]
        assert len(measured) >= 3
        assert measured[-1] < measured[0]  # tuning helped
        assert any(event["kind"] == "sample" for event in tuned.events()[0])

    def test_its_lexicon_belongs_to_the_real_pair(
        self, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary
    ) -> None:
        found = align_run_of(gallery.recorded_chains()[0]["adapt"])
        assert found is not None
        alignment = Alignment.load(found.path / "alignment")
        alignment.lexicon.check(smollm_vocabulary, sp32k_vocabulary)
        assert alignment.lexicon.origin_counts()["identical"] == 21_873
        source, target = alignment.source_vectors, alignment.target_vectors
        assert source is not None
        assert not source.is_stored
        for method in ("pca", "umap"):
            for layout in project([source, target], method, shared=True):
                assert len(layout.ids) > 10_000
                assert np.isfinite(layout.xy).all()
        diagnosis = diagnosis_of(found)
        assert diagnosis is not None
        assert diagnosis.verdict in ("good", "usable")
        assert json.loads((found.path / "scores.json").read_text())["held_out"]["p_at_1"] > 0.9

    def test_the_wheel_contains_it(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for name in ("tokalign_lab", "widgets"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
        done = subprocess.run(
            [sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True, check=True
        )
        inside = set(zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist())
        assert "tokalign_lab/report.html.j2" in inside
        for file in gallery_root().rglob("*"):
            if file.is_file():
                assert f"tokalign_lab/data/gallery/{file.relative_to(gallery_root())}" in inside


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a machine without assets, network and runs; return the folder of runs."""

    def refuse(self: Any, address: Any) -> None:
        raise AssertionError(f"somebody connects to {address}")

    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOKALIGN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


class TestPanels:
    @pytest.fixture(autouse=True)
    def in_order(self) -> Iterator[None]:
        pytest.importorskip("ipywidgets")
        from tokalign_lab.widgets.common.background import inline
        from tokalign_lab.widgets.lexicon import view

        before = content(gallery_root())
        view._loaded.clear()
        with inline():
            yield
        assert content(gallery_root()) == before  # viewing recorded runs does not change them

    def test_an_empty_lab_offers_a_recorded_run_and_shows_it_in_every_tab(self, bare: Path) -> None:
        from tokalign_lab.widgets import Lab

        lab = Lab()
        tabs = lab.tabs()
        offer = tabs._recorded
        assert "You have no runs here yet" in offer._words.value
        offer._show.click()
        assert "Recorded run, not one of yours" in offer._words.value
        assert lab.work.shows_recorded
        for name in ("model", "recovery", "lexicon", "maps", "diagnosis", "compare", "runs", "report", "pair"):
            lab.lab_state.tab = name
            assert tabs._error.layout.display == "none", (name, tabs._error.value)
            for panel in tabs._boxes[name].children:
                if hasattr(panel, "_badge") and name not in ("runs", "pair"):
                    assert "Recorded run" in panel._badge.value, name
                    assert panel._error.layout.display == "none", (name, panel._error.value)
        offer._leave.click()
        assert not lab.work.shows_recorded
        lab.close()
        assert sorted(path.name for path in bare.iterdir()) == ["lab.json"]  # nothing was started or copied

    def test_steps_that_need_the_model_explain_that_it_is_missing(self, bare: Path) -> None:
        from tokalign_lab.runs.chain import NO_MODEL
        from tokalign_lab.widgets import Lab

        lab = Lab()
        lab.look_at_recorded()
        for action in (lab.rearrange, lambda: lab.tune(steps=2)):
            with pytest.raises(InputError, match="recorded run"):
                action()
        training = lab.panels.training(lab.work.find("adapt"))
        assert "recorded</span>" in training._state_line.value
        training.again.start_button.click()
        assert NO_MODEL in training._error.value
        buttons = (training.controls.pause_button, training.controls.cancel_button, training.controls.resume_button)
        assert all(one.disabled for one in buttons)
        assert "To score" not in lab.panels.lexicon().scoring.children[0].value
        assert "it cannot be scored" in lab.panels.lexicon().scoring.children[0].value

    def test_a_chosen_pair_is_explained_and_missing_values_are_named(self, bare: Path) -> None:
        from tokalign_lab.widgets import Lab

        lab = Lab()
        lab.look_at_recorded()
        panel = lab.panels.lexicon()
        row = int(panel.lexicon.table.query("origin == 'aligned'")["target_id"].iloc[0])
        lab.lab_state.select("target", [row], by="lexicon")
        assert "Candidates, best first" in panel.why.pair.value
        assert "Its bytes are" in panel.why.pair.value
        assert "spells it" not in panel.why.pair.value
        assert "vectors and the text are not stored" in panel.why.neighbours.value
        assert panel.why.contexts.value == ""
        maps = lab.panels.maps()
        assert "the vectors are not stored" in maps.neighbours.tables["target"].caption
        lab.lab_state.colour_by = "neighbours"
        assert "not stored with this run" in maps._error.value

    def test_to_code_shows_the_same_view_without_assets(self, bare: Path) -> None:
        from tokalign_lab.widgets import Lab

        lab = Lab()
        lab.look_at_recorded()
        for panel in (lab.panels.diagnosis(), lab.panels.maps(), lab.panels.lexicon(), lab.panels.compare()):
            made: dict[str, Any] = {}
            *lines, last = panel.to_code().splitlines()
            exec("\n".join([*lines, f"panel = {last}"]), made)
            assert type(made["panel"]) is type(panel)
            made["panel"].close()

    def test_the_list_of_runs_marks_recorded_runs(self, bare: Path) -> None:
        from tokalign_lab.widgets import RunsPanel

        panel = RunsPanel()
        assert panel._recorded.value  # there are no other runs to show
        assert {row.cells()[2] for row in panel._list.rows} == {"recorded"}
        panel._chosen = "recorded-adapt-recover"
        panel.refresh()
        assert panel._delete.disabled
        assert "Recorded run" in panel._details.value
        panel.tick()
        assert panel.monitor is not None
        assert panel.monitor.run.recorded
        panel._recorded.value = False
        assert panel._list.rows == []
        panel.close()
        RunFolder.create(bare / "mine", "adapt", {"model": "m", "text": [], "steps": 2})
        assert not RunsPanel()._recorded.value  # the user has runs


class TestCommands:
    def run(self, *words: str) -> Any:
        done = CliRunner().invoke(commands, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def test_the_commands_list_recorded_runs(self, bare: Path) -> None:
        listed = self.run("gallery", "list")["runs"]
        assert {row["name"] for row in listed} == {run.name for run in gallery.recorded_runs()}
        assert all("Recorded run" in row["words"] and row["title"].startswith("Recorded: ") for row in listed)
        assert any(row["command"].startswith("tokalign-lab adapt recorded-rearrange") for row in listed)
        assert self.run("runs", "list")["runs"] == []
        assert all(row["recorded"] for row in self.run("runs", "list", "--recorded")["runs"])

    def test_a_report_on_a_recorded_run_needs_no_assets(self, bare: Path, tmp_path: Path) -> None:
        pytest.importorskip("plotly")
        out = tmp_path / "report.html"
        tuned = gallery.recorded_chains()[0]["adapt"].name
        self.run("report", "recorded-align-anchored", "--tuned", tuned, "--out", str(out))
        page = out.read_text(encoding="utf-8")
        assert "Recorded run, not one of yours" in page
        assert "<h2>Diagnosis" in page

    def test_two_recorded_runs_are_compared(self, bare: Path) -> None:
        found = self.run("compare", "recorded-align-anchored", "recorded-adapt-recover")
        assert found["counts"]["changed"] == 0  # the same lexicon, from both ends of the chain

    def test_commands_that_change_a_recorded_run_are_refused(self, bare: Path) -> None:
        for words in (["resume"], ["delete"], ["again"], ["rename"]):
            more = ["mine"] if words == ["rename"] else []
            done = CliRunner().invoke(commands, ["runs", *words, "recorded-adapt-recover", *more])
            assert done.exit_code == 2
            assert "is a recorded run" in " ".join(done.stderr.split())

    def test_a_users_run_takes_precedence_over_a_recorded_run_of_the_same_name(self, bare: Path) -> None:
        own = RunFolder.create(runs_root() / "recorded-align-anchored", "align", {})
        assert find_run("recorded-align-anchored").path == own.path
