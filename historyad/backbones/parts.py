"""The features of a cell, by what they are of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Some features, and on how many of their principal components cells are compared.

    Those ``of_filters`` say how strong a surface is, which differs between good things: they have
    no say in what an image is as a whole.
    """

    n_features: int
    n_components: int
    of_filters: bool = False
