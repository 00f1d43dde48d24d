"""The splits of docs/comparison.md, in families, and what is computed from their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame, Series

from benchmarks.results.figures import by_preset
from historyad.files import read_rows
from historyad.research.benchmark import OURS, Row
from historyad.research.standings import frame_of, methods_in, on

OUR_DEFAULT, OUR_PAPER = "historyad", "historyad-paper"


@dataclass(frozen=True)
class Family:
    """Splits that ask the same question: they share a table, and a mean."""

    title: str
    about: str
    splits: tuple[str, ...]
    images: bool = True


def _ten(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}-{d}" for d in range(10))


def _vectors(names: str) -> tuple[str, ...]:
    return tuple(f"vectors-{name}" for name in names.split())


WITHOUT = Family(
    "Digits, one left out",
    "MNIST: nine digits are normal, all images of the tenth are anomalous. The anomalies are near "
    "the data, made of the same strokes.",
    _ten("mnist-without"),
)
FAR = Family(
    "Digits against another set",
    "MNIST, all digits, against 10,000 Japanese characters (KMNIST) and 10,000 pieces of clothing "
    "(Fashion-MNIST).",
    ("mnist-vs-kmnist", "mnist-vs-fashion"),
)
SVHN = Family(
    "House numbers",
    "SVHN; 7,000 images train, the first of the official test split, and **not** the 73,257 of the "
    "paper's setting. These sets differ in the statistics of neighbouring pixels: see "
    "[Results](results.md#table-1-and-figure-1-svhn-as-normal).",
    ("svhn-vs-cifar10", "svhn-vs-celeba", "svhn-vs-tiny-imagenet"),
)
PHOTOS = Family(
    "Photos against house numbers",
    "Photos are normal, SVHN is anomalous. Of each set of photos, three quarters train and the "
    "last quarter tests. A house number is plainer than any photo, and so nearer to their mean: "
    "what only measures distances takes it for a photo.",
    ("cifar10-vs-svhn", "celeba-vs-svhn", "tiny-imagenet-vs-svhn"),
)
TILES = Family(
    "Magnetic tiles",
    "Whole tiles, reduced to 64 x 64 pixels: good ones against those with a defect of any kind. "
    "What detectors make of crops of the tiles is on a [page of its own](tiles.md).",
    ("magnetic-tile",),
)
ONE_DIGIT = Family(
    "One digit",
    "MNIST: one digit is normal, the nine others are anomalous.",
    _ten("mnist-only"),
)
ONE_GARMENT = Family(
    "One kind of clothing",
    "Fashion-MNIST: one kind is normal, the nine others are anomalous.",
    _ten("fashion-only"),
)
TABLES = Family(
    "Tables",
    "Eight tables of ADBench. A seeded half of the normal rows trains; the other half and all "
    "anomalies test, so that the spread over the seeds is that of the split, too.",
    _vectors("Ionosphere breastw cardio mammography optdigits satimage-2 shuttle thyroid"),
    images=False,
)
FEATURES = Family(
    "Pretrained features",
    "ResNet-18 features of eight categories of MVTec AD, one vector for each photo; halved like "
    "the tables.",
    _vectors("bottle cable capsule carpet hazelnut screw tile wood"),
    images=False,
)
# Image splits on which the deep peers are measured, too.
WITH_DEEP_PEERS = (WITHOUT, FAR, SVHN, TILES)
FAMILIES = (WITHOUT, FAR, SVHN, PHOTOS, TILES, ONE_DIGIT, ONE_GARMENT, TABLES, FEATURES)

_AT_TIMES = (  # columns that a benchmark's rows may lack
    *("other_draw", "model_version", "detection_rate", "false_positive_rate"),
    *("machine", "parameters", "requested_rate", "auroc_low", "auroc_high"),
)

# Seeds on which settings of ours were chosen, besides seed 0, which nobody reports.
_TABLES_TO_CHOOSE_ON = "Ionosphere bottle cable cardio carpet mammography optdigits shuttle"
CHOSEN_ON = {
    **{split: {1, 2} for split in _vectors(_TABLES_TO_CHOOSE_ON)},
    **{f"fashion-only-{kind}": {2} for kind in (2, 3, 4)},
}


def read_all(folder: Path) -> DataFrame:
    """Return the rows in the folders of ``folder``: the comparison's, and some of other pages.

    Of several, the last counts. A seed on which settings were chosen counts for nobody.
    """
    rows = [*rows_of_fits(read_rows(folder / "speed" / "rows.jsonl"))]
    for name in ("table1", "fig5", "fig7"):
        rows += rows_of_paper(read_rows(folder / "paper" / f"{name}.jsonl"))
    for file in sorted((folder / "comparison").glob("*.jsonl")):
        rows += read_rows(file)
    return measured(row for row in rows if row["seed"] not in CHOSEN_ON.get(row["split"], ()))


def measured(rows: Iterable[Row]) -> DataFrame:
    """Return rows as `frame_of` does, with all columns that this page looks at."""
    frame = frame_of(rows)
    return frame.reindex(columns=[*dict.fromkeys([*frame.columns, *_AT_TIMES])])


def rows_of_fits(fits: Iterable[Row]) -> Iterator[Row]:
    """Yield the default's rows on MNIST from its whole fits on the page of performance."""
    for fit in fits:
        if fit.get("recipe") != "default":
            continue
        shared = {key: fit[key] for key in ("seed", "threads", "n_train", "command")}
        shared |= {"method": OUR_DEFAULT, "fit_seconds": fit["seconds"]}
        shared |= {"peak_memory_mb": fit["peak_memory_mb"]}
        shared |= {"parameters": fit["detector_parameters"]}
        for split in FAR.splits:
            row = {**shared, "split": split, **fit[split]}
            n_scored = row["n_normal"] + row["n_anomalous"]
            yield row | {"images_per_second": n_scored / row["score_seconds"]}


