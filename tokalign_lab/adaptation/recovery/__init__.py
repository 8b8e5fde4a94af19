"""Recovery: losses that bring a converted model back, taught by the source model with its own tokenizer."""
