"""The phases of a fit, in a user's words, and about how long each takes beside the others."""

from __future__ import annotations

import math

from historyad.method.history import recorded_interval
from historyad.model.examples import number_of
from historyad.model.plan import Plan
from historyad.score.companions import samples_to_fit

SUSPECTS = "looking for wrong samples"
LEARN, THRESHOLD = "learning what is normal", "setting the threshold"
IMITATE, TELL = "training: imitating samples", "training: telling them apart"
LEARN_AGAIN, THRESHOLD_AGAIN = "learning anew, with training", "setting the threshold anew"
COMPARE, KEEP = "comparing with and without", "keeping some examples"

# Of a usual image that is learnt from or looked at, as measured on two cores.
_IMITATED, _TOLD = 0.5, 0.3
_PIXELS = 4096  # of a large image that take as long
_WARM = 2.0  # times the fit of a fold: the first one


def weights_of(plan: Plan) -> dict[str, float]:
    """Return the phases of a fit by ``plan``, in their order, each with its weight."""
    kind, split, config = plan.kind, plan.split, plan.config
    each = 1.0 if kind.work_pixels is None else max(1.0, kind.work_pixels / _PIXELS)
    n = len(split.train)
    if kind.work_pixels is None:
        n = min(n, samples_to_fit(math.prod(kind.networks(config).shape)))
    learn = each * n
    threshold = each * len(split.held_out) + learn * max(0, len(split.folds) - 1)
    keep = {KEEP: each * number_of(kind, n)}
    first = {LEARN: learn * (_WARM if split.folds else 1.0), THRESHOLD: threshold}
    if not kind.trains(config):
        return first | keep
    return {
        **({} if config.views == "history" else first),
        IMITATE: _IMITATED * recorded_interval(config)[1] * config.epoch_images,
        TELL: _TOLD * config.detector_epochs * config.epoch_images,
        LEARN_AGAIN: learn,
        THRESHOLD_AGAIN: threshold,
        COMPARE: 0.1 * threshold,
        **keep,
    }
