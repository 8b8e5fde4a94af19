"""Rows by `deepfocus`, as shipped and with its defaults. Runs in the peers' environment, not in ours."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from deepfocus import FOCUS
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--source", "--target", "--text", "--result"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    source, target = (AutoTokenizer.from_pretrained(folder) for folder in (options.source, options.target))
    model = AutoModelForCausalLM.from_pretrained(options.source, dtype=torch.float32)
    matrices = {"input": model.get_input_embeddings().weight, "output": model.get_output_embeddings().weight}
    if matrices["output"] is matrices["input"]:
        del matrices["output"]
    rows = {
        name: FOCUS(
            target_tokenizer=target,
            source_tokenizer=source,
            source_embeddings=matrix.detach(),
            target_training_data_path=options.text,
            processes=1,
            seed=options.seed,
        ).numpy()
        for name, matrix in matrices.items()
    }
    np.savez(options.result, **rows)


if __name__ == "__main__":
    main()
