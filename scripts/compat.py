"""The Python parts of `compat.sh`; the first argument is the name of the part to run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TEXT = "It was 12,345,  the\n\tfox é 你 <|im_start|>u"


def save(root: Path) -> None:
    """Save a small model with each kind of tokenizer and rotary embedding, with its ids, logits and a rendered chat."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from test_cases_models import CONVERSATIONS, aligned, chat_model, sentencepiece_target
    from tiny import CONFIGS, tiny_model, tiny_vocabulary

    from tokalign_lab.catalog import load_vocabulary
    from tokalign_lab.model.load import load_model
    from tokalign_lab.model.save import save_model
    from tokalign_lab.model.to_folder import rearrange_to_folder

    root.mkdir(parents=True)
    target = load_vocabulary(str(sentencepiece_target(root)))
    for kind in CONFIGS:
        model = tiny_model(kind, target.size)
        parameters = getattr(model.config, "rope_parameters", None)
        if parameters:  # not the default base, so that a version that falls back to the default fails
            for part in [parameters, *(part for part in parameters.values() if isinstance(part, dict))]:
                part.update({"rope_theta": 54321.0} if "rope_theta" in part else {})
            model = type(model)(model.config).eval()
        save_model(model, target, root / kind)
    folder = chat_model(root / "source of chat")
    source, other = load_vocabulary(str(folder)), tiny_vocabulary(280, bos="<s>", eos="<end>")
    rearrange_to_folder(str(folder), aligned(source, other), source, other, root / "chat")
    for path in [root / kind for kind in (*CONFIGS, "chat")]:
        tokenizer = load_vocabulary(str(path)).tokenizer
        ids = tokenizer(TEXT)["input_ids"]
        with torch.inference_mode():
            logits = load_model(str(path), device="cpu")(torch.tensor([ids])).logits[0].tolist()
        chat = (
            tokenizer.apply_chat_template(**CONVERSATIONS["several turns"], tokenize=False)
            if tokenizer.chat_template
            else None
        )
        expected = {"ids": ids, "logits": logits, "chat": chat, "conversation": CONVERSATIONS["several turns"]}
        (path / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def load(root: Path) -> int:
    """Load each folder and report whether it gives the expected values; return the number of those that do not."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    wrong = 0
    for path in sorted(file.parent for file in root.glob("*/expected.json")):
        expected: dict[str, Any] = json.loads((path / "expected.json").read_text(encoding="utf-8"))
        tokenizer = AutoTokenizer.from_pretrained(path)
        ids = tokenizer(TEXT)["input_ids"]
        wanted = torch.tensor(expected["logits"])
        with torch.inference_mode():
            found = AutoModelForCausalLM.from_pretrained(path).eval()(torch.tensor([expected["ids"]])).logits[0]
        difference, scale = float((found.float() - wanted).abs().max()), float(wanted.abs().max())
        chat = tokenizer.apply_chat_template(**expected["conversation"], tokenize=False) if expected["chat"] else None
        problems = ["ids differ"] * (ids != expected["ids"]) + ["chat differs"] * (chat != expected["chat"])
        problems += ["logits differ"] * (difference > 1e-3 * scale)
        wrong += bool(problems)
        verdict = ", ".join(problems) or "equal"
        print(f"{path.name:12} {verdict:12} largest difference of logits {difference:.2g} of {scale:.3g}")
    print(f"transformers {transformers.__version__}: {wrong} folders differ")
    return wrong


def use(root: Path) -> int:
    """Open the lab in a kernel, with every step and panel; return the number of unfinished runs."""
    import nbformat
    from nbclient import NotebookClient

    from tokalign_lab.runs.control import list_runs
    from tokalign_lab.runs.results import last_evaluation

    here = str(Path(__file__).parent)
    cell = f"import sys; sys.path.insert(0, {here!r}); import compat; compat.in_kernel({str(root)!r})"
    NotebookClient(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), timeout=3600).execute()
    states = {run.name: run.wait() for run in list_runs(root)}
    for run in list_runs(root):
        measured = last_evaluation(run) or {}
        print(f"{run.name:24} {states[run.name]:9} {measured.get('bits_per_byte', '')}", run.info()["error"] or "")
    return sum(state != "finished" for state in states.values())


def in_kernel(root: str) -> None:
    """Swap a tokenizer as in the quick start, in small sizes; open every panel, and write the report."""
    from tokalign_lab.widgets import Lab

    lab = Lab("smollm2-135m", "sp32k", root)
    lab.pair_picker()
    lab.align(max_bytes=200_000)
    for panel in (lab.lexicon_panel, lab.maps, lab.diagnosis, lab.compare):
        panel()
    lab.rearrange(calibrate=False)
    lab.tune(steps=2, sequence_length=32, batch_size=1, evaluate_bytes=2_000)
    lab.runs_panel()
    lab.tabs()
    lab.report()


PARTS = {"save": save, "load": load, "use": use}

if __name__ == "__main__":
    sys.exit(PARTS[sys.argv[1]](Path(sys.argv[2])))
