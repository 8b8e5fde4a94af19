"""Save a rearranged or tuned model as a folder that anyone can load.

`AutoModelForCausalLM` and `AutoTokenizer` of transformers 4.57 and 5 read the folder; `README.md` tells people where it
comes from, and `tokalign.json` tells programs. The folder appears whole or not at all, and only after it was loaded
again and gave the ids and the logits that it should.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.files import atomic_folder, holds_only, write_json
from tokalign_lab.model.save_config import add_older_names
from tokalign_lab.model.save_tokenizer import CODE_FILE, for_prompts, save_tokenizer
from tokalign_lab.model.saved_model_check import check_loads_alike
from tokalign_lab.provenance import installed_versions
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# names of the files that transformers and this module write into a model's folder
_WRITTEN = (
    r"tokalign\.json|README\.md|(generation_)?config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|"
    r"tokenizer(_config)?\.json|tokenizer\.model|special_tokens_map\.json|chat_template\.jinja|" + re.escape(CODE_FILE)
)


def save_model(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    folder: Path | str,
    card: dict[str, Any] | None = None,
    source: Vocabulary | None = None,
) -> Path:
    """Write model, tokenizer, model card and provenance into `folder`.

    Parameters
    ----------
    model
        The model; its matrices have the vocabulary's ids.
    vocabulary
        The model's tokenizer.
    folder
        Where to. A model folder that this package wrote before is replaced as a whole.
    card
        What to say about it, as plain JSON values: `model` (what it was made from), `lexicon` (the lexicon's
        provenance), `training`, `scores`.
    source
        The vocabulary the model had before. Its chat template, which the model was trained with, is kept when
        all of its control strings are control tokens of the new vocabulary; else the new tokenizer keeps its own.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        When the folder holds anything else, or what was written cannot be loaded or gives other ids or logits.
    """
    folder = Path(folder)
    with atomic_folder(folder, is_saved_model) as temporary:
        model.save_pretrained(temporary)
        save_beside(temporary, folder.name, vocabulary, card, source)
        check_loads_alike(model, vocabulary, temporary)
    return folder


def is_saved_model(folder: Path) -> bool:
    """Whether `save_model` or `stream.rearrange_files` wrote a folder, and nothing was added to it."""
    return holds_only(folder, "tokalign.json", _WRITTEN)


def save_beside(
    folder: Path, name: str, vocabulary: Vocabulary, card: dict[str, Any] | None, source: Vocabulary | None
) -> None:
    """Write all that stands beside the weights: tokenizer, model card, provenance.

    Parameters
    ----------
    folder
        Where to; it has the model's `config.json` already.
    name
        What the model card calls the model.
    vocabulary, card, source
        As for `save_model`.

    Raises
    ------
    InputError
        When the folder would be loaded with another tokenizer.
    """
    add_older_names(folder)
    tokenizer = for_prompts(vocabulary.tokenizer)
    template = None if source is None else source.tokenizer.chat_template
    if source is not None and isinstance(template, str) and template_fits(template, source, vocabulary):
        tokenizer.chat_template = template
    save_tokenizer(tokenizer, folder)
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
    write_json(folder / "tokalign.json", provenance)
    (folder / "README.md").write_text(card_text(name, provenance, tokenizer), encoding="utf-8")


def _adds_start(vocabulary: Vocabulary) -> bool:
    """Whether the tokenizer, called as people call it, puts a special token before a text."""
    return vocabulary.start_id is not None and list(vocabulary.tokenizer("a")["input_ids"][:1]) == [vocabulary.start_id]


def template_fits(template: str, source: Vocabulary, target: Vocabulary) -> bool:
    """Whether a chat template of the source can be used with the target's tokenizer.

    Every control string of the source that the template writes must be one control token of the target, every
    role it names (`bos_token`) must exist there, and it must render.
    """
    for token_id in source.is_control.nonzero()[0]:
        written = source.raw_token(int(token_id))
        if written and written in template:
            target_id = target.id_of_raw(written)
            if target_id is None or not target.is_control[target_id]:
                return False
    if any(role not in target.roles for role in re.findall(r"\b(bos|eos|unk|pad)_token\b", template)):
        return False
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    try:
        target.tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    except Exception:  # a template is a program: it may fail in any way
        return False
    return True


def card_text(name: str, provenance: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """Write the model card in Markdown."""
    lexicon = provenance.get("lexicon") or {}
    lines = [
        "---",
        "library_name: transformers",
        "tags: [tokalign-lab, vocabulary-adaptation]",
        "---",
        f"# {name}",
        "",
    ]
    origin = provenance.get("model", "a language model")
    lines.append(f"{origin} with the vocabulary of {provenance['tokenizer']['name']}, made with tokalign-lab.")
    lines += ["", "| | |", "|---|---|"]
    rows: dict[str, Any] = {"made from": origin}
    if lexicon:
        rows["tokenizers"] = f"{lexicon['source']['name']} → {lexicon['target']['name']}"
        rows["recipe"] = f"{lexicon['recipe']}, seed {lexicon['seed']}"
        rows["text"] = f"{lexicon['text_bytes']:,} bytes, SHA-256 {lexicon['text_hash']}"
        rows |= _score_rows(lexicon.get("scores") or {})
    rows["vocabulary"] = f"{provenance['tokenizer']['size']:,} ids"
    if "begin_texts_with" in provenance:
        rows["begin texts with"] = (
            f"`{provenance['begin_texts_with']}`: the model was trained with such a token and this tokenizer adds none"
        )
    rows["chat template"] = "yes" if tokenizer.chat_template else "none"
    for group in ("calibration", "training", "scores"):
        rows.update({key: value for key, value in (provenance.get(group) or {}).items() if not isinstance(value, dict)})
    rows["versions"] = ", ".join(f"{package} {version}" for package, version in provenance["versions"].items())
    lines += [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
    lines += ["", "`tokalign.json` holds the same for programs.", ""]
    return "\n".join(lines)


def _score_rows(scores: dict[str, Any]) -> dict[str, str]:
    """Write a lexicon's scores, both directions in a row."""
    names = {"bleu1": "BLEU-1", "sentence_score": "sentence score", "bert_score": "BERTScore"}
    directions = (("target_to_source", "target to source"), ("source_to_target", "source to target"))
    return {
        f"lexicon's {shown}": ", ".join(f"{scores[name][way]:.4f} {written}" for way, written in directions)
        + f" ({scores['documents' if name == 'bleu1' else 'sentences']:,} held-out documents)"
        for name, shown in names.items()
        if name in scores
    }


def _cell(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) and abs(value) >= 0.01 else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
