"""Convert a model's folder to GGUF with llama.cpp's own converter, and test the result in llama.cpp.

A conversion that ends without an error may still tokenize differently: the converter recognises tokenizers by
architecture, file names and hashes, and llama.cpp has its own code for each kind. So the verdict is "ok" only after the
token ids of texts and greedy continuations were compared with those of transformers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.catalog.texts import udhr_documents
from tokalign_lab.errors import InputError, first_line
from tokalign_lab.evaluation.finding import Finding, several
from tokalign_lab.files import atomic_file, from_home
from tokalign_lab.model import llama_cpp
from tokalign_lab.model.hard_texts import HARD_TEXTS, hard_texts
from tokalign_lab.model.load import files_of, load_model, quiet
from tokalign_lab.model.tokenizer_checks import never_seen
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONVERTER = "convert_hf_to_gguf.py"
PARAGRAPHS = 100
"""Number of paragraphs to compare, in many languages, in addition to the `hard_texts`."""
CONTINUATIONS, PROMPT_TOKENS, NEW_TOKENS = 8, 32, 16
NEAR_TIE = 0.1
"""A token whose logit is this near to the largest may be chosen instead: llama.cpp multiplies in 16 bits."""
_MARK = re.compile(r"_?[<\[][!-~]+[>\]]")
_FROM_LLAMA_CPP = (CONVERTER, "conversion/", "gguf-py/")  # what the converter needs of llama.cpp's source


def export_gguf(model: str, out: Path, converter: str | None = None, progress: Progress = silent) -> dict[str, Any]:
    """Write a model as a GGUF file and compare it with the model in transformers.

    Raises `InputError` if there is no such model or no converter, or the converter fails. Returns `gguf` (the file),
    `verdict`, `evidence` and `advice` (as of `verify_gguf`), and the numbers behind them.

    Parameters
    ----------
    model : model folder, catalogue name or hub id
    out : the file to write
    converter : llama.cpp's `convert_hf_to_gguf.py`, a folder of llama.cpp's source, or the source archive (`.tar.gz`)
        of llama-cpp-python. By default the script is searched on the PATH.
    progress : called with each step
    """
    folder = files_of(model)
    vocabulary = load_vocabulary(str(folder))
    with _script(converter) as script, atomic_file(out) as temporary:
        progress(0.0, "converting")
        _convert(script, folder, temporary)
        _rename_unreachable(vocabulary, temporary)
        progress(0.5, "comparing with transformers")
        found = verify_gguf(vocabulary, temporary)
    progress(1.0, "exported")
    verdict = {"verdict": found.severity, "evidence": found.evidence, "advice": found.advice}
    return {"gguf": str(out), **verdict, **found.values}


@contextmanager
def _script(converter: str | None) -> Iterator[Path]:
    """Yield the path of llama.cpp's converter."""
    place = converter or shutil.which(CONVERTER)
    if place is None:
        raise InputError(
            f"llama.cpp's {CONVERTER} is not on the PATH; give --converter: the script, a folder of llama.cpp's "
            "source, or llama-cpp-python's source archive (pip download --no-deps --no-binary :all: llama-cpp-python)."
        )
    path = from_home(place)
    if path.is_file() and path.suffix == ".py":
        yield path
    elif path.is_dir() and (path / CONVERTER).is_file():
        yield path / CONVERTER
    elif path.is_file() and tarfile.is_tarfile(path):
        with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
            for member in archive:
                _, inside, name = member.name.partition("/vendor/llama.cpp/")
                if inside and name.startswith(_FROM_LLAMA_CPP):
                    member.name = name
                    archive.extract(member, folder, filter="data")
            if not (Path(folder) / CONVERTER).is_file():
                raise InputError(f"The archive '{path}' has no vendor/llama.cpp/{CONVERTER}; give another --converter.")
            yield Path(folder) / CONVERTER
    else:
        raise InputError(f"There is no {CONVERTER} at '{path}'; give the script, its folder or a source archive.")


