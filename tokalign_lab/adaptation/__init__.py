"""Tuning a rearranged model back: settings, data in order, two stages, events."""
