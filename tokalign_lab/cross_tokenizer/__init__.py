"""Reads one text with two tokenizers: what a source model predicts, in the tokens of another vocabulary."""
