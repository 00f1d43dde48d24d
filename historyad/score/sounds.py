"""The companions of D_TV on recordings: those of images, and one for the spectrum.

A voice or a machine is known by which frequencies are loud, whenever they are: `spectrum` is the
distance to the nearest normal recordings by mean and deviation over time of each band, relative to
the gaps between these, as of rows of a table.
"""

from __future__ import annotations

import torch
from torch import Tensor

from historyad.constants import Rule
from historyad.method.networks import Critic, Shape
from historyad.score.blocks import Blocks
from historyad.score.companions import ImageCompanions
from historyad.score.gaussian import ImageGaussian
from historyad.score.neighbours import Bank, Neighbours


class SoundCompanions(ImageCompanions):
    """Companions of D_TV on pictures of recordings (C, bands, times)."""

    def __init__(
        self, near: Bank, blocks: Blocks, gaussian: ImageGaussian, spectra: Neighbours
    ) -> None:
        super().__init__(near, blocks, gaussian)
        self.spectra = spectra

    @property
    def rules(self) -> dict[str, Rule]:
        """How each view counts."""
        return {**super().rules, "spectrum": Rule()}

    @classmethod
    def fit(
        cls, images: Tensor, features: Tensor, known: ImageCompanions | None = None
    ) -> SoundCompanions:
        """Fit to normal pictures (N, C, bands, times) and their features (N, n_features).

        What others ``known`` of the same pictures say without features is taken from them.
        """
        others = ImageCompanions.fit(images, features, known)
        spectra = (
            known.spectra
            if isinstance(known, SoundCompanions)
            else Neighbours.of_vectors(spectra_of(images))
        )
        companions = cls(others.near, others.blocks, others.gaussian, spectra)
        companions.bank_gaussian.copy_(others.bank_gaussian)
        return companions

    @classmethod
    def build(
        cls, critic: Critic, shape: Shape, *, bank: int, components: int, spectra: int = 0
    ) -> SoundCompanions:
        """Return unfitted ones of these sizes, for pictures of ``shape``."""
        others = ImageCompanions.build(critic, shape, bank=bank, components=components)
        n_values = 2 * shape[0] * shape[1]
        return cls(others.near, others.blocks, others.gaussian, Neighbours(n_values, spectra))

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        return {**super().sizes, "spectra": len(self.spectra.bank)}

    def forward(self, x: Tensor, features: Tensor, n: int | None = None) -> dict[str, Tensor]:
        """Return the views of pictures (B, C, bands, times) besides that of the history."""
        return {**super().forward(x, features, n), "spectrum": self.spectra(spectra_of(x))}


def spectra_of(pictures: Tensor) -> Tensor:
    """Return mean and deviation over time of each band, (B, C, bands, times) to (B, values)."""
    deviations = pictures.std(3, correction=0)
    return torch.cat([pictures.mean(3), deviations], 2).flatten(1)
