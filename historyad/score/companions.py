"""The companions of D_TV: views of a sample that are strong where D_TV is weak.

Far from the data, where it saw neither data nor history, D_TV extrapolates with either sign; a
distance to normal samples, or to a Gaussian, can only grow. Near the data, D_TV gives way to
whatever the history covers; a sample unlike every normal one has no near neighbour there.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from historyad.constants import CONSTANTS, Rule
from historyad.method.networks import Critic, Shape
from historyad.progress import share
from historyad.score.batching import of_parts
from historyad.score.blocks import Blocks
from historyad.score.gaussian import Gaussian, ImageGaussian
from historyad.score.neighbours import Bank, Neighbours

_CHUNK = 512  # samples that are compared with a Gaussian at a time
_GREY_LEVELS = 255 / 2  # in 1, as networks see images: from -1 to 1


def count(rule: Rule, view: Tensor) -> Tensor:
    """Return what standardised values of a view add to the score."""
    if rule.floor is None:
        return view
    beyond = (view - rule.floor).clamp(min=0)
    return beyond.square() if rule.squared else beyond


class Companions(nn.Module):
    """What stands beside D_TV: views by name, and how each counts."""

    see_features: ClassVar[bool] = False  # of D_TV

    @property
    def rules(self) -> dict[str, Rule]:
        """How each view counts in the score, that of the history among them."""
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        raise NotImplementedError

    def forward(self, x: Tensor, features: Tensor, n: int | None = None) -> dict[str, Tensor]:
        """Return the views of samples (B, ...) besides that of the history, {name: (B,)}.

        ``features`` (B, n_features) are what comes to the head of D_TV. Perhaps only the first
        ``n`` are wanted.
        """
        raise NotImplementedError

    def place(self, x: Tensor, features: Tensor) -> Tensor:
        """Return where samples (B, ...) lie in what neighbours are looked for in, (B, values)."""
        raise NotImplementedError

    def usual(self, x: Tensor, owners: Tensor) -> Tensor | None:
        """Return what is usual in place of each value of a sample (values,), if that is known.

        ``owners`` (values,) number the column that each value belongs to.
        """
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
            "neighbours": Rule(),
            "gaussian": Rule(),
        }

    @classmethod
    def fit(cls, samples: Tensor, n_columns: int) -> VectorCompanions:
        """Fit to normal samples (N, values) of so many columns.

        The ridge is a share of the mean variance of a column, which may have several values.
        """
        ridge = CONSTANTS.vector_ridge * samples.shape[1] / n_columns
        return cls(Neighbours.of_vectors(samples), Gaussian.fit(samples, ridge=ridge))

    @classmethod
    def build(cls, n_values: int, *, bank: int, components: int) -> VectorCompanions:
        """Return unfitted ones of these sizes."""
        neighbours = Neighbours(n_values, bank)
        return cls(neighbours, Gaussian(n_values, components))

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        return {"bank": len(self.neighbours.bank), "components": len(self.gaussian.components)}

    def place(self, x: Tensor, features: Tensor) -> Tensor:
        """Return vectors around their mean."""
        return self.neighbours.place(x)

    def usual(self, x: Tensor, owners: Tensor) -> Tensor | None:
        """Return what the nearest normal vectors have in place of each value of (values,)."""
        return self.neighbours.usual(x, owners)

    def forward(self, x: Tensor, features: Tensor, n: int | None = None) -> dict[str, Tensor]:
        """Return the views of samples (B, values) besides that of the history, {name: (B,)}."""
        # No distance may hide a value that is not a number.
        unknown = torch.where(x.isfinite().all(1), 0.0, torch.nan)
        return {"neighbours": self.neighbours(x) + unknown, "gaussian": self.gaussian(x) + unknown}


class ImageCompanions(Companions):
    """Companions of D_TV on images: their blocks and edges, a Gaussian, and how plain they are.

    The bank of normal images is searched once, in what the convolutions of D_TV make of them: the
    nearest by cosine are those that an image is compared with, ``near``.
    """

    bank_gaussian: Tensor

    see_features = True

    def __init__(self, near: Bank, blocks: Blocks, gaussian: ImageGaussian) -> None:
        super().__init__()
        self.near = near
        self.blocks = blocks
        self.gaussian = gaussian
        # What the Gaussian says of the normal images that others are compared with.
        self.register_buffer("bank_gaussian", torch.zeros(len(near.bank)))

    @property
    def rules(self) -> dict[str, Rule]:
        """How each view counts."""
        return {
            "history": CONSTANTS.history_of_images,
            "blocks": Rule(),
            "edges": Rule(),
            "gaussian": CONSTANTS.gaussian_of_images,
            "simplicity": CONSTANTS.simplicity,
            "smoothness": CONSTANTS.smoothness,
        }

    @classmethod
    def fit(
        cls, images: Tensor, features: Tensor, known: ImageCompanions | None = None
    ) -> ImageCompanions:
        """Fit to normal images (N, C, H, W) and their features (N, n_features).

        What others ``known`` of the same images keep of them is taken from those: in the features
        of another D_TV an image may have other neighbours, but the gap around it is about the same.
        """
        with share(0.0, 0.3):
            near = Bank.of_features(features)
            if known is not None:
                companions = cls(near, known.blocks, known.gaussian)
                companions.bank_gaussian = known.bank_gaussian
                return companions
            others = near.others(near.candidates_of_bank(), CONSTANTS.block_candidates)[1]
        with share(0.3, 1.0):
            blocks = Blocks.fit(images[: len(others)], others)
        # Beside brightness colours vary little; a ridge for all of it would hide them.
        gaussian = ImageGaussian.fit(
            images,
            ridge=CONSTANTS.image_ridge / images.shape[1],
            coarse_ridge=CONSTANTS.image_ridge,
        )
        companions = cls(near, blocks, gaussian)
        parts = of_parts(lambda some: gaussian(some)[0], images[: len(others)], size=_CHUNK)
        companions.bank_gaussian.copy_(torch.cat(parts))
        return companions

    @classmethod
    def build(cls, critic: Critic, shape: Shape, *, bank: int, components: int) -> ImageCompanions:
        """Return unfitted ones of these sizes, for images of ``shape``."""
        return cls(
            Bank(critic.n_features, bank, n_components=CONSTANTS.bank_components, cosine=True),
            Blocks(shape[-1], bank),
            ImageGaussian.build(shape, components),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """What `build` needs to know."""
        return {"bank": len(self.near.bank), "components": self.gaussian.n_components}

    def place(self, x: Tensor, features: Tensor) -> Tensor:
        """Return the features of images, as they are compared."""
        return self.near.place(features)

    def forward(self, x: Tensor, features: Tensor, n: int | None = None) -> dict[str, Tensor]:
        """Return the views of images (B, C, H, W) besides that of the history, {name: (B,)}."""
        places = self.near.place(features)
        candidates = self.near.candidates(places)
        _, others = self.near.nearest(places, candidates, CONSTANTS.block_candidates)
        nearby = self.bank_gaussian[others[:, : CONSTANTS.neighbours]].mean(1)
        fine, coarse = self.gaussian(x)
        # Each image by itself, whatever else there is: of those that fill a batch up, none.
        blocks, edges = self.blocks(x[:n], others[:n])
        if n is not None:
            blocks, edges = (functional.pad(view, (0, len(x) - n)) for view in (blocks, edges))
        return {
            "blocks": blocks,
            "edges": edges,
            "gaussian": fine - CONSTANTS.nearby * nearby,
            "simplicity": -coarse.clamp(min=CONSTANTS.smallest_distance).log(),
            "smoothness": -mean_gradient(x).clamp(min=CONSTANTS.smallest_gradient).log(),
        }


def mean_gradient(images: Tensor) -> Tensor:
    """Return the mean difference of neighbouring pixels of images (B, C, H, W) in [-1, 1], (B,).

    Down and across, in grey levels of 255.
    """
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean((1, 2, 3))
    return (down + across) / 2 * _GREY_LEVELS


def samples_to_fit(n_values: int) -> int:
    """Return how many normal samples of so many values the companions have room for."""
    return min(CONSTANTS.most_fitted, max(1000, CONSTANTS.fitted_values // n_values))
