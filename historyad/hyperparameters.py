"""Every hyperparameter, declared once: default, range, unit and help.

This one declaration feeds the Python API, the command line, the saved JSON and the documentation.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any


def _setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    word: str = "",
) -> Any:
    """Declare a setting; ``word`` may stand in place of a number."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "word": word}
    return field(default=default, metadata=metadata)


@dataclass
class Config:
    """The hyperparameters of HistoryAD; equations and sections are those of the paper.

    Time is measured in epochs, and one epoch is ``epoch_images`` images seen by the critic.
    """

    # Data
    image_size: int = _setting(
        0,
        "Side of the square grid the networks see, in pixels: 8, 16, 32, 64 or 128; images are "
        "padded or reduced to it. 0 chooses the smallest that holds the images, at most 64.",
        low=0,
        high=128,
    )
    patch: int = _setting(
        0,
        "Side of the crops that the networks see of images larger than that, in pixels: 8, 16, 32 "
        "or 64. The detector is trained on crops, makes a map of an image of any size, and scores "
        "the image by the worst of its map. 0 sees whole images, on the grid of image_size.",
        low=0,
        high=64,
    )
    scales: int = _setting(
        1,
        "Sizes at which an image is looked at with crops: as it is, at half its size, at a "
        "quarter. Each sees defects twice as large as the one before.",
        low=1,
        high=4,
    )
    contrast: str = _setting(
        "",
        "What crops show: grey or colour as it is, or local contrast, which takes out uneven "
        "lighting and differences in the strength of a texture.",
        choices=("", "local"),
    )
    backbone: str = _setting(
        "none",
        "What photos are looked at through: lite0 (EfficientNet-Lite0, of the extra backbone, and "
        "wavelets), wavelets (filters alone, for which nothing is installed), a file NAME.onnx or "
        "NAME.pt2 with a NAME.json beside it, none, or auto (for photos lite0 where it is "
        "installed, and else wavelets). The detector is trained on the cells of its maps, and "
        "makes an anomaly map of an image of any size.",
    )
    backbone_side: int = _setting(
        0,
        "Side of the square that the backbone sees of an image, in pixels, 32 to 1024. 0 takes "
        "320 for lite0 and wavelets, and for a file what it says.",
        low=0,
        high=1024,
    )
    resize: int = _setting(
        -1,
        "Side of the square to which an image is brought for the backbone, in pixels, 32 to 1024. "
        "0 sees images as they are, in overlapping tiles. -1 takes 0 where images are longer than "
        "1,024 pixels, and else the backbone's side.",
        low=-1,
        high=1024,
    )
    window: int | str = _setting(
        0,
        "Steps in a window of a series: the rows of a table or an array are then steps of time, in "
        "their order, and what is judged is each stretch of so many of them. auto takes the "
        "period of the series, by its autocorrelation. 0 takes each row for itself.",
        low=0,
        high=100_000,
        word="auto",
    )
    stride: int = _setting(
        0,
        "Steps from one window of a series to the next. 0 takes an eighth of the window or less "
        "and, to learn from a short series, so few that there are some 2,000 windows.",
        low=0,
        high=100_000,
    )
    augment: str = _setting(
        "",
        "Transformations that turn a normal image into a normal image, separated by commas: "
        "flip (left-right), flip-vertical, rotate90.",
    )
    calibration_share: float = _setting(
        0.0,
        "Share of the normal data held out of all training, for the threshold and the p-values. 0 "
        "holds out 15 %; of few samples as many as the false-positive rate needs, at most 40 %.",
        low=0.0,
        high=0.9,
    )
    folds: int = _setting(
        0,
        "Parts into which samples are cut for the threshold and the p-values, each scored by a "
        "detector of all the others, so that every sample is learnt from and calibrated on. It is "
        "for fits that train no network. 0 takes 10 of fewer than 2,000 samples, or where 15 % of "
        "them would be too few for the false-positive rate (of images seen in parts only there), "
        "and holds a share out else; 1 always holds a share out.",
        low=0,
        high=1000,
    )
    group: str = _setting(
        "",
        "Regular expression by which names of samples say which belong together, such as "
        "'^(part[0-9]+)_': what it finds, or its first group, is alike in them. They are all "
        "trained on or all held out, as copies of a sample always are.",
    )
    contamination: float = _setting(
        0.0,
        "Share of the samples that may be wrong, such as defects among good parts. The most "
        "suspicious are set aside, this share of all: neither trained on nor held out. 0 takes "
        "all for normal. What scikit-learn calls so is false_positive_rate here.",
        low=0.0,
        high=0.4,
    )
    false_positive_rate: float = _setting(
        0.0,
        "Share of normal inputs that the threshold may call anomalous. 0 aims at 1 %, or at the "
        "lowest rate that few held-out samples can promise: 1 / (n + 1) of n.",
        low=0.0,
        high=0.5,
    )
    confidence: float = _setting(
        0.0,
        "How sure to be that this very detector calls no larger a share of normal inputs anomalous "
        "than false_positive_rate, such as 0.95. 0 keeps the rate on average over detectors; one "
        "of them may exceed it.",
        low=0.0,
        high=0.9999,
    )
    # Networks (section 4.1)
    width: int = _setting(
        16, "Channels of the first convolution; each level doubles them.", low=4, high=256
    )
    hidden: int = _setting(256, "Units of the fully connected hidden layers.", low=8, high=8192)
    latent_dim: int = _setting(64, "Dimensions of the latent variable z.", low=1, high=1024)
    # Step 1 (section 4.2)
    n_epochs: float = _setting(
        3.0,
        "Length of step 1, over which its learning rate falls to 0, in epochs.",
        low=0.01,
        high=1000.0,
    )
    epoch_images: int = _setting(
        20_000,
        "Images in one epoch. 0 takes the size of the training set, but at least 50,000, so that "
        "a few hundred images are not trained on for a handful of steps.",
        low=0,
        high=10**12,
    )
    saves_per_epoch: int = _setting(50, "Snapshots recorded per epoch.", low=1, high=1000)
    batch_size: int = _setting(64, "Images per step, in steps 1 and 3.", low=2, high=4096)
    learning_rate: float = _setting(
        5e-4, "Initial learning rate of Adam in step 1.", low=1e-6, high=0.1
    )
    generator_learning_rate: float = _setting(
        0.0, "Initial learning rate of the generator. 0 takes learning_rate.", low=0.0, high=0.1
    )
    momentum: float = _setting(
        0.5, "beta 1 of Adam in step 1: how much of the mean gradient is kept.", low=0.0, high=0.999
    )
    square_momentum: float = _setting(
        0.9,
        "beta 2 of Adam in step 1: how much of the mean square of the gradient is kept.",
        low=0.0,
        high=0.99999,
    )
    critic_steps: int = _setting(5, "Critic steps per generator step.", low=1, high=100)
    gradient_penalty_weight: float = _setting(
        10.0, "Weight of the critic's gradient penalty.", low=0.0, high=1000.0
    )
    penalty_interval: int = _setting(
        4,
        "Apply the gradient penalty at every so many critic steps, with its weight multiplied by "
        "as much.",
        low=1,
        high=16,
    )
    # Step 2 (section 4.3)
    skip_epochs: float = _setting(
        0.75, "alpha: snapshots before this time are not in the history.", low=0.0, high=999.0
    )
    decay: float = _setting(
        3.0, "beta: rate at which the weight of a snapshot falls with its time.", low=0.0, high=100
    )
    mass_tolerance: float = _setting(
        0.1,
        "Step 1 stops when the part of the history's mass that is still to come is below this: "
        "the total variation between the shorter history and the whole. 0 trains all n_epochs.",
        low=0.0,
        high=0.5,
    )
    wide_share: float = _setting(
        0.5,
        "Share of history samples whose latent is drawn wider (experimental case 2). 0 is case 1.",
        low=0.0,
        high=1.0,
    )
    wide_latent: float = _setting(
        2.0, "Standard deviation of the wider latent P_Z'.", low=1.0, high=100.0
    )
    # Step 3 (section 4.4)
    detector_start: str = _setting(
        "average",
        "Start of D_TV: the averaged critic of eq. 14; the same, its output brought to mean 0 and "
        "deviation 1 on data and history ('standardised'); random weights; or the averaged critic "
        "without any training ('untrained').",
        choices=("average", "standardised", "random", "untrained"),
    )
    detector_epochs: float = _setting(0.75, "Length of step 3, in epochs.", low=0.001, high=1000.0)
    detector_learning_rate: float = _setting(
        1e-3, "Initial learning rate of Adam in step 3.", low=1e-6, high=0.1
    )
    detector_momentum: float = _setting(0.9, "beta 1 of Adam in step 3.", low=0.0, high=0.999)
    detector_square_momentum: float = _setting(
        0.999, "beta 2 of Adam in step 3.", low=0.0, high=0.99999
    )
    bound_weight: float = _setting(
        10.0, "lambda: weight of the bound on D_TV's output.", low=1e-3, high=1e4
    )
    # Score
    views: str = _setting(
        "auto",
        "What makes the score: all (D_TV, and distances to normal samples in the input and in its "
        "features), history (D_TV alone, as in the paper), or companions (the distances alone, in "
        "the features of a network with random weights: nothing is trained). auto takes companions "
        "of vectors and in the features of a backbone, where the history brought next to nothing, "
        "all on crops, and on 2,000 images or more that are seen whole all, unless it tells less "
        "of damaged samples from good ones than companions do.",
        choices=("auto", "all", "history", "companions"),
    )
    # Machine
    seed: int = _setting(0, "Every random draw derives from it.", low=0, high=2**63 - 1)
    device: str = _setting(
        "auto", "auto (an accelerator when there is one), cpu, cuda, cuda:1, mps."
    )


