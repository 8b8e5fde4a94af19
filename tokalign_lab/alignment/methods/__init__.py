"""The methods that recipes combine: copies of shared tokens, comparable vectors, and computing the other rows."""
