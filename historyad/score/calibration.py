"""From a score to a decision: threshold and p-values from held-out normal data alone.

Split-conformal calibration (Vovk et al., 2005; Bates et al., 2023): for a new normal input, drawn
like the held-out ones, P(p_value <= a) <= a for every a, whatever the detector.

A score of several views has their scales from the same held-out samples. That makes the promise an
approximate one where these are few; calibrated on further samples, it holds as it stands.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError
from historyad.score.result import Scored

_MOST_SAMPLES = 2**21  # whose scores fit into the JSON of a model
_SLIGHTLY, _TOLERANCE = 1e-12, 1e-9  # what rounding makes of a quotient, and of a probability
_TWENTY = 20  # of these held-out scores, one is among the lowest
_ROUNDING = 4 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Calibration:
    """Sorted anomaly scores of held-out normal samples (n,), and the rate that is asked for.

    The rate is kept on average over detectors or, with a ``confidence``, by this one: so sure is it
    that its rate is no higher. Of each ``reach`` of the samples one counts: 1, but of windows that
    overlap. They are all odd or none, and a new one comes with its own overlapping ones as each of
    these does (conformal inference by blocks; Chernozhukov et al., 2018).
    """

    scores: NDArray[np.float32]
    false_positive_rate: float
    confidence: float = 0.0
    reach: int = 1

    @classmethod
    def fit(
        cls,
        scores: NDArray[np.float32],
        false_positive_rate: float,
        confidence: float = 0.0,
        reach: int = 1,
    ) -> Calibration:
        """Calibrate on ``scores`` (n,).

        InputError when they are too few for the rate, more than a model holds, or not finite.
        """
        check_number(len(scores) // reach, false_positive_rate, confidence)
        n_bad = int((~np.isfinite(scores)).sum())
        if n_bad:
            raise InputError(
                f"{n_bad} of {len(scores)} held-out scores are not finite, and so there is no "
                "threshold: the detector's training diverged; lower detector_learning_rate and "
                "fit anew"
            )
        return cls(np.sort(scores), false_positive_rate, confidence, reach)

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
        """The score above which a sample is anomalous: the m-th highest of n held-out ones.

        Without a confidence, a score is above it exactly where p_value <= false_positive_rate.
        """
        return float(self.scores[len(self.scores) - self._rank])

    @cached_property
    def _rank(self) -> int:
        """The largest m that keeps the promise; m - 1 held-out scores may be above the m-th."""
        total, rate = len(self.scores) + self.reach, self.false_positive_rate
        if self.confidence:
            above = _confident_rank(self.n_apart, rate, self.confidence) - 1
            return above * self.reach + 1
        # A product such as 0.07 * 100 rounds, so that the quotient decides, as it does in p_value.
        m = math.floor(rate * total) + 1
        while m / total > rate:
            m -= 1
        return m - self.reach + 1

    def rate_quantiles(self, q: Sequence[float]) -> list[float]:
        """Return quantiles of the rate of false positives of this very detector.

        The rate asked for is a mean over detectors. Of one whose threshold is the m-th highest of n
        held-out scores, the share of normal inputs above it follows Beta(m, n + 1 - m): of 99, for
        0.01, it is at most 0.0298 with 95 % confidence.
        """
        from scipy.special import betaincinv  # all of scipy.stats takes a second to import

        n, m = self.n_apart, int(self.is_anomalous(self.scores).sum()) // self.reach + 1
        return [float(rate) for rate in betaincinv(m, n + 1 - m, q)]

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


def check_number(n: int, false_positive_rate: float, confidence: float = 0.0) -> None:
    """Raise InputError unless a model can be calibrated on ``n`` samples, for this promise."""
    needed = samples_needed(false_positive_rate, confidence)
    if n < needed:
        sure = f" with a confidence of {confidence:g}" if confidence else ""
        raise InputError(
            f"{n} held-out normal samples are too few for a false-positive rate of "
            f"{false_positive_rate:g}{sure}, which needs {needed}: give more normal data, or raise "
            "false_positive_rate" + " or lower confidence" * bool(confidence)
        )
    if n > _MOST_SAMPLES:
        raise InputError(
            f"{n:,} held-out normal samples are more than the {_MOST_SAMPLES:,} whose scores a "
            "model file holds: give a part of them"
        )


def chance_of_so_normal(
    scores: NDArray[np.floating], before: NDArray[np.floating]
) -> tuple[int, float]:
    """Return how many of ``scores`` (m,) are among the lowest, and how likely so many would be.

    The lowest are those below a twentieth of the held-out scores ``before`` (n,). Of like samples
    that the detector has not seen, as many fall there by chance as the hypergeometric law says;
    copies of training samples that were saved again, and so are no longer equal, fall there often.
    """
    from scipy.stats import hypergeom  # slow to import

    n, m = len(before), len(scores)
    rank = n // _TWENTY
    low = int((scores < np.sort(before)[rank]).sum())
    if not low:
        return 0, 1.0
    # The first rank + low of all, in their order, have at least that many of the new.
    return low, float(hypergeom(n + m, m, rank + low).sf(low - 1))


def samples_needed(false_positive_rate: float, confidence: float = 0.0) -> int:
    """Return how many held-out samples it takes to promise a rate.

    The smallest p-value, 1 / (n + 1), must reach it. With a ``confidence``, so must the rate above
    the highest of n scores: all of them are below what a share r of normal inputs exceeds with a
    probability of (1 - r)^n.
    """
    if confidence:
        n_exactly = math.log1p(-confidence) / math.log1p(-false_positive_rate)
        return math.ceil(n_exactly * (1 - _SLIGHTLY))
    n = math.floor(1 / false_positive_rate) - 1
    return n if 1 / (n + 1) <= false_positive_rate else n + 1


def lowest_rate(n: int, confidence: float = 0.0) -> float:
    """Return the lowest rate that ``n`` held-out samples can promise, as `samples_needed` says."""
    return -math.expm1(math.log1p(-confidence) / n) if confidence else 1 / (n + 1)


def _confident_rank(n: int, rate: float, confidence: float) -> int:
    """Return the largest m such that the rate above the m-th highest of n scores is at most so.

    That rate follows Beta(m, n + 1 - m), and stays below r as often as m or more of n normal inputs
    are among the share r of the highest: a binomial law.
    """
    from scipy.stats import binom  # slow to import

    m = int(binom.ppf(1 - confidence, n, rate))
    # The quantile is the first to reach it: m more may be above exactly, but for rounding.
    return m + 1 if binom.cdf(m, n, rate) <= (1 - confidence) * (1 + _TOLERANCE) else m


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
