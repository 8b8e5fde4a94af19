"""Inspect, correct and diagnose a lexicon."""
