"""Recovery: losses that bring a moved model back, taught by the source model with its own tokenizer."""
