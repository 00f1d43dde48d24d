"""Write docs/tiles.md from the rows in docs/rows/tiles; `--check` only compares."""

from __future__ import annotations

import statistics
import sys

from benchmarks.pages import DOCS, ROWS, Row, average, commands, grouped, write_or_check
from benchmarks.tiles.measure import KINDS
from historyad.files import read_rows
from historyad.research.markdown import table

HEAD = """# Magnetic tiles

<!-- Written by `python -m benchmarks.tiles.page` from the rows in docs/rows/tiles; do not edit. -->

**In short.** {in_short}

The [anomaly maps](anomaly-maps.md) of surfaces of magnetic tiles (Huang et al., *Surface defect
saliency of magnetic tile*, 2018), grey, 112 x 112 pixels, reduced from the originals without
keeping their aspect ratio: 500 good ones to train on, of which 100 are held out for calibration.
The test images were cut in two by a seeded draw. Our settings were chosen on one half; all that is
reported here was measured on the other: {good} good tiles and {bad} with a defect. It had been
looked at once before, with the same settings and four times the training; the length used here was
chosen to save time. Six masks of
`uneven` are empty, and are left out where pixels count.

Machine: {machines}, no accelerator.
"""

IMAGES = """## Which tiles have a defect

AUROC of images, mean over the seeds. A fit of ours takes {:.0f} s (median; `--epoch-images 12500`).
"""

METHODS = """
* `historyad`: `--patch 32 --scales 2 --contrast local --augment flip,flip-vertical`.
* `history alone`: the same with `--views history`: D<sub>TV</sub>'s own score of crops.
* `untrained networks`: the first with random weights in place of D<sub>TV</sub>. On these tiles
  training brings {images:+.3f} for images, and {pixels:+.3f} for pixels (AUROC). Local contrast,
  random convolutions and the comparison with good cells do nearly all of the work.
* The others see windows of the same local contrast: the residual of 32 principal components
  (windows of 16 pixels), the distance to a Gaussian, of all windows or of those at the same place
  (16 pixels, ridge of a tenth of the mean variance), the distance to the nearest three of 20,000
  windows (8 pixels), and the error of a convolutional autoencoder made of our networks' blocks
  (32 pixels, 100,000 windows). Their image score, too, is the mean over the worst 2 % of the map.
  They were not tuned, and have one seed each.
"""

PIXELS = """## Where the defect is

All pixels of the good tiles, and of those with a mask that is not empty: AUROC over all of them and
with one kind of defect at a time. The masks of `uneven` and `fray` cover so many pixels that they
decide the figure for all. A mask of `uneven` is all that lies beyond an edge in the surface, and
the map marks the edge, where something changes. AUPRO counts each connected region alike: the mean
share of a region that is found, up to a false-positive rate of 0.3; a map that knows nothing has
.15.

*Elsewhere* is how often a tile with a defect looks worse than a good one far from the defect, by
the 98th percentile of both maps over the pixels that are 24 or more from the mask. At .5, only the
defect is seen. What is above comes from something else that tells these tiles from the good ones,
which a user should not hope for: damage beyond the mask, or the collection itself, which may hold
several pictures of one tile, so that a good test tile may have a relative among the training tiles,
which a tile with a defect cannot have. Ours is not free of it, and neither is a Gaussian for each
place, which can remember single tiles.
"""

ALARMS = """## False alarms

Good tiles of the reported half that are above the threshold; 1 % was asked for. Of {n} images at
exactly 1 %, {most} or fewer are above it in 99 of 100 draws.
"""

LARGE = """## A large image

A grey image of {side} x {side} pixels, made of tiles side by side, whose score is that of its map:
{map_seconds:.2f} s (median of {rounds}, {threads} threads). `historyad score --maps` computes the
score by itself as well, {score_seconds:.2f} s more. The process held {peak_memory_mb:,.0f}
MB at most, of which {peak_memory_before_mb:,.0f} MB before the first image. RUN is one that
`python -m benchmarks.tiles.measure --runs FOLDER` keeps.
"""

PICTURE = """## Found and missed

Of each kind, the tile with the highest and the one with the lowest score, with the mask as a
contour and the map beside it; at the bottom, the good tile that looks worst and the one that looks
best. The first of these shows a crack, and is filed as good. Seed 1, one scale for all maps.

```
python -m benchmarks.tiles.measure --seeds 1 --method historyad --out FILE --picture tiles.webp
```

![Tiles with their masks and maps](pictures/tiles.webp)
"""


