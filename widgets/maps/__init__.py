"""Both embedding spaces side by side."""
