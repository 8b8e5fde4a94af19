"""Jobs in separate processes, and the folders that are their only record."""
