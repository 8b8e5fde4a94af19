"""The model card: metadata for a hub, and a table of how the model was made."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from tokalign_lab.catalog import find, is_hub_id, is_known

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ON_THE_HUB = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct", "gemma-3-270m": "google/gemma-3-270m"}
_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "Gemma": "gemma", "Llama 3": "llama3"}
"""How the licences of the catalogue begin -> their names on the hub."""
_CARRIED = ("license", "license_name", "license_link", "language", "datasets")


def card_data(provenance: dict[str, Any]) -> ModelCardData:
    """Return metadata for a hub: base model, licence, languages, datasets.

    They are read from the card in the source model's folder. For a hub id, only the name is used, without a network.
    """
    origin = str(provenance.get("model", ""))
    metadata: dict[str, Any] = {"base_model": origin} if is_hub_id(origin) and not os.path.exists(origin) else {}
    if is_known(origin):
        licence = find(origin).licence
        metadata["base_model"] = _ON_THE_HUB.get(origin)
        metadata["license"] = next((name for begin, name in _LICENCES.items() if licence.startswith(begin)), None)
    elif origin and os.path.isfile(os.path.join(origin, "README.md")):  # false for a name that no file can have
        try:
            theirs = ModelCard.load(Path(origin) / "README.md", ignore_metadata_errors=True).data
        except Exception:  # cards are written by hand, and a wrong one must not prevent saving
            theirs = ModelCardData()
        metadata |= {name: getattr(theirs, name, None) for name in ("base_model", *_CARRIED)}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["tokalign-lab", "vocabulary-adaptation"],
        **{name: value for name, value in metadata.items() if value},
    )


def card_text(name: str, provenance: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """Write the model card in Markdown."""
    lines = ["---", card_data(provenance).to_yaml(), "---", f"# {name}", ""]
    origin = provenance.get("model", "a language model")
    lines.append(f"{origin} with the vocabulary of {provenance['tokenizer']['name']}, made with tokalign-lab.")
    lines += ["", "| | |", "|---|---|"]
    rows: dict[str, Any] = {"made from": origin}
    with suppress(KeyError, TypeError, ValueError, AttributeError):  # an odd record must not prevent saving
        rows |= _lexicon_rows(provenance.get("lexicon") or {})
    rows["vocabulary"] = f"{provenance['tokenizer']['size']:,} ids"
    if "begin_texts_with" in provenance:
        rows["begin texts with"] = (
            f"`{provenance['begin_texts_with']}`: the model was trained with such a token and this tokenizer adds none"
        )
    rows |= {"lost": " ".join(map(str, provenance["lost"]))} if provenance.get("lost") else {}
    rows["chat template"] = "yes" if tokenizer.chat_template else "none"
    for group in ("calibration", "training", "scores"):
        values = {key: value for key, value in (provenance.get(group) or {}).items() if not isinstance(value, dict)}
        rows |= {f"{group} {key}" if key in rows else key: value for key, value in values.items()}
    rows["versions"] = ", ".join(f"{package} {version}" for package, version in provenance["versions"].items())
    lines += [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
    lines += ["", "`tokalign.json` has the same for programs.", ""]
    return "\n".join(lines)


def _lexicon_rows(lexicon: dict[str, Any]) -> dict[str, str]:
    """Return rows about the model's lexicon; empty without one."""
    if not lexicon:
        return {}
    return {
        "tokenizers": f"{lexicon['source']['name']} → {lexicon['target']['name']}",
        "recipe": f"{lexicon['recipe']}, seed {lexicon['seed']}",
        "text": f"{lexicon['text_bytes']:,} bytes, SHA-256 {lexicon['text_hash']}",
        **_score_rows(lexicon.get("scores") or {}),
    }


def _score_rows(scores: dict[str, Any]) -> dict[str, str]:
    """Return rows with a lexicon's scores, both directions in one row."""
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
