"""Samples: every SOURCE that a command or `fit` accepts, opened."""
