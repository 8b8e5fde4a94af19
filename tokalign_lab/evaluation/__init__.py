"""Measurements: lexicon scores, held-out shared tokens, diagnosis, bits per byte, tasks, advice."""
