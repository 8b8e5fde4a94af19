"""Give a model the rows of its new vocabulary (TokAlign, step 4).

`rows` builds the two matrices, a head's bias, and further tables with one row per token. This module fits the model
around them: its sizes, the special ids in its configurations, its ties. A tied model is untied if the lexicon has
separate output rows. Nothing else in the model changes. `rearrange` works on a model in memory, `stream` on its files.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tokalign_lab.errors import InputError
from tokalign_lab.model.rows import new_rows, padded_size, picked_rows, plan_rows
from tokalign_lab.model.special_ids import check_positions, move_special_ids
from tokalign_lab.model.vocabulary_tensors import further_tables, set_tensor, vocabulary_sizes
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from tokalign_lab.alignment.lexicon import Lexicon


class NewMatrices:
    """Makes the new rows of each part of one model, when they are needed, and fits the model around them.

    Raises `InputError` as `rearrange`.

    Parameters
    ----------
    model : the source model; it may be on the meta device
    lexicon, source, target, seed, keep_tied, pad_to_multiple_of : as for `rearrange`

    Attributes
    ----------
    size : rows of the new matrices
    tied : whether one new matrix is both embedding and head
    further : list of str
        Names in the model of its `further_tables`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        lexicon: Lexicon,
        source: Vocabulary,
        target: Vocabulary,
        seed: int,
        keep_tied: bool,
        pad_to_multiple_of: int | None,
    ) -> None:
        lexicon.check(source, target)
        old_input, old_output = model.get_input_embeddings(), model.get_output_embeddings()
        if old_output is None:
            raise InputError(
                f"A model of type {model.config.model_type!r} has no output head; use a causal language model."
            )
        self.size = padded_size(target.size, pad_to_multiple_of)
        self.tied = old_output.weight is old_input.weight and (keep_tied or not lexicon.has_output)
        self._seed = seed
        rows = [int(module.weight.shape[0]) for module in (old_input, old_output)]
        configured = model.config.get_text_config().vocab_size
        if rows[0] != configured:  # CPM-Ant's prompts have rows after the vocabulary's
            raise InputError(
                f"The model's embedding has {rows[0]} rows and its configuration a vocab_size of {configured}; "
                "the other rows are not for tokens, so the model cannot have another vocabulary."
            )
        check_positions(model, target)
        self._lexicon, self._source, self._target = lexicon, source, target
        plan = partial(plan_rows, lexicon, source, target, size=self.size)
        self._input, self._output = plan(rows[0]), plan(rows[1], side="output")
        self._tables = {
            # ids without a row read row 0, as in Gemma 3n; one number per token is a bias of the output (Reformer)
            name: plan(len(table), side="output" if table.dim() == 1 else "input", beyond=0)
            for name, table in further_tables(model).items()
        }
        self.further = list(self._tables)

    def part(self, name: str, old: torch.Tensor) -> torch.Tensor:
        """Make a part from the old one, (size, ...) in its dtype; it is named as in `Shards.names`."""
        if name in self._tables and old.is_floating_point():
            rows = new_rows(old.reshape(len(old), -1), self._tables[name], self._seed)
            return rows.reshape(self.size, *old.shape[1:])
        if name in self._tables:
            return picked_rows(old, self._lexicon, self.size, self._source.start_id or 0)
        side = name.split()[0]
        if side == "bias":
            return new_rows(old.unsqueeze(1), self._output, self._seed + 2).squeeze(1)
        if side == "input" or self.tied:
            return new_rows(old, self._input, self._seed)
        return new_rows(old, self._output, self._seed + 1)

    def fit(self, model: PreTrainedModel) -> None:
        """Fit sizes, ties and the ids in the configurations to the target vocabulary; the rows' values are made later.

        The model is changed in place; it may be on the meta device.
        """
        if not self.tied:
            untie(model)
        text = model.config.get_text_config()
        sizes, old_rows, before = vocabulary_sizes(text), text.vocab_size, dict(vars(text))
        with torch.random.fork_rng(devices=[]):  # resizing initialises rows that are overwritten later
            model.resize_token_embeddings(self.size, mean_resizing=False)
        model.get_output_embeddings().out_features = self.size
        for name in sizes:
            setattr(text, name, self.size)
        if getattr(model.config, "vocab_size", None) == old_rows:  # a second copy, outside the text's part
            model.config.vocab_size = self.size
        move_special_ids(model.config, model.generation_config, self._source, self._target, old_rows)
        generation = model.generation_config
        if generation is not None:
            unused = [*np.flatnonzero(self._target.is_hole).tolist(), *range(self._target.size, self.size)]
            generation.suppress_tokens = [*(generation.suppress_tokens or ()), *unused] or None
            # transformers saves published contradictions (a temperature without sampling), unless the file was changed.
            generation._original_object_hash = hash(generation)
        embedding = model.get_input_embeddings()
        if getattr(embedding, "padding_idx", None) is not None:  # the row that is never trained
            embedding.padding_idx = self._target.roles.get("pad")
        _update_module_copies(model, before)


