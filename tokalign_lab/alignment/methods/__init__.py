"""The recipes: tokens copied by bytes, comparable vectors, and how each method makes a row."""
