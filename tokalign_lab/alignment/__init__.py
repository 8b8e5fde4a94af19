"""Two vocabularies with vectors become a lexicon: neighbours, relative representations, recipes."""
