"""Exact nearest neighbours in blocks, and the neighbourhoods of one token."""
