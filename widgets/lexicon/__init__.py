"""Inspecting, correcting and diagnosing a lexicon."""
