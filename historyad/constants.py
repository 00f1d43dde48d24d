"""What shapes a score and is no setting: declared here and nowhere else.

A model keeps the constants that it was fitted with, and is refused by a program that has others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """How a view counts in the score: from ``floor`` on, if there is one, perhaps by its square."""

    floor: float | None = None  # the place on its scale from which it counts
    squared: bool = False  # by the square of what is beyond


@dataclass(frozen=True)
class Constants:
    """The constants, by what they belong to."""

    # Networks
    leaky_slope: float = 0.2  # of LeakyReLU
    # The samples of a fit
    smallest_epoch: int = 50_000  # a few hundred are seen many times before t moves on
    held_out_blocks: int = 30  # enough to see every part of a folder that is sorted by kind
    usual_rate: float = 0.01  # of false positives, where none is asked for
    held_out_share: float = 0.15  # where none is asked for
    held_out_of_few: float = 0.4  # at most, of samples that are too few for the rate
    usual_folds: int = 10  # of samples that are too few to hold a share out
    few_samples: int = 2000  # of 15 % of fewer, one or two alone decide on a threshold for 1 %
    # What training brings, by damaged samples
    fewest_to_train: int = 2000  # images seen whole, where D_TV is not asked for
    criterion_samples: int = 100  # held-out ones that are looked at, at most
    criterion_weak: int = 2  # which of the strengths of a damage are tried
    criterion_strong: int = 4
    criterion_margin: float = 0.01  # of AUROC, which damage does not tell from nothing
    most_held_out: int = 10_000  # more would hardly move the threshold, and are better trained on
    most_fitted: int = 2**15  # that companions are fitted on
    fitted_values: int = 2**25  # of all of these; but 1,000 samples at least
    # The scale of a view: 0 at the median of held-out normal samples
    view_range: float = 0.95  # quantile of normal samples that is 1
    view_far: float = 0.99  # or that is 2, of a squared view, where that is less strict
    score_zero: float = 0.99  # quantile of normal samples where the score is 0
    score_steepness: float = 4.0  # of the score at its 0, per unit of the scale
    smallest_spread: float = 1e-6
    fewest_for_a_scale: int = 30  # new normal samples, of a detector that has one
    # A detector that is all but constant on normal samples has no scale of its own.
    smallest_history_spread: float = 0.05
    # Views that count only from a place on their scale; the others count as they are
    history_of_images: Rule = Rule(floor=0.0)
    gaussian_of_images: Rule = Rule(floor=1.0)
    simplicity: Rule = Rule(floor=0.25, squared=True)
    smoothness: Rule = Rule(floor=0.25, squared=True)
    history_of_vectors: Rule = Rule(floor=1.0)
    shape_of_windows: Rule = Rule(floor=1.0)
    spectrum_of_windows: Rule = Rule(floor=1.0)
    # K-nearest neighbours
    neighbours: int = 5
    bank_values: int = 2**21  # of the normal samples that are kept: 8 MB
    vector_bank: int = 4096  # rows of a table that are kept
    product_error: float = 1e-3  # of a squared gap, from which on double precision is taken
    bank_components: int = 64  # of features, where distances are taken
    bank_parts: int = 8  # of the bank; the distances to one stay in the cache
    candidates_of_a_part: int = 8
    smallest_gap: float = 1e-3  # as a share of the mean one, and by itself
    smallest_variance_share: float = 1e-6  # of a variance in the largest
    # Gaussians
    gaussian_values: int = 2**21  # of the components that are kept: 8 MB
    image_gaussian_values: int = 3 * 2**20  # all pixels of 32 x 32 in each of three colours
    fewest_components: int = 64
    pca_samples: int = 20_000  # from which components are estimated
    images_for_a_variance: int = 10  # that it takes to tell one of the coarse distance from others
    # Ridges are shares of the mean variance. Vectors have few values, and each was scaled: none may
    # decide alone.
    image_ridge: float = 0.003
    vector_ridge: float = 1.0
    smallest_ridge: float = 1e-6  # for samples that do not vary
    smallest_distance: float = 1e-6  # to a Gaussian, whose logarithm is taken
    smallest_gradient: float = 1e-3  # grey levels from pixel to pixel, likewise
    # How many times the neighbours' distance is taken from an image's own.
    nearby: float = 2.0
    # Blocks that may move
    block_candidates: int = 16  # images that one is compared with, the nearest by another view
    block_map: int = 16  # cells of a map, each way, at most
    block_side: int = 2  # cells of a block, each way
    block_halves: int = 2  # half cells from one cell to the next
    block_steps: int = 2  # of half a cell, that a block may move, each way
    faint_edge: float = 0.02  # an edge of less, from black to white at 1, counts in proportion
    # Maps
    map_images: int = 1000  # normal images that cells are drawn from, at most
    map_cells: int = 20_000  # drawn from them, at each scale
    map_bank: int = 4096  # of these, kept as neighbours
    map_components: int = 48  # of their features
    map_ridge: float = 0.01
    map_scale_images: int = 100  # held-out images that put the views of a cell on one scale
    worst_pixels: int = 256  # area of the map that makes the score of an image: 16 x 16 pixels
    # Cells of a backbone's maps
    backbone_side: int = 320  # of the square that lite0 sees, unless set
    largest_whole: int = 1024  # pixels of the longer side of images that are brought to that square
    tile_side: int = 512  # of the squares that lite0 sees of larger images, unless set
    tile_overlap: float = 0.125  # of neighbouring ones, at least, as a share of the side
    tile_cells: int = 1024  # at most, that are kept of an image seen in tiles
    level_brightness: float = 127.0  # mean grey level of every image
    level_contrast: float = 45.0  # and the deviation
    level_least: float = 4.0  # deviation; what has less shows nothing
    wavelet_floor: float = 0.02  # of a magnitude, in deviations of the image, whose log is taken
    cell_bytes: int = 2**29  # of the cells that are kept in half precision for training
    remembered_bytes: int = 2**30  # of what is kept of images that a fit looks at several times
    cells_measured: int = 200_000  # at most, for their mean and deviation
    cells_fitted: int = 30_000  # that companions are fitted on
    cell_bank: int = 4096  # of these, kept as neighbours
    cell_components: int = 64  # on which distances are taken
    filter_components: int = 16  # of these, of filters beside a network
    only_filter_components: int = 48  # of filters alone
    coreset_dimensions: int = 24  # of the random projection in which they are chosen
    images_for_places: int = 10  # fewer say nothing of a place
    most_images_for_places: int = 1000  # at most so many are looked at
    place_prior: float = 10.0  # images, as which all places together count in each
    place_ridge: float = 0.01  # of the mean variance
    # What is left of a cell beside its nearest
    residual_share: float = 0.4  # of the good images, which are new to the bank
    residual_pool: int = 10_000  # cells of the others that the bank is chosen from
    residual_bank: int = 2000
    residual_components: int = 100  # on which the nearest are sought
    residual_neighbours: int = 3
    residual_cells: int = 30_000  # of the new images, that are trained on
    residual_values: int = 304  # that networks see of a cell, at most
    residual_floor: float = 0.01  # of the mean variance, added to each before whitening
    wide_start: float = 1.5  # deviation of what their generator makes at first
    bent_share: float = 0.1  # of what it makes that is no linear map of the latents
    worst_cells: int = 3  # that make the score of an image
    whole_ridge: float = 0.1  # of the Gaussian of whole images
    smallest_cell_spread: float = 0.05  # deviation of a feature over an image, on its scale
    # D_TV against cells of damaged images
    damaged_images: int = 200  # at most, that defects are drawn on
    damage_parts: int = 3  # of the images, each of which is seen beside the others
    damage_change: float = 2.0  # mean square by which a cell has moved that counts as damaged
    damage_hidden: int = 128
    damage_steps: int = 1000  # more tell these defects better apart, and real ones worse
    damage_batch: int = 256  # cells of either kind
    damage_learning_rate: float = 1e-3
    crop_bytes: int = 2**28  # of all crops that are trained on
    # Suspects among the samples of a fit
    suspects_share: float = 0.01  # of them that may be wrong, at least
    suspects_group: float = 1.0  # times that share: the most that are wrong in one way
    suspects_compared: int = 4096  # samples that are compared with each other
    suspects_bank: int = 8192  # of their looks, where a sample has many
    suspects_again: float = 2.0  # times the share: those that are judged again
    suspects_fits: int = 3  # so many times, by detectors of random weights
    suspects_held_out: float = 0.2  # of the others, for the scale by which they are
    suspects_low: float = 0.25  # quantile of a group that counts when it is judged again
    suspects_size: float = 0.25  # power of its size that does
    suspects_tie: float = 1e-3  # of what tells members of a group apart
    # Windows of a series
    usual_window: int = 50  # steps, where the series has no clear period
    shortest_window: int = 8
    longest_window: int = 300
    fewest_windows: int = 6  # one after the other, in a series of which the window is chosen
    clear_period: float = 0.2  # autocorrelation at a lag that is one
    windows_in_one: int = 8  # that begin within one, at least, unless a stride is set
    windows_learnt: int = 2000  # of a series, at least, where they can begin so close together
    reaches_of_a_block: int = 4  # windows' lengths in a block that is held out
    window_values: int = 1024  # at most, of a window that distances are taken between
    flat_window: float = 0.05  # deviation, in spreads of the series; what has less shows nothing
    window_bands: int = 16  # of frequencies
    silent_band: float = 1e-3  # power
    # Columns
    most_levels: int = 500  # different texts in a column of categories
    constant_step: float = 10.0  # of a value unlike a constant, by the root of how many columns
    # Local contrast; lengths are parts of a crop's side: 4 and 12 pixels for crops of 32
    contrast_detail: float = 1 / 8
    contrast_surroundings: float = 3 / 8
    contrast_reach: float = 3.0  # of a Gaussian, in standard deviations
    contrast_grid: int = 4  # times coarser, where the strength of a texture is taken
    contrast_grey: float = 32.0  # grey levels of a standard deviation: uint8 holds four, each way
    contrast_flat: float = 1.0  # grey level: less is the rounding of an image that shows nothing
    # Images on a grid
    smallest_grid: int = 8  # of those that are chosen by themselves
    largest_grid: int = 64

    def to_json(self) -> dict[str, Any]:
        """Return all of them as JSON can hold them."""
        return asdict(self)


CONSTANTS = Constants()
