"""The command line: each stage of the pipeline as one command, for users and for other programs.

A command declares and checks its options, calls the module that does the work, and prints the result; nothing is
computed here. Every command takes `--json` and `--config`. SOURCE, TARGET and MODEL are catalogue names, paths (a
folder or a tokenizer file) or hub ids.

Each group of commands is in a separate module; importing the modules here registers the commands, in the order of
`--help`.
"""

from __future__ import annotations

import os
import sys

from tokalign_lab.cli import assets, lexicons, models, runs, tokenizers, tuning, whole  # noqa: F401
from tokalign_lab.cli.command import app as app


def main() -> None:
    """Run the command line; the console script `tokalign-lab`."""
    # No telemetry to the hub, and no advisory warnings among the output.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    sys.exit(app())
