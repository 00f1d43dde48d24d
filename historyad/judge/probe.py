"""What a fitted detector can and cannot see, found without a single anomaly.

Normal samples are damaged in graded steps; at each step one counts how many of them the detector
calls anomalous at its own threshold. Fig. 6 of the paper does this with noise.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from historyad.data.any_size import Images
from historyad.errors import InputError
from historyad.extras import require
from historyad.kinds.damages import Damage, Samples
from historyad.kinds.kind import Kind
from historyad.model.model import Model
from historyad.progress import each
from historyad.randomness import Stream, numpy_generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

POWER = 0.95  # share of the damaged samples that a strength must bring to detection
SAMPLES = 200  # looked at unless told otherwise

# Looked at by default, so that all damages take half a minute or so: a map takes longer to make.
_MOST_VALUES, _MOST_OF_MAPS, _FEWEST = 2**23, 2**19, 5
_CHUNK_VALUES = 2**22  # of the samples damaged at a time: bounds the memory


def probe_model(
    model: Model,
    samples: Samples,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return detection rates of damaged ``samples``, which are normal and were not trained on.

    ``samples`` are as a source holds them, uint8 (N, H, W, C) or float32 (N, F); ``limit`` of them
    are drawn: 200 unless told otherwise, and fewer where they are large; of images of several
    sizes, from those of the most frequent one. The result is what JSON can hold::

        n_samples, n_other_sizes, threshold, requested_false_positive_rate, power, seed
        false_positive_rate: {rate, low, high}       of the samples as they are
        corruptions: [{name, unit, strengths, rate, low, high, seen_from, missed_again}, ...]

    ``strengths``, ``rate`` and its 95 % interval are lists that begin at strength 0.
    ``seen_from`` is the smallest strength, interpolated, from which on the rate stays at ``POWER``
    or above, or None where the strongest is missed; ``missed_again`` is the weakest that is missed
    although a weaker one is seen. The same seed gives the same result. Raises InputError for
    samples that the model does not accept.
    """
    rows = _rows_of_one_size(samples)
    n_other = len(samples) - len(rows)
    limit = default_limit(model.kind, samples) if limit is None else limit
    samples = _draw(samples, rows, limit, seed)
    model.kind.check(samples.shape[1:])
    kinds = model.kind.damages(samples.shape[1:])
    detected = np.zeros((len(kinds), 1 + max(len(kind.strengths) for kind in kinds)), np.int64)
    for start, chunk in each([*_chunks(samples)]):
        detected[:, 0] += _count(model, chunk)
        for i, kind in enumerate(each(kinds)):
            for j, strength in enumerate(each(kind.strengths), 1):
                random = _random(seed, kind, start)
                detected[i, j] += _count(model, model.kind.damage(kind, chunk, strength, random))
    n = len(samples)
    curves = [_curve(kind, detected[i], n) for i, kind in enumerate(kinds)]
    return {
        "n_samples": n,
        "n_other_sizes": n_other,
        "threshold": model.calibration.threshold,
        "requested_false_positive_rate": model.calibration.false_positive_rate,
        "power": POWER,
        "seed": seed,
        "false_positive_rate": {key: curves[0][key][0] for key in ("rate", "low", "high")},
        "corruptions": curves,
    }


