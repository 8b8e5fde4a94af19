"""Tuning a rearranged model back: settings, data in order, stages, events."""
