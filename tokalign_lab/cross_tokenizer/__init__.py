"""One text read with two tokenizers: a source model's predictions, mapped to the tokens of another vocabulary."""