def default_limit(kind: Kind, samples: Samples) -> int:
    """Return how many samples are looked at unless told otherwise: fewer where they are large."""
    most = _MOST_VALUES if kind.work_pixels is None else _MOST_OF_MAPS
    return int(np.clip(most // samples[0].size, _FEWEST, SAMPLES))


def wilson_interval(count: NDArray[np.int64], n: int) -> tuple[list[float], list[float]]:
    """Return both ends of the 95 % intervals of shares, of which ``count`` (K,) of ``n`` were seen.

    Wilson (1927).
    """
    from scipy.stats import binomtest  # slow to import

    ends = [binomtest(k, n).proportion_ci(method="wilson") for k in count.tolist()]
    return [end.low for end in ends], [end.high for end in ends]


def seen_from(strengths: list[float], rates: list[float], power: float = POWER) -> float | None:
    """Return the smallest strength from which on the rate stays at ``power`` or above.

    It lies between two strengths if need be, and is None where the strongest is missed.
    """
    missed = [j for j, rate in enumerate(rates) if rate < power]
    if not missed:
        return strengths[0]
    j = missed[-1]
    if j + 1 == len(rates):
        return None
    part = (power - rates[j]) / (rates[j + 1] - rates[j])
    return strengths[j] + part * (strengths[j + 1] - strengths[j])


def missed_again(strengths: list[float], rates: list[float], power: float = POWER) -> float | None:
    """Return the weakest strength that is missed although a weaker one is seen, if there is any."""
    seen = next((j for j, rate in enumerate(rates) if rate >= power), len(rates))
    later = zip(strengths[seen:], rates[seen:], strict=True)
    return next((strength for strength, rate in later if rate < power), None)


def table_of(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a result of `probe_model` as the rows that a person reads."""
    normal = result["false_positive_rate"]
    others = result["n_other_sizes"]
    of = f" of one size, without {others:,} of others" * (others > 0)
    rows = [
        ("samples", f"{result['n_samples']} normal{of}, threshold {result['threshold']:+.3f}"),
        (
            "undamaged",
            f"{_percent(normal)} called anomalous, "
            f"{result['requested_false_positive_rate']:.1%} was asked for",
        ),
    ]
    for curve in result["corruptions"]:
        strongest = {key: curve[key][-1] for key in ("rate", "low", "high")}
        if curve["seen_from"] is None:
            seen = f"not within the range: {_percent(strongest)}"
            seen += f" are seen at {curve['strengths'][-1]:g} {curve['unit']}"
        else:
            seen = f"seen from {curve['seen_from']:.3g} {curve['unit']}"
        if curve["missed_again"] is not None:
            seen += f"; missed at {curve['missed_again']:g}, though less is seen"
        rows.append((curve["name"], seen))
    return rows


def draw_probe(result: dict[str, Any], model: Model, sample: Samples, path: Path) -> None:
    """Write a picture: for each kind of damage the rate against the strength, and examples.

    ``sample`` is one normal sample, (H, W, C) or (F,), that the examples are made of. The format is
    that of the suffix of ``path``. Needs matplotlib, of the extra ``report``.
    """
    mpl = require("matplotlib", "drawing", "report")
    from matplotlib.figure import Figure

    kinds = {kind.name: kind for kind in model.kind.damages(sample.shape)}
    curves = result["corruptions"]
    columns = 2 if len(curves) > 3 else 1
    rows = -(-len(curves) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2 * columns, 0.4 + 2.3 * rows), layout="constrained")
        cells = figure.subfigures(rows, columns, squeeze=False, hspace=0.04, wspace=0.04).flat
        for cell, curve in zip(cells, curves, strict=False):
            kind = kinds[curve["name"]]
            strip = [
                model.kind.damage(kind, sample[None], strength, _random(result["seed"], kind, 0))[0]
                for strength in curve["strengths"]
            ]
            _draw_curve(cell, curve, strip if model.kind.is_picture else [])
        figure.suptitle(
            f"Damaged normal samples called anomalous ({result['n_samples']}, with 95 % interval)",
            x=0.01,
            ha="left",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


_BLUE, _VERMILLION = "#0072b2", "#d55e00"  # Okabe and Ito
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def _draw_curve(cell: SubFigure, curve: dict[str, Any], strip: list[Samples]) -> None:
    """Draw a curve over evenly spaced strengths, each of which has its example above it."""
    strengths = curve["strengths"]
    x = np.arange(len(strengths))
    if strip:
        top, axes = cell.subplots(2, 1, height_ratios=(1, 1.7), sharex=True)
        _draw_strip(top, strip)
    else:
        top = axes = cell.subplots()
    top.set_title(curve["name"])
    axes.axhline(POWER, color="0.6", linewidth=0.8, linestyle="--")
    axes.fill_between(x, curve["low"], curve["high"], color=_BLUE, alpha=0.2, linewidth=0)
    axes.plot(x, curve["rate"], color=_BLUE, marker="o", markersize=3, clip_on=False)
    if curve["seen_from"] is not None:
        mark = float(np.interp(curve["seen_from"], strengths, x))
        axes.plot([mark, mark], [0, POWER], color=_VERMILLION, linewidth=1)
        place = {"xytext": (3, 0), "textcoords": "offset points", "color": _VERMILLION}
        axes.annotate(f"{curve['seen_from']:.3g}", (mark, 0.05), **place)
    axes.set(xlim=(-0.5, len(x) - 0.5), ylim=(0, 1), xlabel=curve["unit"])
    axes.set_xticks(x, [f"{strength:g}" for strength in strengths])
    axes.set_yticks([0, 0.5, POWER], ["0 %", "50 %", f"{POWER:.0%}".replace("%", " %")])


def _draw_strip(axes: Axes, strip: list[Samples]) -> None:
    height, width = strip[0].shape[:2]
    longer = max(height, width)
    half_width, half_height = 0.46 * width / longer, 0.46 * height / longer
    for x, image in enumerate(strip):
        shown = image if image.shape[-1] == 3 else image.mean(-1)
        extent = (x - half_width, x + half_width, -half_height, half_height)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
    axes.set(xlim=(-0.5, len(strip) - 0.5), ylim=(-0.5, 0.5))
    axes.set_box_aspect(1 / len(strip))
    axes.axis("off")


def _rows_of_one_size(samples: Any) -> NDArray[np.intp]:
    """Return the rows of the most frequent size: damage is done to many samples at a time."""
    if not isinstance(samples, Images):
        return np.arange(len(samples))
    _, size, counts = np.unique(samples.sizes, axis=0, return_inverse=True, return_counts=True)
    counts[size[~samples.sizes.all(1)]] = 0  # whose header is damaged
    return np.flatnonzero(size == counts.argmax())


def _draw(samples: Samples, rows: NDArray[np.intp], limit: int, seed: int) -> Samples:
    if limit < 1:
        raise InputError(f"limit is {limit}: look at one sample at least")
    rows = numpy_generator(seed, Stream.PROBE).permutation(rows)[:limit]
    drawn = samples[np.sort(rows)]
    # In place of one that cannot be read, another stands, perhaps of another size.
    return np.stack([sample for sample in drawn if sample.shape == drawn[0].shape])


def _chunks(samples: Samples) -> Iterator[tuple[int, Samples]]:
    step = max(1, _CHUNK_VALUES // samples[0].size)
    for start in range(0, len(samples), step):
        yield start, samples[start : start + step]


def _random(seed: int, kind: Damage, start: int) -> np.random.Generator:
    """Return one generator for all strengths of a kind: the same damage grows."""
    return numpy_generator(seed, Stream.PROBE, zlib.crc32(kind.name.encode()), start)


def _count(model: Model, samples: Samples) -> int:
    return int(model.calibration.is_anomalous(model.anomaly_score(samples)).sum())


def _curve(kind: Damage, detected: NDArray[np.int64], n: int) -> dict[str, Any]:
    strengths = [0.0, *map(float, kind.strengths)]
    detected = detected[: len(strengths)]
    low, high = wilson_interval(detected, n)
    rates = (detected / n).tolist()
    return {
        "name": kind.name,
        "unit": kind.unit,
        "strengths": strengths,
        "rate": rates,
        "low": low,
        "high": high,
        "seen_from": seen_from(strengths, rates),
        "missed_again": missed_again(strengths, rates),
    }


def _percent(share: dict[str, float]) -> str:
    return f"{share['rate']:.1%} ({share['low']:.1%} to {share['high']:.1%})"
