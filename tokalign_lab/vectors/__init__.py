"""Token vectors of one vocabulary, or of two in one space."""
