"""Make a lexicon from two vocabularies with vectors: neighbours, relative representations, recipes."""
