"""Frozen networks that a user brings: an image becomes maps of features, and these become cells."""
