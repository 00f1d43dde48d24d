"""The detectors that a fit saves: first one that trains no network, then the trained one."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import torch

from historyad import ranks
from historyad.config import Config
from historyad.method.batches import Batches
from historyad.method.networks import Critic
from historyad.model.card import save_card
from historyad.model.criterion import is_judged, is_kept, share_seen, some_of
from historyad.model.examples import Examples
from historyad.model.model import Model
from historyad.model.phases import COMPARE, KEEP, LEARN, LEARN_AGAIN, THRESHOLD, THRESHOLD_AGAIN
from historyad.model.plan import Plan
from historyad.model.run import RunDirectory
from historyad.model.untrained import of_others, untrained_score
from historyad.progress import Phases, each, share
from historyad.score.decide import decide
from historyad.score.score import Score

_AS_LONG = 2.0  # times the first detector: the companions of a trained one, and which sees more
_FITTING = 0.8  # of the time that folds take, to fit a detector for each


@dataclass(frozen=True)
class Making:
    """What a fit makes of what was trained, and saves in ``run``; rank 0 does."""

    plan: Plan
    run: RunDirectory
    device: torch.device
    phases: Phases

    def untrained(self) -> None:
        """Save the detector that trains no network, the only one of this fit."""
        self.plan.source.share_unreadable()
        if ranks.is_main():
            self._save(self._untrained(self.plan.config))

    def first(self, stop_at: float) -> float:
        """Save the detector that trains no network, and return when to stop training it.

        Early enough for the trained one, whose companions take as long.
        """
        if not ranks.is_main() or self.plan.config.views == "history":
            return stop_at
        started = time.monotonic()
        if not self.run.has_model:
            self.run.begin_training()
            first = dataclasses.replace(self.plan.config, views="companions")
            self._untrained(first).save(self.run.path)
        return stop_at - _AS_LONG * (time.monotonic() - started)

    def trained(self, d_tv: Critic, batches: Batches) -> None:
        """Save the detector of what was trained, unless the first one sees more."""
        self.plan.source.share_unreadable()
        if not ranks.is_main():
            return
        plan, samples = self.plan, self.plan.source.samples
        # Companions see what D_TV does not; held-out samples put all on one scale.
        self.phases.begin(LEARN_AGAIN)
        first = Model.load(self.run.path, self.device) if self.run.has_model else None
        known = None if first is None else first.score
        score = plan.kind.fit_score(d_tv, batches, plan.config, known)
        self.phases.begin(THRESHOLD_AGAIN)
        made = self._decided(score.to(self.device).eval(), plan.config)
        if first is not None and is_judged(plan.kind, plan.config):
            self.phases.begin(COMPARE)
            some = some_of(samples, plan.split.held_out)
            seen = [share_seen(one.score, some, plan.config.seed) for one in each((first, made))]
            facts = {"seen_untrained": round(seen[0], 4), "seen_trained": round(seen[1], 4)}
            described = {**made.source, **facts}
            made = dataclasses.replace(made if is_kept(*seen) else first, source=described)
        self._save(made)
        self.run.end_training()

    def _save(self, model: Model) -> None:
        """Save the last model of the fit, with some of the samples that it compares with."""
        self.phases.begin(KEEP)
        plan = self.plan
        examples = Examples.of(model.score, plan.source, plan.split.train)
        if examples is not None:
            examples.save(self.run.path)
        save_card(self.run.path, model.card(self.run.path.name))
        model.save(self.run.path)

    def _untrained(self, config: Config) -> Model:
        """Return the detector of companions in the features of random weights."""
        self.phases.begin(LEARN)
        plan = self.plan
        samples, rows = plan.source.samples, plan.split.train
        score = untrained_score(plan.kind, samples, rows, config, self.device)
        self.phases.begin(THRESHOLD)
        return self._decided(score, config)

    def _decided(self, score: Score, config: Config) -> Model:
        """Put a score on its scale, and set its threshold, by samples that it was not fitted on.

        Or by folds: by what detectors of the other folds say of each.
        """
        source, split = self.plan.source, self.plan.split
        fitting = _FITTING if split.folds else 0.0
        with share(0.0, fitting):
            folds = of_others(source.samples, split.folds, config, score, source.reach)
            parts = [(other, np.intersect1d(rows, split.held_out)) for other, rows in folds]
        with share(fitting, 1.0):
            parts = parts or [(score, split.held_out)]
            calibration = decide(score, source.samples, parts, config, source.reach)
        return Model(
            score,
            calibration,
            config,
            self.plan.describe(),  # with what was found to be unreadable on the way
            feature_names=source.columns,
            trained_on=source.digests[split.train],
        )
