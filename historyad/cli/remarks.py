"""What `fit` and `calibrate` remark on samples, before or after they have used them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from historyad.cli.console import note
from historyad.config import Config

if TYPE_CHECKING:
    from historyad.data.sources import Source
    from historyad.model.model import Model

_LOOKED_AT = 300  # samples of a new calibration that are compared with those before
_SO_NORMAL = 1e-3  # chance that samples look so normal to a detector that has not seen them
_FEWEST_COUNTED = 10  # rows
_TWELVE_BITS = 16  # what 4095 of 65535 becomes of 255


def about_samples(samples: Source, config: Config) -> None:
    """Say of the samples of a fit what its user may not have meant."""
    _mention_crops(samples, config)
    _mention_dark(samples)
    _mention_unmatched(samples, config)
    _mention_counting(samples, config)
    _mention_texts(samples)


def about_calibration(model: Model, samples: Source) -> None:
    """Say where samples look more normal than those that a detector has not seen."""
    import numpy as np

    from historyad.score.calibration import chance_of_so_normal

    new = np.flatnonzero(~model.was_trained_on(samples))[:_LOOKED_AT]
    scores = model.score.of_rows(samples.samples, new)
    low, chance = chance_of_so_normal(scores, model.calibration.scores)
    if chance < _SO_NORMAL:
        note(
            f"note: {low:,} of {len(scores):,} samples look more normal than nearly all of "
            "those that it was calibrated on before: where they are what it was trained on, saved "
            "again or rounded, there will be more false alarms; calibrate on others"
        )


def _mention_crops(samples: Source, config: Config) -> None:
    """Say before a fit takes its time that images are reduced, and what sees small defects."""
    from historyad.kinds.choose import hint

    said = hint(samples.samples, config)
    if said:
        note(f"note: {said}")


def _mention_dark(samples: Source) -> None:
    """Say that images are nearly black, as those of 12 bits in files of 16 are when they come."""
    import numpy as np

    pixels = samples.samples
    if pixels.ndim != 4 or not isinstance(pixels, np.ndarray):  # of shards, only a part was seen
        return
    highest = int(pixels.max())
    if highest <= _TWELVE_BITS:
        note(
            f"note: values reach only {highest} of 255: scale 12-bit data to 0..65535, which "
            "16-bit files hold, and 8-bit data to 0..255"
        )


def _mention_unmatched(samples: Source, config: Config) -> None:
    """Say of how many samples --group knows no group."""
    from historyad.data.copies import n_unmatched

    if config.group and (n := n_unmatched(samples, config.group)):
        note(
            f"note: --group '{config.group}' matches no part of {n:,} of {len(samples):,} names: "
            "those are taken to belong to no other"
        )


def _mention_counting(samples: Source, config: Config) -> None:
    """Say that a column counts the rows, which is no measurement: new rows will look far out."""
    import numpy as np

    rows = samples.samples
    if config.window or not samples.columns or len(rows) < _FEWEST_COUNTED:
        return
    numbers = [place for place, texts in enumerate(samples.levels) if not texts]
    for place in numbers if samples.levels else range(rows.shape[1]):
        name = samples.columns[place]
        if (np.diff(rows[:, place]) == 1).all():
            note(
                f"note: column '{name}' counts the rows, and is taken for a value: if it says what "
                f"they are called, add --id '{name}', or leave it out"
            )


def _mention_texts(samples: Source) -> None:
    """Say which columns are taken for categories, and of how many texts each is."""
    names = samples.columns or [str(place) for place in range(len(samples.levels))]
    found = [
        f"'{name}' of {len(texts)}"
        for name, texts in zip(names, samples.levels, strict=False)
        if texts
    ]
    if found:
        note(f"note: texts are taken for categories: {', '.join(found)}")
