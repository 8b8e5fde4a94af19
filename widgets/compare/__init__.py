"""Two lexicons or runs side by side."""
