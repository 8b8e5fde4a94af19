"""Choose and compare a pair of tokenizers."""
