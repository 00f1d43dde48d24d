"""The fitted model, its files, and how it is fitted."""
