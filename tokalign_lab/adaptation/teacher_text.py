"""Text that a teacher writes: sentence-level distillation, the papers' baseline for token-level distillation.

In sentence-level distillation (TokAlign, table 3; Kim and Rush 2016), the student is tuned on text that the teacher
generates. This needs no shared vocabulary, so the teacher may have any tokenizer. The prompts are the beginnings of
passages of the text's train part; each document is a prompt with its continuation, up to the teacher's eos. The
held-out part is copied unchanged and marked, so that runs on this text and on the original are measured on the same
text.

Sampling at temperature 1 draws from the teacher's distribution; greedy decoding takes the most likely tokens and tends
to repeat itself. Every line records the teacher and the settings. Lines are written in batches under another name, and
the file is renamed when it is complete. The random numbers of a batch depend only on the seed and the batch's number,
so interrupted work ends in the same file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tokalign_lab.documents import Document, excerpts, n_bytes, text_hash
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import longest_input, plain_generation
from tokalign_lab.files import write_json
from tokalign_lab.locks import lock_or_refuse
from tokalign_lab.progress import Progress, silent
from tokalign_lab.settings.kinds import WritingSettings
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH = {"cpu": 8, "cuda": 64}


def write_text(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    train: Sequence[Document],
    held_out: Sequence[Document],
    settings: WritingSettings,
    out: Path,
    progress: Progress = silent,
    interrupt: Callable[[], None] = lambda: None,
) -> int:
    """Let a teacher continue prompts from a text, and write the results as JSONL.

    Returns the number of UTF-8 bytes written, including prompts. Raises `InputError` if the text has too few passages
    that are long enough, or they exceed the teacher's maximum length.

    Parameters
    ----------
    model, vocabulary : the teacher and its tokenizer
    train : the documents for the prompts
    held_out : copied as the held-out part of the file; may be empty
    settings : settings of generation
    out : the file, with one document per line: text, name, group, slice, split and, for generated text, its provenance.
        Interrupted work is continued if the settings are the same.
    progress : called with the share of documents that are written
    interrupt : called between batches
    """
    limit = longest_input(model)
    if limit is not None and settings.prompt_tokens + settings.new_tokens + 1 > limit:
        raise InputError(f"The teacher reads at most {limit} tokens; ask for shorter prompts or fewer new tokens.")
    prompts = _prompts(vocabulary, train, settings)
    size = _BATCH.get(model.device.type, _BATCH["cpu"])
    about = {"teacher": vocabulary.name, **settings.to_dict()}
    work = {**about, "text": text_hash(train), "held_out": text_hash(held_out), "batch": size}
    unfinished = out.with_name(f".{out.name}.part")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    refusal = f"Another process writes '{out}'; wait until it has ended or choose another file."
    with lock_or_refuse(unfinished, refusal):
        lines = _resume_at(unfinished, work, size)
        with open(unfinished, "a", encoding="utf-8") as file:
            for start in range(lines, len(prompts), size):
                interrupt()
                progress(start / len(prompts), f"{vocabulary.name} writes")
                batch = prompts[start : start + size]
                texts = _continue(model, vocabulary, [ids for _, ids in batch], settings, start // size)
                for number, ((passage, _), text) in enumerate(zip(batch, texts, strict=True), start=start):
                    made = replace(passage, text=text, name=f"{passage.name}#{number}")
                    file.write(_line(made, "train", {**about, "prompt": passage.name}))
                file.flush()
                os.fsync(file.fileno())
            written = _written(unfinished)
            for document in held_out:
                file.write(_line(document, "held_out", None))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, out)
        _note(unfinished).unlink()
    progress(1.0, "written")
    return written


def _prompts(
    vocabulary: Vocabulary, train: Sequence[Document], settings: WritingSettings
) -> list[tuple[Document, list[int]]]:
    """Sample passages that are long enough; returns each with its prompt: bos if there is one, then its first ids."""
    passages = excerpts(train, max(1, n_bytes(train)))  # all of them
    bos = vocabulary.roles.get("bos")
    found: list[tuple[Document, list[int]]] = []
    for place in np.random.default_rng(settings.seed).permutation(len(passages)):
        (ids,) = vocabulary.encode([passages[place].text[: 16 * settings.prompt_tokens]])
        if len(ids) >= settings.prompt_tokens:
            start = [] if bos is None else [bos]
            found.append((passages[place], [*start, *ids[: settings.prompt_tokens].tolist()]))
        if len(found) == settings.documents:
            return found
    raise InputError(
        f"The text has {len(found)} passages of {settings.prompt_tokens} tokens, fewer than the {settings.documents} "
        "documents asked for; give more text, or ask for fewer documents or shorter prompts."
    )


@torch.inference_mode()
def _continue(
    model: PreTrainedModel, vocabulary: Vocabulary, prompts: list[list[int]], settings: WritingSettings, batch: int
) -> list[str]:
    """Continue prompts of one length, and return each with its continuation as text."""
    eos = vocabulary.roles.get("eos")
    ids = torch.tensor(prompts, device=model.get_input_embeddings().weight.device)
    sampling: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        sampling = {"do_sample": True, "temperature": settings.temperature, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(), plain_generation(model):
        torch.manual_seed(int(np.random.SeedSequence([settings.seed, batch]).generate_state(1)[0]))
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=settings.new_tokens,
            eos_token_id=eos,
            tokenizer=vocabulary.tokenizer,  # for a generation_config with stop_strings
            pad_token_id=vocabulary.roles.get("pad", eos if eos is not None else 0),
            **sampling,
        )
    texts = []
    for row in made.tolist():
        new = row[len(prompts[0]) :]
        new = new[: new.index(eos)] if eos in new else new
        # drop a character that the limit cut in the middle
        texts.append(vocabulary.decode([*row[: len(prompts[0])], *new]).rstrip("\ufffd"))
    return texts


def _line(document: Document, split: str, provenance: dict[str, Any] | None) -> str:
    fields = {**asdict(document), "split": split}
    if provenance is not None:
        fields["provenance"] = provenance
    return json.dumps(fields) + "\n"


def _resume_at(unfinished: Path, work: dict[str, Any], batch: int) -> int:
    """Return the number of lines in an unfinished file of the same work, in complete batches; drop later lines."""
    note = _note(unfinished)
    lines: list[str] = []
    if note.is_file() and unfinished.is_file() and json.loads(note.read_text(encoding="utf-8")) == work:
        with open(unfinished, encoding="utf-8", newline="\n") as file:
            lines = [line for line in file if line.endswith("\n") and json.loads(line)["split"] == "train"]
        # the last batch of a finished text may be a short one
        lines = lines if len(lines) == work["documents"] else lines[: len(lines) // batch * batch]
    unfinished.write_text("".join(lines), encoding="utf-8", newline="\n")
    write_json(note, work)
    return len(lines)


def _note(unfinished: Path) -> Path:
    return unfinished.with_name(f"{unfinished.name}.json")


def _written(path: Path) -> int:
    with open(path, encoding="utf-8", newline="\n") as file:
        return sum(len(json.loads(line)["text"].encode()) for line in file)
