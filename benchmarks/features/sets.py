"""The sets of photos that detectors in the features of a network are measured on."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.features.random_weights import RandomBackbone
from historyad.config import Config
from historyad.data.datasets import open_source
from historyad.data.sources import Source
from historyad.judge.evaluation import Mask, read_some_masks
from historyad.kinds.features import Features

SETS = {"tiles": "magnetic_tile_full", "cookies": "cookies", "screw": "mvtec_screw"}
RATES = {"tiles": 0.01, "cookies": 0.2, "screw": 0.05}  # of false alarms that are asked for


@dataclass(frozen=True)
class Images:
    """Cells of all images of one part of a set, (N, places, features), and what is known of them.

    ``groups`` say which show the same thing; ``masks`` are those that there are, by row.
    """

    source: Source
    cells: NDArray[np.float16]
    groups: NDArray[np.str_]
    masks: Mapping[int, Mask]
    folder: Path

    @cached_property
    def numbers(self) -> NDArray[np.float32]:
        """Brightness, mean absolute gradient and size of the file of each image, (N, 3)."""
        found = []
        for name, image in zip(self.source.names, self.source.samples, strict=True):
            grey = image.mean(2)
            steps = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
            found.append([grey.mean(), sum(steps), (self.folder / name).stat().st_size])
        return np.array(found, np.float32)


@dataclass(frozen=True)
class Data:
    """One set: good images to train on, good ones to test with, and defects by kind."""

    name: str
    train: Images
    good: Images
    defects: Mapping[str, Images]

    @cached_property
    def tested(self) -> list[Images]:
        """All images to test with, the good ones first."""
        return [self.good, *self.defects.values()]


def kind_of(source: Source, config: Config, backbone: str) -> Features:
    """Return what sees images through a backbone; "random" is lite0 of random weights, alone."""
    kind = Features.choose((*source.samples[0].shape,), config)
    if backbone != "random":
        return kind
    return dataclasses.replace(kind, backbone=RandomBackbone.drawn(config.seed, kind.side))


def read(name: str, root: Path, folder: Path, config: Config, backbone: str = "lite0") -> Data:
    """Return a set; cells are taken from ``folder``, and put there."""
    groups = groups_of(root)
    defects = sorted(p.name for p in (root / "test").iterdir() if p.name != "good")

    def part(*where: str) -> Images:
        source = open_source(root.joinpath(*where), any_size=True)
        kind = kind_of(source, config, backbone)
        seen = f"{backbone}{config.seed}" if backbone == "random" else backbone
        file = folder / f"{name}-{'-'.join(where)}-{seen}-{kind.side}.npy"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, kind.extract(source.samples, np.arange(len(source))))
        its = [groups.get("/".join((*where, one)), one) for one in source.names]
        masks = read_some_masks(root / "ground_truth" / where[-1], source)
        thick = {row: mask for row, mask in masks.items() if mask.any()}
        return Images(source, np.load(file), np.array(its), thick, root.joinpath(*where))

    train = part("train", "good")
    return Data(name, train, part("test", "good"), {kind: part("test", kind) for kind in defects})


def groups_of(root: Path) -> dict[str, str]:
    """Return which thing each file shows, where an index says it."""
    index = root / "index.csv"
    if not index.exists():
        return {}
    with index.open() as file:
        return {row["file"]: row["group"] for row in csv.DictReader(file)}
