"""What is decided before a fit, from settings, shapes and numbers alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from historyad import ranks
from historyad.config import Config, as_dict, validate
from historyad.constants import CONSTANTS
from historyad.data.columns import check_usable
from historyad.data.copies import groups_of
from historyad.data.digests import firsts
from historyad.data.series import in_windows
from historyad.data.sources import Source
from historyad.errors import ConfigError, InputError
from historyad.kinds.choose import which_kind
from historyad.kinds.kind import Kind
from historyad.method.batches import Batches
from historyad.method.history import History, resolve
from historyad.model.criterion import is_judged
from historyad.model.split import Rows, Split, split_samples
from historyad.model.suspects import Suspect, find_suspects


@dataclass(frozen=True, eq=False)
class Plan:
    """What is decided before a fit: the samples, their split, and what was set aside.

    The samples of ``source`` are, of a series, its windows. ``groups`` (N,) number what each of
    them belongs to.
    """

    source: Source
    config: Config
    kind: Kind
    groups: Rows
    split: Split
    suspects: list[Suspect]

    def batches(self, device: torch.device) -> Batches:
        """Return shuffled batches of what is trained on."""
        rows = self.split.train
        return self.kind.batches(
            self.source.samples, self.config, rows=rows, groups=self.groups[rows], device=device
        )

    def describe(self) -> dict[str, Any]:
        """Return what a run and a model remember of the samples, as JSON can hold it."""
        prints, held_out = self.source.digests, self.split.held_out
        n_groups = len(np.unique(self.groups[held_out]))
        return {
            **self.source.describe(),
            "n_train": len(self.split.train),
            "copies": len(prints) - len(firsts(prints)),
            **({"held_out_groups": n_groups} if n_groups < len(held_out) else {}),
            **({"set_aside": len(self.suspects)} if self.suspects else {}),
        }


def plan_fit(
    source: Source, config: Config, history: History | None = None, known: Sequence[Suspect] = ()
) -> Plan:
    """Decide on a fit; InputError or ConfigError for whatever settings, shapes and numbers tell.

    ``known`` are the suspects of a run that is continued. Few images that are seen whole train no
    network, unless there is a ``history`` to train against.
    """
    validate(config)
    if source.imprecise:
        raise InputError(source.imprecise)
    source, config = as_samples(source, config)
    groups = groups_of(source, config.group or None)
    ranks.agree_on_fit(config, source.fingerprint)
    check_usable(source)
    kind = which_kind(source.samples, config, source.levels, are_sounds=source.are_sounds)
    suspects: list[Suspect] = []
    if config.contamination:  # what a run has set aside stays so
        suspects = list(known) or find_suspects(kind.learnt_from(source.samples), source, config)
    kept = np.setdiff1d(np.arange(len(source)), [one.row for one in suspects])
    if history is None and is_judged(kind, config) and len(kept) < CONSTANTS.fewest_to_train:
        config = dataclasses.replace(config, views="companions")
    trains, reach = kind.trains(config), source.reach
    once = kept if source.series is not None else kept[firsts(source.digests[kept])]
    # Maps of large images take too long to be made ten times, unless the rate needs it.
    few = CONSTANTS.few_samples if kind.work_pixels is None else 0
    split, config = split_samples(kept, once, groups, config, trains=trains, few=few, reach=reach)
    kind = kind.learnt_from(source.samples, split.train)
    config = resolve(config, len(split.train))
    if history is not None and as_dict(history.config) != as_dict(config):
        raise ConfigError("the history has other settings than the fit: give it those of the fit")
    return Plan(source, config, kind, groups, split, suspects)


def as_samples(source: Source, config: Config) -> tuple[Source, Config]:
    """Return what is fitted on, and the settings: of a series, its windows and their length.

    Raises InputError for a window of images, or of a series that is shorter than it.
    """
    found = in_windows(source, config.window, config.stride, to_learn=True)
    if found.series is None:
        return found, config
    stride = config.stride if source.series is None else found.series.stride
    return found, dataclasses.replace(config, window=found.series.length, stride=stride)
