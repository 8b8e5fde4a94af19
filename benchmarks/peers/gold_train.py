"""Cross-tokenizer distillation by TRL's GOLD, as shipped. Runs in a separate environment, not in ours.

    python3 -m venv GOLD
    GOLD/bin/pip install torch==2.13.0 trl==1.16.0

GOLD aligns the bytes of student and teacher tokens and compares their distributions: tokens with the same string by the
generalised Jensen-Shannon divergence (`beta` 0: forward KL), the others by sorted probabilities (ULD, hybrid). It can
do this for byte-level tokenizers only. With a SentencePiece tokenizer (Gemma's) it raises NotImplementedError, so its
configuration here turns the alignment off. Then it is ULD of 2024, which compares sorted probabilities position by
position, although the n-th tokens of student and teacher differ. `losses.json` shows which of the two was used. The
student keeps its own tokenizer and learns from the text only, not from text that it generates (`lmbda` 0), with cross
entropy in addition to the divergence, like our loss. GOLD does not pack: each passage is a separate example, and its
first words are the prompt, which is not trained on.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from trl.experimental.gold import GOLDConfig, GOLDTrainer
from trl.experimental.utils import is_byte_level_tokenizer

PROMPT_WORDS = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--student", "--teacher", "--text", "--result"):
        parser.add_argument(name, required=True)
    for name in ("--steps", "--batch-size", "--length", "--seed"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    options = parser.parse_args()
    student, teacher = (
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32") for folder in (options.student, options.teacher)
    )
    tokenizer = AutoTokenizer.from_pretrained(options.student)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    others = AutoTokenizer.from_pretrained(options.teacher)
    aligned = all(is_byte_level_tokenizer(one.backend_tokenizer) for one in (tokenizer, others))
    arguments = GOLDConfig(
        output_dir=str(Path(options.result) / "checkpoints"),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        max_grad_norm=0.3,
        seed=options.seed,
        max_length=options.length,
        max_completion_length=options.length // 2,  # unused, because the student generates nothing
        lmbda=0.0,
        beta=0.0,
        use_uld_loss=True,
        use_extended_uld=aligned,
        uld_use_hybrid_loss=aligned,
        uld_crossentropy_weight=1.0,
        teacher_tokenizer_name_or_path=options.teacher,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = GOLDTrainer(
        model=student,
        teacher_model=teacher,
        args=arguments,
        train_dataset=Dataset.from_list(examples(options.text, tokenizer, options.length)),
        processing_class=tokenizer,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    trainer.model.save_pretrained(options.result)
    tokenizer.save_pretrained(options.result)
    (Path(options.result) / "losses.json").write_text(
        json.dumps({"aligned": aligned, "losses": losses}), encoding="utf-8"
    )


def examples(path: str, tokenizer: PreTrainedTokenizerBase, length: int) -> list[dict[str, str]]:
    """Read passages, one per line, cut them to the length that fits, and use the first words of each as its prompt.

    GOLD would keep only the end of a longer passage, and refuse it if no prompt remains. It adds a token at the end.
    """
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["text"].lstrip()
        starts = [start for start, _ in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]
        text = text[: starts[length - 1]] if len(starts) >= length else text
        prompt = re.match(rf"(?:\S+\s+){{{PROMPT_WORDS - 1}}}\S+", text)  # a prompt of white space alone is not allowed
        if prompt is not None and prompt.end() < len(text):
            found.append({"prompt": prompt[0], "completion": text[prompt.end() :]})
    return found


if __name__ == "__main__":
    main()
