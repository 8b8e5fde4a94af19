"""Recovery: losses that teach a converted model from the source model, which reads with its own tokenizer."""
