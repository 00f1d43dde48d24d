"""Comparisons with other methods, and the paper's figures."""
