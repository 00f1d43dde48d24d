"""The companions of D_TV: views of a sample that are strong where D_TV is weak.

Far from the data, where it saw neither data nor history, D_TV extrapolates with either sign; a
distance to normal samples, or to a Gaussian, can only grow. Near the data, D_TV gives way to
whatever the history covers; but in the features that it learnt against that history, a sample
unlike every normal one has no near neighbour.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from historyad.constants import CONSTANTS, Rule
from historyad.method.networks import Critic, Shape
from historyad.score.blocks import Blocks
from historyad.score.gaussian import Gaussian, ImageGaussian, principal_components
from historyad.score.neighbours import Neighbours

_CHUNK = 512  # samples that are compared with a Gaussian at a time


def count(rule: Rule, view: Tensor) -> Tensor:
    """Return what standardised values of a view add to the score."""
    if rule.floor is None:
        return rule.weight * view
    if rule.squared:
        return rule.weight * (view - rule.floor).clamp(min=0).square()
    return rule.weight * view.clamp(min=rule.floor)


class Companions(nn.Module):
    """What stands beside D_TV: views by name, and how each counts."""

    @property
    def rules(self) -> dict[str, Rule]:
        """How each view counts in the score, that of the history among them."""
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        raise NotImplementedError

    def forward(self, x: Tensor, features: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        """Return the views of samples (B, ...) besides that of the history, {name: (B,)}."""
        raise NotImplementedError

    def usual(self, x: Tensor) -> Tensor | None:
        """Return what is usual in place of each value of a sample (values,), if that is known."""
        return None


class VectorCompanions(Companions):
    """Companions of D_TV on vectors."""

    def __init__(self, neighbours: Neighbours, gaussian: Gaussian) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.gaussian = gaussian

    @property
    def rules(self) -> dict[str, Rule]:
        """How each view counts; what D_TV says within the range of normal vectors does not."""
        return {
            "history": CONSTANTS.history_of_vectors,
            "neighbours": CONSTANTS.neighbours_of_vectors,
            "gaussian": CONSTANTS.gaussian_of_vectors,
        }

    @classmethod
    def fit(cls, samples: Tensor) -> VectorCompanions:
        """Fit to normal samples (N, values)."""
        neighbours = Neighbours.of_vectors(samples)
        return cls(neighbours, Gaussian.fit(samples, ridge=CONSTANTS.vector_ridge))

    @classmethod
    def build(cls, n_values: int, *, bank: int, components: int) -> VectorCompanions:
        """Return unfitted ones of these sizes."""
        neighbours = Neighbours(n_values, bank)
        return cls(neighbours, Gaussian(n_values, components))

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        return {"bank": len(self.neighbours.bank), "components": len(self.gaussian.components)}

    def usual(self, x: Tensor) -> Tensor | None:
        """Return what the nearest normal vectors have in place of each value of (values,)."""
        return self.neighbours.usual(x)

    def forward(self, x: Tensor, features: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        """Return the views of samples (B, values) besides that of the history, {name: (B,)}."""
        # No distance may hide a value that is not a number.
        unknown = torch.where(x.isfinite().all(1), 0.0, torch.nan)
        return {"neighbours": self.neighbours(x) + unknown, "gaussian": self.gaussian(x) + unknown}


class ImageCompanions(Companions):
    """Companions of D_TV on images: in pixels, and in what D_TV makes of them.

    The bank is searched once, by `pattern`; neighbours in other layers are taken from the
    candidates that this finds.
    """

    bank_gaussian: Tensor
    bank_features: Tensor

    def __init__(
        self,
        pattern: Neighbours,
        neighbours: Neighbours,
        blocks: Blocks,
        gaussian: ImageGaussian,
        features: Gaussian,
    ) -> None:
        super().__init__()
        self.pattern = pattern
        self.neighbours = neighbours
        self.blocks = blocks
        self.gaussian = gaussian
        self.features = features
        # What either Gaussian says of the normal samples that neighbours are sought among.
        self.register_buffer("bank_gaussian", torch.zeros(len(pattern.bank)))
        self.register_buffer("bank_features", torch.zeros(len(pattern.bank)))

    @property
    def rules(self) -> dict[str, Rule]:
        """How each view counts; the Gaussian, by the number of axes that it sums up."""
        gaussian = CONSTANTS.gaussian_of_images
        return {
            "history": CONSTANTS.history_of_images,
            "pattern": CONSTANTS.pattern,
            "neighbours": CONSTANTS.neighbours_of_images,
            "blocks": CONSTANTS.blocks,
            "edges": CONSTANTS.edges,
            "gaussian": replace(gaussian, weight=gaussian.weight * len(self.gaussian.axes)),
            "simplicity": CONSTANTS.simplicity,
            "features": CONSTANTS.features,
        }

    @classmethod
    def fit(cls, samples: Tensor, features: Tensor, hidden: Tensor) -> ImageCompanions:
        """Fit to normal samples (N, C, H, W) and their layers (N, n_features), (N, hidden)."""
        pca = principal_components(features, CONSTANTS.feature_gaussian_components)
        pattern = Neighbours.of_features(features, pca, cosine=True)
        of_features = Gaussian.fit(features, ridge=CONSTANTS.image_ridge, pca=pca)
        pca = principal_components(hidden)
        in_layer = Neighbours.of_features(hidden, pca, cosine=False)
        candidates = pattern.candidates_of_bank()
        in_layer.fit_gaps(candidates)
        others = pattern.fit_gaps(candidates, CONSTANTS.block_candidates)
        blocks = Blocks.fit(samples[: len(others)], others)
        # Beside brightness colours vary little; a ridge for all of it would hide them.
        of_pixels = ImageGaussian.fit(
            samples,
            ridge=CONSTANTS.image_ridge / samples.shape[1],
            coarse_ridge=CONSTANTS.image_ridge,
        )
        companions = cls(pattern, in_layer, blocks, of_pixels, of_features)
        n = len(pattern.bank)
        for start in range(0, n, _CHUNK):
            some = slice(start, min(start + _CHUNK, n))
            companions.bank_gaussian[some], _ = of_pixels(samples[some])
            companions.bank_features[some] = of_features(features[some])
        return companions

    @classmethod
    def build(
        cls,
        critic: Critic,
        shape: Shape,
        *,
        bank: int,
        components: int,
        feature_components: int,
    ) -> ImageCompanions:
        """Return unfitted ones of these sizes, for images of ``shape``."""
        return cls(
            Neighbours(
                critic.n_features, bank, n_components=CONSTANTS.bank_components, cosine=True
            ),
            Neighbours(critic.n_hidden, bank, n_components=CONSTANTS.bank_components),
            Blocks(shape[-1], bank),
            ImageGaussian.build(shape, components),
            Gaussian(critic.n_features, feature_components),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        return {
            "bank": len(self.pattern.bank),
            "components": self.gaussian.n_components,
            "feature_components": len(self.features.components),
        }

    def forward(self, x: Tensor, features: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        """Return the views of images (B, C, H, W) besides that of the history, {name: (B,)}."""
        places = self.pattern.place(features)
        candidates = self.pattern.candidates(places)
        distances, others = self.pattern.nearest(places, candidates, CONSTANTS.block_candidates)
        few = others[:, : CONSTANTS.neighbours]
        nearby = self.bank_gaussian[few].mean(1), self.bank_features[few].mean(1)
        fine, coarse = self.gaussian(x)
        blocks, edges = self.blocks(x, others)
        return {
            "pattern": self.pattern.relative(distances, others),
            "neighbours": self.neighbours.among(hidden, candidates),
            "blocks": blocks,
            "edges": edges,
            "gaussian": fine - CONSTANTS.nearby * nearby[0],
            "simplicity": -coarse.clamp(min=CONSTANTS.smallest_distance).log(),
            "features": self.features(features) - CONSTANTS.nearby_features * nearby[1],
        }


def samples_to_fit(n_values: int) -> int:
    """Return how many normal samples of so many values the companions have room for."""
    return min(CONSTANTS.most_fitted, max(1000, CONSTANTS.fitted_values // n_values))
