"""Hidden states as token vectors: TokAlign++'s "Hid. Rep.", which needs a model and no text.

The other methods describe a token by its neighbours in a text. Here the *source* model reads the token, and the states
of its last layer (after the final norm) describe it. A source token is read as its id. A target token is read as the
source tokens that spell it, which gives several states: the vector is the last one, which depends on all pieces (the
best in the paper's table 6, which also has their mean and maximum). So all tokens are in one space, and a shared token
has the same vector on both sides.

The paper does not specify how a token is given to the model. Here the source's bos (else eos) comes first, because the
first position of a causal model is an attention sink, whose state does not describe its token. On SmolLM2-135M the mean
cosine of two random tokens is 0.99 without bos and 0.78 with it; the state of "word" is nearest to that of " word" for
55 % of 42 words without bos, and for 64 % with it. A token that is part of a UTF-8 character is read as source tokens
of its bytes; the provenance counts these. Special tokens and tokens that cannot be spelled have no vector.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.progress import Progress, silent
from tokalign_lab.spelling import text_of
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_BATCH_TOKENS = 4096  # enough to use a device fully, and fits its memory

Spell = Callable[[Vocabulary, Sequence[bytes]], list[list[int]]]
"""Writes byte strings as ids of a vocabulary (`pieces.spell`); an empty list if it cannot."""


def hidden_state_vectors(
    model: PreTrainedModel,
    source: Vocabulary,
    of: Vocabulary,
    counts: NDArray[np.int64],
    progress: Progress = silent,
    *,
    spell: Spell,
) -> TokenVectors:
    """Compute the last layer's states of the source model for every token of a vocabulary.

    Returns one row per token that can be read, with the width of the model. Raises `InputError` if the model has fewer
    rows than `source` has ids, or a state is not finite.

    Parameters
    ----------
    model : the source model, a causal language model
    source : its vocabulary
    of : the vocabulary whose tokens get vectors: the source itself, or the target
    counts : int64 (of.size,), occurrences of each token in the text, stored with the vectors
    progress : called after every batch
    spell : writes the target's tokens as source ids
    """
    source.check_rows(len(model.get_input_embeddings().weight), advice="give the model's own tokenizer")
    read, partial = _ids_to_read(source, of, spell)
    prefix = next(([source.roles[role]] for role in ("bos", "eos") if role in source.roles), [])
    ids = np.array(sorted(read), dtype=np.int64)
    rows = _states(model, [read[i] for i in ids.tolist()], prefix, progress)
    provenance = {
        "method": "hidden-states",
        "pooling": "last",
        "prefix": [source.raw_token(i) for i in prefix],
        "model": str(getattr(model.config, "_name_or_path", "")),
        "read_by": source.fingerprint,
        "partial_utf8": partial,
        "left_out": int(sum(token is not None for token in of.token_bytes)) - len(ids),
    }
    return TokenVectors(ids, rows, counts[ids], of.fingerprint, provenance)


def _ids_to_read(source: Vocabulary, of: Vocabulary, spell: Spell) -> tuple[dict[int, list[int]], int]:
    """Return the source ids of each token that can be read, and the number of these that are parts of characters."""
    tokens = {i: token for i, token in enumerate(of.token_bytes) if token}
    if of.fingerprint == source.fingerprint:
        read = {i: [i] for i in tokens}
    else:
        # A shared token is read as one token, even if the source would split its text.
        read = {i: [found] for i in tokens if (found := source.id_of_token(of, i)) is not None}
        others = [i for i in tokens if i not in read]
        spelled = spell(source, [tokens[i] for i in others])
        read |= {i: pieces for i, pieces in zip(others, spelled, strict=True) if pieces}
    return read, sum(not text_of(tokens[i]) for i in read)


def _states(
    model: PreTrainedModel, texts: list[list[int]], prefix: list[int], progress: Progress
) -> NDArray[np.float32]:
    """Return the last states of token lists, float32 (n, width); lists of equal length share an unpadded batch."""
    import torch

    by_length: dict[int, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        by_length[len(text)].append(i)
    rows = np.zeros((len(texts), 0), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for length, members in sorted(by_length.items()):
            size = max(1, _BATCH_TOKENS // (length + len(prefix)))
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                ids = torch.tensor([prefix + texts[i] for i in batch], device=model.device)
                states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, len(prefix) :]
                pooled = pooled_states(states.float()).cpu().numpy()
                if not done:  # not the config's hidden_size: OPT projects its states
                    rows = np.zeros((len(texts), pooled.shape[1]), dtype=np.float32)
                rows[batch] = pooled
                done += len(batch)
                progress(done / len(texts), f"read {done:,} of {len(texts):,} tokens")
    return rows


def pooled_states(states: torch.Tensor) -> torch.Tensor:
    """Return the last state of each sequence, (batch, width), of states (batch, pieces, width)."""
    return states[:, -1]
