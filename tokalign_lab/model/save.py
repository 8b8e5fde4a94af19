"""Save a rearranged or tuned model as a folder that anyone can load.

`AutoModelForCausalLM` and `AutoTokenizer` of transformers 4.57 and 5 read the folder. `README.md` (for readers) and
`tokalign.json` (for programs) record its origin. The folder is written completely or not at all, and only after it was
loaded again and gave the right ids and logits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import evaluation_mode
from tokalign_lab.files import atomic_folder, holds_only, write_json
from tokalign_lab.model.card import card_text
from tokalign_lab.model.hard_texts import TEXTS
from tokalign_lab.model.load import files_of, load_model, quiet
from tokalign_lab.model.quantised import SETTINGS_FILES
from tokalign_lab.model.save_config import add_older_names
from tokalign_lab.model.save_tokenizer import CODE_FILE, for_prompts, save_tokenizer
from tokalign_lab.model.sentencepiece_model import write_sentencepiece_model
from tokalign_lab.model.shards import files_of_tensors, weights_hash
from tokalign_lab.model.special_tokens import CONVERSATIONS, lost_with, rendered
from tokalign_lab.provenance import installed_versions, read_record
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# names of the files that transformers and this module write into a model's folder
_WRITTEN = (
    r"tokalign\.json|README\.md|(generation_)?config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|"
    r"tokenizer(_config)?\.json|tokenizer\.model|special_tokens_map\.json|chat_template\.jinja|additional_chat_templates|"
    + "|".join(map(re.escape, (CODE_FILE, *SETTINGS_FILES)))
)


# share of the largest logit by which a loaded model may differ, since attention may be computed in another way
_TOLERANCE, _TOLERANCE_OF_HALVES = 1e-3, 5e-2
_CHECKED_TOKENS = 32
_OF_THE_MODEL = ("model_max_length", "padding_side", "truncation_side")
"""Settings of a tokenizer that depend on what the model was trained for."""


def save_model(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    folder: Path | str,
    card: dict[str, Any] | None = None,
    source: Vocabulary | None = None,
) -> Path:
    """Write model, tokenizer, model card and provenance into `folder`.

    Raises `InputError` if the model has fewer rows than the vocabulary has ids, the folder has other files, or the
    result cannot be loaded or gives other ids or logits.

    Parameters
    ----------
    model
        The model; its matrices have the vocabulary's ids.
    vocabulary
        The model's tokenizer.
    folder
        Where to write. A model folder that this package wrote before is replaced as a whole.
    card
        The record, as plain JSON values: `model` (the model it was made from), `lexicon` (the lexicon's provenance),
        `training`, `scores`.
    source
        The model's former vocabulary. Its chat template, which the model was trained with, is kept if all of its
        control strings are control tokens of the new vocabulary (see `keep_special_tokens`). Otherwise the new
        tokenizer keeps its own template, and `tokalign.json` lists the losses under `lost`.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    vocabulary.check_rows(int(model.get_input_embeddings().weight.shape[0]))
    with atomic_folder(folder, is_saved_model) as temporary:
        model.save_pretrained(temporary)
        save_other_files(temporary, folder.name, vocabulary, card, source)
        check_loads_alike(model, vocabulary, temporary)
    return folder


@torch.inference_mode()
def check_loads_alike(model: PreTrainedModel, vocabulary: Vocabulary, folder: Path) -> None:
    """Load a folder that was just written and compare the logits of a short text with those of the model in memory.

    Raises `InputError` when the folder cannot be loaded, lacks weights, or its logits differ.
    """
    ids = torch.from_numpy(vocabulary.encode([TEXTS[0]])[0][:_CHECKED_TOKENS]).long()[None].to(model.device)
    logits = []
    with quiet():
        for one in (model, load_model(str(folder), device=model.device, dtype="auto")):
            with evaluation_mode(one):
                logits.append(torch.nan_to_num(one(ids, use_cache=False).logits.float()))
    difference, scale = float((logits[0] - logits[1]).abs().max()), float(logits[0].abs().max())
    wide = model.dtype in (torch.float32, torch.float64)
    if not difference <= (_TOLERANCE if wide else _TOLERANCE_OF_HALVES) * scale:
        raise InputError(
            f"The saved model is not the one in memory: its logits differ by {difference:.3g} of {scale:.3g}, so "
            f"transformers does not read a {model.config.model_type!r} model as it writes it; nothing was saved."
        )


def is_saved_model(folder: Path) -> bool:
    """Whether `save_model` or `stream.rearrange_files` wrote a folder, and nothing was added to it."""
    return holds_only(folder, "tokalign.json", _WRITTEN)


def model_files(folder: Path) -> list[str]:
    """Return the files in a model's folder of the names that `save_model` writes, relative to the folder, sorted.

    The files of its weights may have any names. Raises `InputError` if they are damaged.
    """
    weights = {*(files_of_tensors(folder) or {}).values()}
    own = (entry for entry in folder.iterdir() if entry.name in weights or re.fullmatch(_WRITTEN, entry.name))
    files = (file for entry in own for file in ([entry] if entry.is_file() else entry.rglob("*")) if file.is_file())
    return sorted(file.relative_to(folder).as_posix() for file in files)


def source_name(moved: str) -> str:
    """Return the name of the model that a converted (or tuned) model was made from; "" where its folder names none.

    Raises InputError when there is no converted model of that name.
    """
    return _source_in(read_record(files_of(moved)))


def _source_in(record: dict[str, Any]) -> str:
    return str(record.get("model", ""))


def load_source(moved: str, device: torch.device | str = "cpu") -> tuple[PreTrainedModel, Vocabulary]:
    """Load the model that a converted (or tuned) model was made from, in float32, and its tokenizer.

    Parameters
    ----------
    moved : the folder that `rearrange` or `adapt` wrote
    device : where to put the model

    Raises
    ------
    InputError
        If the folder does not name the source, or the source cannot be loaded or has another tokenizer or other
        weights now.
    """
    record = read_record(files_of(moved))
    name = _source_in(record)
    if not name:
        raise InputError(
            f"{Path(moved) / 'tokalign.json'} does not name the model that was converted, so there is no source to "
            "learn from; write the folder with `tokalign-lab rearrange`, or train on the next token alone."
        )
    vocabulary, made_from = load_vocabulary(name), record.get("lexicon", {}).get("source")
    fingerprint = made_from.get("fingerprint") if isinstance(made_from, dict) else None
    weights = record.get("source_weights")
    changed = None
    if fingerprint is not None and vocabulary.fingerprint != fingerprint:
        changed = "another tokenizer"
    elif weights is not None and weights_hash(files_of(name)) not in (None, weights):
        changed = "other weights"
    if changed:
        raise InputError(
            f"{name!r} has {changed} than the model that was converted to {moved!r}, so it is no source to "
            "learn from; put that model back, or train on the next token alone."
        )
    return load_model(name, device), vocabulary


def save_other_files(
    folder: Path, name: str, vocabulary: Vocabulary, card: dict[str, Any] | None, source: Vocabulary | None
) -> list[str]:
    """Write everything except the weights and `config.json`: tokenizer, model card, provenance.

    Returns what the new tokenizer lacks of the source's, one sentence each. Raises `InputError` if the folder would be
    loaded with another tokenizer.

    Parameters
    ----------
    folder : where to write; it has the model's `config.json` already
    name : the model's name in the model card
    vocabulary, card, source : as for `save_model`
    """
    add_older_names(folder)
    tokenizer = for_prompts(vocabulary.tokenizer)
    if source is not None:
        _keep_template(tokenizer, source, vocabulary)
        for setting in _OF_THE_MODEL:
            setattr(tokenizer, setting, getattr(source.tokenizer, setting))
    write_sentencepiece_model(vocabulary, folder)
    save_tokenizer(tokenizer, folder)
    lost = [*(card or {}).get("lost", ())]
    lost += [] if source is None else lost_with(source, vocabulary, tokenizer.chat_template)
    provenance = {
        **(card or {}),
        "tokenizer": {
            "name": vocabulary.name,
            "fingerprint": vocabulary.fingerprint,
            "size": vocabulary.size,
        },
        "versions": installed_versions(),
    }
    if source is not None and _adds_start(source) and not _adds_start(vocabulary):
        provenance["begin_texts_with"] = vocabulary.raw_token(vocabulary.start_id or 0)
    if lost:
        provenance["lost"] = lost
    write_json(folder / "tokalign.json", provenance)
    (folder / "README.md").write_text(card_text(name, provenance, tokenizer), encoding="utf-8")
    return lost


def _adds_start(vocabulary: Vocabulary) -> bool:
    """Whether the tokenizer puts a special token before a text by default."""
    return vocabulary.start_id is not None and list(vocabulary.tokenizer("a")["input_ids"][:1]) == [vocabulary.start_id]


def _keep_template(tokenizer: PreTrainedTokenizerBase, source: Vocabulary, target: Vocabulary) -> None:
    """Give a copy of the target's tokenizer those chat templates of the source, by name, that it can use."""
    theirs = source.tokenizer.chat_template
    named = theirs if isinstance(theirs, dict) else {"": theirs} if theirs else {}
    fits = {name: template for name, template in named.items() if template_fits(template, source, target)}
    if fits:
        tokenizer.chat_template = fits if isinstance(theirs, dict) else fits[""]


def template_fits(template: str, source: Vocabulary, target: Vocabulary) -> bool:
    """Whether a chat template of the source can be used with the target's tokenizer.

    Every control string of the source that the template writes must be one control token of the target, a special
    token that it names (`bos_token`) must exist in both or in neither, and it must render.
    """
    for token_id in source.is_control.nonzero()[0]:
        written = source.raw_token(int(token_id))
        if written and written in template:
            target_id = target.id_of_raw(written)
            if target_id is None or not target.is_control[target_id]:
                return False
    theirs, ours = (set(vocabulary.tokenizer.special_tokens_map) for vocabulary in (source, target))
    if any(re.search(rf"\b{name}\b", template) for name in theirs ^ ours):
        return False
    return all(_renders(template, name, source, target) for name in CONVERSATIONS)


def _renders(template: str, name: str, source: Vocabulary, target: Vocabulary) -> bool:
    """Whether the target renders a conversation, or the source cannot either; an answer has to work."""
    if rendered(target, name, template) is not None:
        return True
    return rendered(source, name, template) is None and name != "an answer"