def rearrange(
    model: PreTrainedModel,
    lexicon: Lexicon,
    source: Vocabulary,
    target: Vocabulary,
    seed: int = 0,
    keep_tied: bool = False,
    pad_to_multiple_of: int | None = None,
) -> PreTrainedModel:
    """Make a new model that reads and writes the target vocabulary.

    Raises `InputError` if the lexicon belongs to other tokenizers, the model has no output head, the source tokenizer
    is not the model's, the multiple is not positive, or a part of the model cannot be converted to another vocabulary:
    see `further_tables`, `check_positions` and `move_special_ids`.

    Parameters
    ----------
    model
        A causal language model whose tokenizer is `source`; it is not changed.
    lexicon
        The source rows that each target row is made from.
    source, target
        The two vocabularies.
    seed
        Seed of random rows, if the lexicon has any.
    keep_tied
        Leave tied matrices tied even if the lexicon has separate output rows: its input rows are used for both. A model
        with a large vocabulary is then much smaller, but its initial loss is larger.
    pad_to_multiple_of
        Add rows until their number is a multiple of this, which some hardware needs. Padding never has the largest
        logit (see `rows`), and `generation_config.suppress_tokens` keeps transformers from sampling it.

    Returns
    -------
    PreTrainedModel
        Its matrices have exactly `target.size` rows, or the next multiple. Tied matrices stay tied unless the lexicon
        has separate output rows. The dtype is kept, copied rows and every other tensor are bit-equal to the source's,
        and the ids in its configurations are the target's.
    """
    made = NewMatrices(model, lexicon, source, target, seed, keep_tied, pad_to_multiple_of)
    old_input, old_head = model.get_input_embeddings(), model.get_output_embeddings()
    input_rows = made.part("input", old_input.weight)
    output_rows = input_rows if made.tied else made.part("output", old_head.weight)
    old_bias = getattr(old_head, "bias", None)
    bias = None if old_bias is None else made.part("bias", old_bias)
    further = {name: made.part(name, model.state_dict()[name]) for name in made.further}

    new = copy.deepcopy(model)
    made.fit(new)
    embedding, head = new.get_input_embeddings(), new.get_output_embeddings()
    embedding.weight = nn.Parameter(input_rows, requires_grad=embedding.weight.requires_grad)
    trained = head.weight.requires_grad
    head.weight = embedding.weight if made.tied else nn.Parameter(output_rows, requires_grad=trained)
    if bias is not None:
        head.bias = nn.Parameter(bias, requires_grad=head.bias.requires_grad)
    for name, table in further.items():
        set_tensor(new, name, table)
    return new


def untie(model: PreTrainedModel) -> None:
    """Untie the head, and record this in the configuration."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    mark_untied(model.config)


def mark_untied(config: PretrainedConfig) -> None:
    """Set `tie_word_embeddings` to false in a configuration and in that of its text part."""
    config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False


def _update_module_copies(model: PreTrainedModel, before: dict[str, Any]) -> None:
    """Update the modules' copies of numbers that have changed in the text configuration since `before`.

    XLM finds the padding of an input by such a copy, `pad_index`.
    """
    text = model.config.get_text_config()
    now, other_names = vars(text), text.attribute_map
    for module in model.modules():
        if getattr(module, "config", text) not in (text, model.config):  # such as the part for images
            continue
        for name, value in list(vars(module).items()):
            held = other_names.get(name, name)
            if type(value) is int and before.get(held) == value and type(now.get(held)) is int:
                setattr(module, name, now[held])
