"""Run every command of an installed tokalign-lab on packaged tokenizers, packaged text and a small random model.

Usage: PYTHON scripts/clean_install.py FOLDER EXTRAS, where PYTHON is that of the environment and EXTRAS is "light" or
"lab". It prints a line for each command. The exit code is 1 if a command ends with an unexpected exit code. Commands
that ended as expected are listed in FOLDER/done.txt, and the next call continues with the others.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from socket import socket
from urllib.error import URLError
from urllib.request import urlopen

SOURCE, TARGET = "smollm2-135m", "sp32k"
TEXT = ("--text", "default", "--max-bytes", "150000")
TUNE = (*TEXT, "--steps", "2", "--sequence-length", "64", "--batch-size", "1", "--evaluate-bytes", "2000")
# Commands in the order of their execution, with their expected exit codes.
COMMANDS: list[tuple[str, int]] = [
    ("--version", 0),
    ("doctor", 0),
    ("assets list", 0),
    (f"assets get {TARGET}", 0),
    (f"overlap {SOURCE} {TARGET}", 0),
    (f"align small {TARGET} {' '.join(TEXT)} --recipe pieces --out a.parquet", 0),
    (f"align small {TARGET} {' '.join(TEXT)} --recipe mean --out b.parquet", 0),
    (f"score a.parquet {' '.join(TEXT)}", 0),
    ("diagnose a.parquet", 0),
    ("compare a.parquet b.parquet", 0),
    ("rearrange small a.parquet --out converted", 0),
    ("check converted", 0),
    (f"bpb converted {' '.join(TEXT)}", 0),
    (f"advise small {TARGET} {' '.join(TEXT)}", 0),
    (f"adapt converted {' '.join(TUNE)} --run runs/one", 0),
    ("runs list --root runs", 0),
    ("runs watch runs/one", 0),
    ("runs again runs/one --name two", 0),
    ("runs rename runs/one first", 0),
    ("runs delete first", 0),
    ("runs trash --root runs", 0),
    ("runs restore --root runs", 0),
    ("runs pause first", 0),  # has no effect: the run has ended
    ("runs cancel first", 0),
    ("runs resume first", 2),
    (f"generate small {' '.join(TEXT)} --documents 2 --prompt-tokens 8 --new-tokens 8 --out generated.jsonl", 0),
    (f"draft converted --for converted {' '.join(TEXT)} --prompts 1 --new-tokens 8", 0),
    (f"tokenizer train --size 500 {' '.join(TEXT)} --out trained", 0),
    (f"tokenizer extend {SOURCE} --add 5 {' '.join(TEXT)} --out extended", 0),
    ("export converted --gguf out.gguf", 2),  # llama.cpp's converter is not installed
    ("export converted", 2),  # neither --gguf nor --push-to-hub
    ("evaluate converted", 2),  # the extra `tasks` is not installed
    ("notebooks lessons", 0),
    ("gallery list", 0),
    ("app --no-browser", 2),  # the extra `app` is not installed
]
OF_LAB = ["report recorded-align-pieces --out report.html", "demo --fast --out demo"]
NOT_RUN = {"gallery record"}  # makes data of the package, which takes an hour
EXPECTED = {0: "ok", 2: "refused"}

SMALL = f"""
from transformers import LlamaConfig, LlamaForCausalLM
from tokalign_lab.catalog import load_tokenizer
tokenizer = load_tokenizer("{SOURCE}")
sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
sizes |= dict(vocab_size=len(tokenizer), max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id)
config = LlamaConfig(**sizes)
LlamaForCausalLM(config).save_pretrained("small")
tokenizer.save_pretrained("small")
"""
LISTED = """
import typer
from tokalign_lab.cli import app
def names(command, before=""):
    for name, inner in getattr(command, "commands", {}).items():
        yield from names(inner, f"{before} {name}") if hasattr(inner, "commands") else [f"{before} {name}".strip()]
print(*names(typer.main.get_command(app)), sep="\\n")
"""


def main(folder: Path, extras: str) -> int:
    """Run the commands in a folder; return 1 if one ends with an unexpected exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    bin_folder = Path(sys.executable).parent
    listing = folder / "done.txt"
    done_before = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    if not done_before:
        subprocess.run([sys.executable, "-c", SMALL], cwd=folder, check=True)
    wrong = 0
    for words, expected in [*COMMANDS, *((words, 0 if extras == "lab" else 2) for words in OF_LAB)]:
        if words in done_before:
            continue
        began = time.monotonic()
        done = subprocess.run([bin_folder / "tokalign-lab", *words.split()], cwd=folder, capture_output=True, text=True)
        right = done.returncode == expected and "Traceback" not in done.stderr
        wrong += not right
        if right:
            with listing.open("a", encoding="utf-8") as file:
                file.write(f"{words}\n")
        last = (done.stderr if done.returncode else done.stdout).strip().splitlines()[-1:] or [""]
        print(f"{EXPECTED[expected] if right else 'WRONG':8} {time.monotonic() - began:5.0f} s  {words}", flush=True)
        if not right or expected:
            print(f"         exit code {done.returncode}: {last[0][:200]}", flush=True)
    listed = subprocess.run([sys.executable, "-c", LISTED], capture_output=True, text=True, check=True)
    began_with = " ".join(f"{words} " for words in [*(words for words, _ in COMMANDS), *OF_LAB])
    left = [name for name in listed.stdout.split("\n") if name and f"{name} " not in began_with]
    print("not run:", ", ".join(left))
    wrong += len(set(left) - NOT_RUN)
    wrong += extras == "lab" and not serves(bin_folder, folder)
    return int(wrong > 0)


def serves(bin_folder: Path, folder: Path) -> bool:
    """Start JupyterLab from the environment; return whether its page can be opened."""
    with socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [bin_folder / "jupyter", "lab", "--no-browser", f"--port={port}", "--allow-root", "--ServerApp.token="]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(60):
            time.sleep(1)
            with suppress(URLError), urlopen(f"http://localhost:{port}/lab") as page:
                print("ok       JupyterLab answers", page.status)
                return True
        print("WRONG    JupyterLab does not answer")
        return False
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2]))