def build() -> str:
    """Return the page."""
    folder = ROWS / "tiles"
    rows = [row for row in read_rows(folder / "rows.jsonl") if row["half"] == "report"]
    one, large = rows[0], read_rows(folder / "large.jsonl")[-1]
    machines = ", ".join(sorted({row["machine"] for row in rows}))
    sections = [
        HEAD.format(
            in_short=_in_short(rows),
            good=one["n_good"],
            bad=one["all"]["n_anomalous"],
            machines=machines,
        ),
        IMAGES.format(_fit_seconds(rows))
        + commands(rows)
        + _images(rows)
        + METHODS.format(**_brought(rows)),
        PIXELS + "\n" + _pixels(rows),
        ALARMS.format(n=one["n_good"], most=_most(one["n_good"])) + "\n" + _alarms(rows),
        LARGE.format(**large) + commands([large]),
        PICTURE,
    ]
    return "\n".join(sections)


def _in_short(rows: list[Row]) -> str:
    """Say how well ours, others and untrained networks tell which tiles have a defect."""
    found = {
        method: float(average([r["all"] for r in group], "auroc"))
        for method, group in _methods(rows)
    }
    own, untrained = found.pop("historyad"), found.pop("untrained networks")
    best = max(found, key=found.__getitem__)
    return (
        f"Maps of crops find which tiles have a defect with an AUROC of {own:.2f}, the best other\n"
        f"method ({best}) with {found[best]:.2f}. Untrained networks in the place of ours reach\n"
        f"{untrained:.2f}: on this surface, training hardly pays."
    )


def _images(rows: list[Row]) -> str:
    lines = []
    for method, group in _methods(rows):
        cells = [average([row[kind] for row in group], "auroc") for kind in ("all", *KINDS)]
        lines.append([method, str(len(group)), *cells])
    return table(["method", "seeds", "all", *KINDS], lines)


def _fit_seconds(rows: list[Row]) -> float:
    seconds = (row["fit_seconds"] for row in rows if row["method"] == "historyad")
    return float(statistics.median(seconds))


def _brought(rows: list[Row]) -> dict[str, float]:
    """Return what training adds to the AUROC of images and of pixels."""
    groups = dict(_methods(rows))
    trained, untrained = groups["historyad"], groups["untrained networks"]
    figures = {
        "images": [statistics.fmean(r["all"]["auroc"] for r in g) for g in (trained, untrained)],
        "pixels": [
            statistics.fmean(r["pixels"]["all"]["pixel_auroc"] for r in g)
            for g in (trained, untrained)
        ],
    }
    return {key: with_it - without for key, (with_it, without) in figures.items()}


def _pixels(rows: list[Row]) -> str:
    lines = []
    for method, group in _methods(rows):
        pixels = [row["pixels"] for row in group]
        kinds = [average([p[kind] for p in pixels], "pixel_auroc") for kind in ("all", *KINDS)]
        of_all = [p["all"] for p in pixels]
        others = [average(of_all, "pixel_auprc"), average(of_all, "aupro")]
        lines.append([method, *kinds, *others, average(pixels, "elsewhere")])
    prevalence = rows[0]["pixels"]["all"]["pixel_prevalence"]
    head = ["method", "all", *KINDS, f"AUPRC (prevalence {prevalence:.3f})", "AUPRO", "elsewhere"]
    return table(head, lines)


def _alarms(rows: list[Row]) -> str:
    lines = [
        [row["method"], str(row["seed"]), f"{row['false_positives']} of {row['n_good']}"]
        for row in rows
        if row["method"] == "historyad"
    ]
    return table(["method", "seed", "above the threshold"], lines)


def _most(n: int) -> int:
    """Return what a binomial count of ``n`` at 1 % exceeds once in a hundred draws."""
    from scipy.stats import binom

    return int(binom.ppf(0.99, n, 0.01))


def _methods(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """Return the rows of each method, the best first."""
    groups = [(method, group) for (method,), group in grouped(rows, "method").items()]
    return sorted(groups, key=lambda g: -sum(r["all"]["auroc"] for r in g[1]) / len(g[1]))


if __name__ == "__main__":
    sys.exit(write_or_check(DOCS / "tiles.md", build()))
