"""How much of an `anchored` row should its source pieces make? Bits per byte right after rearranging, no tuning.

    python benchmarks/anchored_mix.py

The rest of the row is ten CSLS candidates, weighted by softmax. Share 1 is the recipe `pieces` for aligned tokens.
SmolLM2-135M-Instruct to the 32k SentencePiece vocabulary; three draws of held-out passages of the default text. About
eight minutes on two cores.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab import catalog
from tokalign_lab.alignment import recipes
from tokalign_lab.console import print_table
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import excerpts, read_documents, split_documents
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
DRAWS = (0, 7, 13)
TEXT_BYTES, MEASURED_BYTES = 6_000_000, 24_000


def main() -> None:
    source, target = catalog.load_vocabulary("smollm2-135m"), catalog.load_vocabulary("sp32k")
    train, held_out = split_documents(read_documents(["default"], max_bytes=TEXT_BYTES))
    pair, model = tokenize_pair(source, target, train), load_model("smollm2-135m")
    passages = {draw: excerpts(held_out, MEASURED_BYTES, seed=draw) for draw in DRAWS}

    def row(name: str, lexicon: recipes.Lexicon) -> dict[str, object]:
        moved = rearrange(model, lexicon, source, target)
        values = [bits_per_byte(moved, target, passages[draw]).bits_per_byte for draw in DRAWS]
        by_draw = {f"draw {draw}": value for draw, value in zip(DRAWS, values, strict=True)}
        return {"row": name, **by_draw, "mean": float(np.mean(values))}

    rows = [row("pieces", recipes.align(pair, "pieces").lexicon)]
    for share in SHARES:
        recipes.PIECES_SHARE = share
        rows.append(row(f"anchored, pieces {share:.0%}", recipes.align(pair, "anchored").lexicon))
    print_table(rows, title="Bits per byte of held-out text, before any tuning")


if __name__ == "__main__":
    main()