def _convert(script: Path, folder: Path, out: Path) -> None:
    """Run the converter, without a network."""
    done = subprocess.run(
        [sys.executable, str(script), str(folder), "--outfile", str(out)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode or not out.stat().st_size:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it wrote nothing"]
        raise InputError(f"llama.cpp's converter cannot convert '{folder}': {lines[-1].strip().rstrip('.')}.")


def _rename_unreachable(vocabulary: Vocabulary, gguf: Path) -> None:
    """Reverse the names of tokens in the file that look like control tokens, are ordinary ones, and are never encoded.

    llama.cpp makes each token named `</s>`, `<EOT>`, ... a control token that ends a text. In Qwen2's vocabulary it is
    an ordinary token, and the text `</s>` is three others.
    """
    names = {i: vocabulary.raw_token(i) for i in range(vocabulary.size) if not vocabulary.is_control[i]}
    marks = {i: name for i, name in names.items() if _MARK.fullmatch(name) and vocabulary.id_of_raw(name[::-1]) is None}
    unseen = never_seen(vocabulary, marks) if vocabulary.kind == "byte-level" else []
    if unseen:
        from gguf import GGUFReader

        tokens = GGUFReader(gguf, "r+").fields["tokenizer.ggml.tokens"]
        for token_id in unseen:
            name = tokens.parts[tokens.data[token_id]]
            name[:] = name[::-1].copy()


def verify_gguf(vocabulary: Vocabulary, gguf: Path) -> Finding:
    """Compare the ids of texts and greedy continuations in llama.cpp with those in transformers.

    `vocabulary` is that of the model's folder, by the folder's name.
    Returns a finding: "ok" if all are the same; "warn" if only texts differ that the tokenizer's normalizer changes,
    and they have the same ids after it; "fail" if something else differs; "not verified" without a runtime. Its values
    are the numbers of texts and tokens that were compared, and of those that differ.
    """
    if not llama_cpp.is_installed():
        evidence = "There is no llama.cpp runtime here, so nothing was compared."
        return Finding("GGUF", "not verified", evidence, "Run: pip install 'tokalign-lab[gguf]', and export again.")
    with quiet():
        tokenizer, model = vocabulary.tokenizer, load_model(vocabulary.name)
    paragraphs = list(islice(_paragraphs(), PARAGRAPHS))
    texts = [*hard_texts(tokenizer.all_special_tokens), *paragraphs]
    ids: list[list[int]] = [tokenizer(text)["input_ids"] for text in texts]
    normalizer = tokenizer.backend_tokenizer.normalizer
    normalized = {}
    if normalizer is not None and vocabulary.kind == "byte-level":  # llama.cpp has none for these
        normalized = {i: new for i, text in enumerate(texts) if (new := normalizer.normalize_str(text)) != text}
    prompts = [those[:PROMPT_TOKENS] for those in ids[HARD_TEXTS : HARD_TEXTS + CONTINUATIONS]]
    logits = [_greedy_logits(model, prompt) for prompt in prompts]
    best = [rows.argmax(dim=1).tolist() for rows in logits]
    try:
        answer = llama_cpp.ask(gguf, [*texts, *normalized.values()], list(zip(prompts, best, strict=True)))
    except llama_cpp.LlamaCppError as error:
        return Finding("GGUF", "fail", f"llama.cpp cannot use the file: {first_line(error)}.", "Use another converter.")
    other = [place for place, (here, there) in enumerate(zip(ids, answer.ids, strict=False)) if here != there]
    again = dict(zip(normalized, answer.ids[len(texts) :], strict=True))
    by_normalizer = [place for place in other if again.get(place) == ids[place]]
    gaps = [
        rows.max(dim=1).values - rows[range(NEW_TOKENS), chosen]
        for rows, chosen in zip(logits, answer.chosen, strict=True)
    ]
    wrong = [number for number, lost in enumerate(gaps) if not float(lost.max()) <= NEAR_TIE]
    values = {
        "runtime": answer.runtime,
        "texts": len(texts),
        "other_ids": len(other),
        "other_ids_normalized": len(other) - len(by_normalizer),
        "continuations": len(prompts),
        "other_continuations": len(wrong),
        "near_ties": sum(here != there for here, there in zip(chain(*best), chain(*answer.chosen), strict=True)),
    }
    problems = []
    if other:
        first = other[0]
        tokens = [tokenizer.convert_ids_to_tokens(those) for those in _where_they_part(answer.ids[first], ids[first])]
        problems.append(
            f"{len(other)} of {len(texts)} texts have other ids; the first is {texts[first]!r}: "
            f"{tokens[0]} instead of {tokens[1]}"
        )
    if wrong:
        number = wrong[0]
        place = next(i for i in range(NEW_TOKENS) if not float(gaps[number][i]) <= NEAR_TIE)
        written = [tokenizer.convert_ids_to_tokens(those[number][place]) for those in (answer.chosen, best)]
        problems.append(
            f"{len(wrong)} of {len(prompts)} continuations differ; the first writes {written[0]!r} instead of "
            f"{written[1]!r} as token {place + 1} after {tokenizer.decode(prompts[number])!r}"
        )
    if other == by_normalizer and other and not wrong:
        evidence = (
            f"In {answer.runtime}, {problems[0]}; normalized by the tokenizer's own normalizer, all have the same."
        )
        advice = "llama.cpp does not normalize text for this tokenizer; do it before, for example to Unicode NFC."
        return Finding("GGUF", "warn", evidence, advice, values)
    if problems:
        evidence = f"In {answer.runtime}, {'; '.join(problems)}."
        return Finding("GGUF", "fail", evidence, "The file is written, but it is not this model.", values)
    evidence = (
        f"In {answer.runtime}, {len(texts)} texts have the same ids as in transformers, and {len(prompts)} greedy "
        f"continuations of {NEW_TOKENS} tokens are the same ({several(values['near_ties'], 'near tie')})."
    )
    return Finding("GGUF", "ok", evidence, values=values)


def _paragraphs() -> Iterator[str]:
    """Yield paragraphs of the declaration of human rights, cycling through the languages without end."""
    long = [[line for line in made["text"].split("\n") if len(line) > 100] for made in udhr_documents()]
    for number in range(max(map(len, long))):
        yield from (lines[number] for lines in long if number < len(lines))


@torch.inference_mode()
def _greedy_logits(model: PreTrainedModel, prompt: list[int]) -> torch.Tensor:
    """Continue a prompt greedily; returns the logits of the new tokens, float32 (NEW_TOKENS, vocab_size)."""
    rows, ids, cache = [], prompt, None
    for _ in range(NEW_TOKENS):
        made = model(torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True)
        cache = made.past_key_values
        rows.append(made.logits[0, -1].float().cpu())
        ids = [int(rows[-1].argmax())]
    return torch.stack(rows)


def _where_they_part(*both: list[int]) -> list[list[int]]:
    """Return a few ids of each list from the first difference on."""
    equal = next((i for i, (one, other) in enumerate(zip(*both, strict=False)) if one != other), min(map(len, both)))
    return [ids[equal : equal + 3] for ids in both]
