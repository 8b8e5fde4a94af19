"""Align two vocabularies: recipes, comparable token vectors, nearest neighbours, and the lexicon they produce."""
