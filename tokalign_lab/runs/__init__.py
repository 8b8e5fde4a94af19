"""Jobs in processes of their own, and the folders that are the only truth about them."""
