"""From a score to a decision: threshold and p-values from held-out normal data alone.

Split-conformal calibration (Vovk et al., 2005; Bates et al., 2023): for a new normal input, drawn
like the held-out ones, P(p_value <= a) <= a for every a, whatever the detector.

A score of several views has their scales from the same held-out samples. That makes the promise an
approximate one where these are few; calibrated on further samples, it holds as it stands.

Windows of a series overlap, and of so many that share steps with each other all are high or none.
They count for as many as lie apart: a new window comes with its own overlapping ones, and so does
each that is held out (conformal inference by blocks; Chernozhukov et al., 2018).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError
from historyad.score.result import Scored

_MOST_SAMPLES = 2**21  # whose scores fit into the JSON of a model
_ROUNDING = 4 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Calibration:
    """Sorted anomaly scores of held-out normal samples (n,), and the rate that is asked for.

    Of each ``reach`` of them one counts: 1, but of windows that overlap.
    """

    scores: NDArray[np.float32]
    false_positive_rate: float
    reach: int = 1

    @classmethod
    def fit(
        cls, scores: NDArray[np.float32], false_positive_rate: float, reach: int = 1
    ) -> Calibration:
        """Calibrate on ``scores`` (n,).

        InputError when they are too few for the rate, more than a model holds, or not finite.
        """
        check_number(len(scores), false_positive_rate, reach)
        n_bad = int((~np.isfinite(scores)).sum())
        if n_bad:
            raise InputError(
                f"{n_bad} of {len(scores)} held-out scores are not finite, and so there is no "
                "threshold: the detector's training diverged; lower detector_learning_rate and "
                "fit anew"
            )
        return cls(np.sort(scores), false_positive_rate, reach)

    @property
    def n_apart(self) -> int:
        """How many held-out samples count."""
        return len(self.scores) // self.reach

    @property
    def smallest_p_value(self) -> float:
        """The p-value of what scores higher than all that are held out."""
        return self.reach / (len(self.scores) + self.reach)

    @property
    def threshold(self) -> float:
        """The score above which p_value <= false_positive_rate, and not below."""
        n = len(self.scores)
        # The largest m with m / (n + 1) <= rate: m - 1 held-out scores may be at or above.
        # A product such as 0.07 * 100 rounds, so that the quotient decides, as it does in p_value.
        total = n + self.reach
        m = math.floor(self.false_positive_rate * total) + 1
        while m / total > self.false_positive_rate:
            m -= 1
        return float(self.scores[n - 1 - (m - self.reach)])

    def rate_quantiles(self, q: Sequence[float]) -> list[float]:
        """Return quantiles of the rate of false positives of this very detector.

        The rate asked for is a mean over detectors. Of one whose threshold is the m-th highest of n
        held-out scores, the share of normal inputs above it follows Beta(m, n + 1 - m): of 99, for
        0.01, it is at most 0.0298 with 95 % confidence.
        """
        from scipy.stats import beta  # slow to import

        n, m = self.n_apart, int(self.is_anomalous(self.scores).sum()) // self.reach + 1
        return [float(rate) for rate in beta.ppf(q, m, n + 1 - m)]

    def decide(self, scored: Scored) -> Scored:
        """Return what was scored with p-values and verdicts."""
        scores = scored.anomaly_score
        return dataclasses.replace(
            scored, p_value=self.p_value(scores), is_anomalous=self.is_anomalous(scores)
        )

    def is_anomalous(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether each score is above the threshold; NaN, of which nothing is known, is, too."""
        anomalous: NDArray[np.bool_] = ~(np.asarray(scores, np.float32) <= self.threshold)
        return anomalous

    def p_value(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """(1 + #{held-out scores >= score}) / (n + 1), in (0, 1]; the smallest for NaN."""
        n = len(self.scores)
        below = np.searchsorted(self.scores, np.asarray(scores, np.float32), side="left")
        return (self.reach + n - below) / (n + self.reach)


def check_number(n: int, false_positive_rate: float, reach: int = 1) -> None:
    """Raise InputError unless a model can be calibrated on ``n`` samples, for this rate."""
    needed = samples_needed(false_positive_rate) * reach
    if n < needed:
        raise InputError(
            f"{n} held-out normal samples are too few for a false-positive rate of "
            f"{false_positive_rate:g}, which needs {needed}: give more normal data, or raise "
            "false_positive_rate"
        )
    if n > _MOST_SAMPLES:
        raise InputError(
            f"{n:,} held-out normal samples are more than the {_MOST_SAMPLES:,} whose scores a "
            "model file holds: give a part of them"
        )


def samples_needed(false_positive_rate: float) -> int:
    """Return how many held-out samples the smallest p-value, 1 / (n + 1), needs to reach it."""
    n = math.floor(1 / false_positive_rate) - 1
    return n if 1 / (n + 1) <= false_positive_rate else n + 1


def benjamini_hochberg(p_values: NDArray[np.float64], rate: float) -> NDArray[np.bool_]:
    """Choose, among ``p_values`` (N,), those that are discoveries: bool (N,).

    The k smallest are, for the largest k with p_(k) <= rate k / N (Benjamini and Hochberg, 1995).
    Of what is chosen, a share of at most ``rate`` is normal, in expectation. This holds for
    independent p-values, and also for those of one `Calibration`, which share its held-out scores:
    they depend positively (PRDS; Bates et al., 2023, theorem 2). InputError for a rate outside
    (0, 1).
    """
    if not 0 < rate < 1:
        raise InputError(f"the false discovery rate is {rate:g}: it must be between 0 and 1")
    from scipy.stats import false_discovery_control  # slow to import

    # It gives the smallest rate at which each is chosen, p N / k, and that quotient rounds.
    smallest_rate = false_discovery_control(p_values)
    chosen: NDArray[np.bool_] = smallest_rate <= rate * (1 + _ROUNDING)
    return chosen