PRESETS: dict[str, dict[str, Any]] = {
    "instant": {"views": "companions"},
    "quick": {"epoch_images": 10_000},
    "default": {},
    # Section 5's setting for MNIST, with about 5 M parameters in each network (section 4.1).
    "paper": {
        "width": 32,
        "hidden": 2304,
        "latent_dim": 128,
        "n_epochs": 5.0,
        "epoch_images": 0,
        # Adam's own in step 1; what section 4.4 leaves open of step 3: docs/choices.md.
        "momentum": 0.9,
        "square_momentum": 0.999,
        "detector_momentum": 0.9,
        "detector_square_momentum": 0.9,
        "penalty_interval": 1,
        "skip_epochs": 1.0,
        "mass_tolerance": 0.0,
        "wide_share": 0.0,
        "detector_start": "standardised",
        "detector_epochs": 2.0,
        "detector_learning_rate": 5e-4,
        "views": "history",
    },
}


# What is learnt of the cells of a backbone is another history: in place of the values above.
OF_CELLS: dict[str, dict[str, Any]] = {
    "default": {
        "hidden": 64,
        "latent_dim": 304,
        "epoch_images": 38_400,  # cells: 600 steps
        "n_epochs": 1.0,
        "saves_per_epoch": 30,
        "learning_rate": 1e-3,
        "generator_learning_rate": 4e-3,
        "critic_steps": 2,
        "penalty_interval": 2,
        "gradient_penalty_weight": 5.0,
        "skip_epochs": 0.0,
        "decay": 0.0,
        "mass_tolerance": 0.0,
        "wide_share": 0.0,
        "detector_start": "random",
        "detector_epochs": 2.5,
        "detector_learning_rate": 2e-3,
        "detector_momentum": 0.5,
        "detector_square_momentum": 0.9,
    },
}
OF_CELLS["quick"] = {**OF_CELLS["default"], "epoch_images": 19_200}


def settings() -> dict[str, Field[Any]]:
    """Return the declaration of every hyperparameter, by name."""
    return {setting.name: setting for setting in fields(Config)}
