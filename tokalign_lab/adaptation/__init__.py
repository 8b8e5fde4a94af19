"""Tuning a converted model: settings, the order of the data, stages, events."""
