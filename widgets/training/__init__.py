"""Watching tuning runs."""
