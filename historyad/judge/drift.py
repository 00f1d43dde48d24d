"""Whether a stream of scores is still what the detector was calibrated on, and since when not.

A conformal test martingale (Vovk et al., 2005; Vovk, 2021): as long as the stream is exchangeable
with the held-out normal data, its online p-values are independent and uniform, and capital that
bets against that grows beyond 1 / level with a probability of at most ``level``, however long the
stream (Ville's inequality). One may therefore look at every sample and stop at any.

The p-values of `Calibration` would not do here: they share one finite set of held-out scores, so
that the share below some rate is off by a fixed amount, which a long stream would bring to light
as a false alarm. The online p-values also rank a score among those of the stream before it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError
from historyad.score.calibration import Calibration

Array = NDArray[np.float64]


def _beta(a: float, b: float, p: Array) -> Array:
    """Return the density of Beta(a, b) at p."""
    normal = math.gamma(a + b) / (math.gamma(a) * math.gamma(b))
    density: Array = normal * p ** (a - 1) * (1 - p) ** (b - 1)
    return density


def _some_small(share: float, p: Array) -> Array:
    """Return the density of a uniform p-value that is now and then, by ``share``, much smaller."""
    return 1 - share + share * _beta(0.2, 1, p)


def _few_below(cut: float, p: Array) -> Array:
    """Return the density of a p-value that is seldom, in a fifth of what is due, below ``cut``."""
    return np.where(p < cut, 0.2, (1 - 0.2 * cut) / (1 - cut))


# What may become of the scores: in words, and as the bet that gains by it. A bet is a density on
# [0, 1]: what it pays at p, and at a uniform p 1 on average.
_BETS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("more anomalies", partial(_some_small, 0.05)),
    ("more anomalies", partial(_some_small, 0.3)),
    ("higher scores", partial(_beta, 0.5, 1)),
    ("higher scores", partial(_beta, 0.8, 1)),
    ("lower scores", partial(_beta, 1, 0.5)),
    ("lower scores", partial(_beta, 1, 0.8)),
    ("fewer high scores", partial(_few_below, 0.1)),
    ("more extreme scores, high and low", partial(_beta, 0.6, 0.6)),
    ("fewer extreme scores, high and low", partial(_beta, 2, 2)),
)


@dataclass(frozen=True)
class Drift:
    """What `detect_drift` found. Samples are counted from 0; without an alarm, both are None."""

    n: int
    level: float
    alarm: int | None  # sample at which the evidence passed 1 / level
    since: int | None  # sample at which the change is estimated to have begun
    change: str | None  # what it looks like
    evidence: float  # log10 of the capital at the alarm, or at the end of the stream
    rate: float  # the detector's false-positive rate
    share_before: float | None  # share of p-values at or below it; None without samples
    share_since: float | None


def detect_drift(
    calibration: Calibration, scores: NDArray[np.floating], *, level: float = 0.01, seed: int = 0
) -> Drift:
    """Test whether the ``scores`` (N,) of a stream, in order, are still like the held-out ones.

    A stream that is like them raises an alarm with a probability of at most ``level``, whatever
    its length. ``seed`` draws the numbers that break ties. Raises InputError for an empty stream
    or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"the level is {level:g}: it must be between 0 and 1")
    if len(scores) == 0:
        raise InputError("the stream is empty: give at least one sample")
    logs = log_bets(online_p_values(calibration.scores, scores, np.random.default_rng(seed)))
    capital = log_martingale(logs)
    alarms = np.flatnonzero(capital >= -math.log(level))
    alarm = int(alarms[0]) if len(alarms) else None
    since, change = (None, None) if alarm is None else change_point(logs[:, : alarm + 1])

    unusual = calibration.p_value(scores) <= calibration.false_positive_rate
    start = len(scores) if since is None else since
    return Drift(
        n=len(scores),
        level=level,
        alarm=alarm,
        since=since,
        change=change,
        evidence=float(capital[-1 if alarm is None else alarm] / math.log(10)),
        rate=calibration.false_positive_rate,
        share_before=float(unusual[:start].mean()) if start else None,
        share_since=float(unusual[start:].mean()) if start < len(scores) else None,
    )


def online_p_values(
    held_out: NDArray[np.floating], scores: NDArray[np.floating], random: np.random.Generator
) -> Array:
    """Rank each of ``scores`` (N,) among the held-out ones and those before it: (N,) in (0, 1).

    p = (#{higher} + u #{as high, itself included}) / #{all, itself included} with u uniform:
    independent and uniform if all are exchangeable (Vovk et al., 2005, theorem 8.2).
    """
    seen = np.sort(held_out).tolist()
    p_values = np.empty(len(scores))
    for i, (score, u) in enumerate(zip(scores.tolist(), random.random(len(scores)), strict=True)):
        low, high = bisect.bisect_left(seen, score), bisect.bisect_right(seen, score)
        p_values[i] = (len(seen) - high + u * (high - low + 1)) / (len(seen) + 1)
        seen.insert(high, score)
    return np.clip(p_values, 2.0**-53, 1 - 2.0**-53)  # where every bet is finite


def log_bets(p_values: Array) -> Array:
    """Return the logarithm of what each bet pays at each p-value, (bets, N)."""
    return np.log([bet(p_values) for _, bet in _BETS])


def log_martingale(logs: Array) -> Array:
    """Return the logarithm of the capital after each sample, (N,), from `log_bets`; it starts at 0.

    The capital is at rest until a part of it, 1 / (s (s + 1)), is laid at sample s on the bets in
    equal parts, and stays there. It is thus a mixture over when a change may begin, and what it
    may be: a change at s is found as soon as a bet from there on has gained about
    s^2 bets / level.
    """
    n_bets, n = logs.shape
    s = np.arange(1, n + 1)
    gains = np.cumsum(logs, axis=1)
    laid = -np.log(s) - np.log(s + 1) - math.log(n_bets)
    # A part that was laid at s has since been multiplied by exp(gains - gains before s).
    bets = gains + np.logaddexp.accumulate(laid - (gains - logs), axis=1)
    at_rest = -np.log(s + 1)
    capital: Array = np.logaddexp.reduce([at_rest, *bets])
    return capital


def change_point(logs: Array) -> tuple[int, str]:
    """Return at which sample the change began that was found at the last one, and its name.

    It is the start from which a single bet gained most until then (Page's CUSUM): the last
    minimum of the logarithm of that bet's capital.
    """
    gains = np.cumsum(logs, axis=1)
    before = gains - logs
    since = before.shape[1] - 1 - before[:, ::-1].argmin(axis=1)
    best = int((gains[:, -1] - before.min(axis=1)).argmax())
    return int(since[best]), _BETS[best][0]


def table_of(drift: Drift, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return what was found as the rows that a person reads; ``names`` (N,) are the samples'."""
    small = f"have a p-value of at most {drift.rate:g}"
    evidence = f"10^{drift.evidence:.1f}, an alarm is at 10^{-math.log10(drift.level):.1f}"
    if drift.alarm is None or drift.since is None:
        return [
            ("drift", f"none found in {drift.n:,} samples"),
            ("evidence", evidence),
            ("share", f"{drift.share_before:.4f} {small}"),
        ]
    rows = [
        ("drift", f"{drift.change}, found at sample {drift.alarm + 1:,} of {drift.n:,}"),
        ("since", f"about sample {drift.since + 1:,}, named {names[drift.since]}"),
        ("evidence", evidence),
        ("share since", f"{drift.share_since:.4f} {small}"),
    ]
    if drift.share_before is not None:
        rows.append(("share before", f"{drift.share_before:.4f}"))
    return rows
