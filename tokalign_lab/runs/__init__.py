"""Runs: jobs in separate processes, each with a folder as its only record."""