def rows_of_paper(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows of the paper's recipe from its tables and figures, reproduced in full.

    Those of figure 7, its case 1, say by ``other_draw`` that they are of another draw of the same
    images: 80 % of the normal ones of both official halves train.
    """
    kept = ("seed", "auroc", "auprc", "prevalence", "n_normal", "n_anomalous", "command")
    full = [r for r in rows if r["size"] == "full" and r["method"] in {"paper", "case 1"}]
    today, before = by_preset(full)
    for row in today or before:
        facts = {"method": OUR_PAPER, "n_train": row["train"]["n"]}
        if "digit" in row:
            facts |= {"split": f"mnist-without-{row['digit']}", "other_draw": True}
        else:
            facts["split"] = row["split"]
        yield facts | {key: row[key] for key in kept}


def range_of(values: Series) -> str:
    """Say from what to what numbers go."""
    low, high = values.min(), values.max()
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def better_peers(rows: DataFrame, split: str, ours: str) -> Series:
    """Return by how much AUROC each peer is better than the method ``ours``, the largest first.

    Only seeds that both have count where both have several, and always on vectors, whose halves a
    seed decides.
    """
    values = on(rows, [split]).pivot(index="seed", columns="method", values="auroc")
    by_seeds = any(split in family.splits for family in FAMILIES if not family.images)
    several = (values.count() > 1) & (values[ours].count() > 1)
    of_both = values.sub(values[ours], axis=0).mean().where(several | by_seeds)
    gains = of_both.fillna(values.mean() - values[ours].mean()).round(12)  # sums of floats round
    peers = [method for method in methods_in(on(rows, [split])) if method not in OURS]
    return gains[peers][gains[peers] > 0].sort_values(ascending=False, kind="stable")


def clearly_better(rows: DataFrame, split: str, ours: str) -> list[str]:
    """Return the peers that are ahead of the method ``ours`` by more than chance.

    The interval of 95 % of their AUROC, over draws of the test samples, begins where that of ours
    ends, or beyond; of several seeds, the means of its ends.
    """
    ends = on(rows, [split]).groupby("method")[["auroc_low", "auroc_high"]].mean()
    beyond = ends["auroc_low"] > ends["auroc_high"][ours]
    return [method for method in better_peers(rows, split, ours).index if beyond[method]]
