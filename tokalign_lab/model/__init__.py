"""A causal language model: load it, give it new rows, save it with every id right."""
