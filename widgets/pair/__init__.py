"""Choosing a pair of tokenizers."""
