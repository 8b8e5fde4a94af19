"""Rows by `wechsel` within one language, as shipped. Runs in the peers' environment, not in ours.

Its vectors are trained by its own `train_embeddings`, on words separated by white space, because its default word
splitter has to be downloaded. It uses one thread, because several give different results in each run.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from wechsel import WECHSEL, train_embeddings


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--source", "--target", "--text", "--result"):
        parser.add_argument(name, required=True)
    parser.add_argument(
        "--seed", type=int, required=True
    )  # unused: WECHSEL has no seed, and its random rows are always the same
    options = parser.parse_args()
    source, target = (AutoTokenizer.from_pretrained(folder) for folder in (options.source, options.target))
    model = AutoModelForCausalLM.from_pretrained(options.source, dtype=torch.float32)
    vectors = train_embeddings(options.text, tokenize_fn=str.split, thread=1)
    method = WECHSEL(vectors, vectors, align_strategy=None)
    matrices = {"input": model.get_input_embeddings().weight, "output": model.get_output_embeddings().weight}
    if matrices["output"] is matrices["input"]:
        del matrices["output"]
    rows = {name: method.apply(source, target, matrix.detach().numpy())[0] for name, matrix in matrices.items()}
    np.savez(options.result, **{name: made.astype(np.float32) for name, made in rows.items()})


if __name__ == "__main__":
    main()
