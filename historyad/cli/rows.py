"""Rows of scores, a part of a source at a time, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from historyad.deploy.tables import open_table
from historyad.errors import InputError

if TYPE_CHECKING:
    from historyad.data.sources import Batch, Source
    from historyad.model.model import Model

Row = dict[str, Any]


def chunks_of(model: Model, samples: Source) -> Iterator[Batch]:
    """Yield (names, samples) that ``model`` can score; InputError where there are none at all."""
    from historyad.data.sources import CHUNK

    found = False
    for chunk in samples.chunks(CHUNK, check=model.kind.check):
        found = True
        yield chunk
    if not found:
        name, reason = samples.unreadable[0]
        raise InputError(f"none of {len(samples):,} images can be scored. {name}: {reason}")


def rows_of_samples(
    model: Model, samples: Source, *, view_scores: bool, maps: Path | None, explain: bool
) -> Iterator[Row]:
    """Yield the row of each sample."""
    from historyad.deploy.parts import score_chunk
    from historyad.judge.explain import reasons
    from historyad.score.result import rows_of

    for names, chunk in chunks_of(model, samples):
        if maps is None:
            rows = rows_of(score_chunk(model, names, chunk, view_scores=view_scores))
        else:
            rows = _rows_with_maps(model, names, chunk, maps, view_scores)
        for row, sample in zip(rows, chunk, strict=True):
            if explain:
                found = reasons(model, sample) if row["is_anomalous"] else []
                row["because"] = "; ".join(map(str, found))
            yield row


def _rows_with_maps(
    model: Model, names: Sequence[str], images: Any, folder: Path, view_scores: bool
) -> Iterator[Row]:
    """Yield the row of each image once its map is written: one at a time, since maps are large."""
    import io

    from PIL import Image

    from historyad.deploy.parts import columns_of
    from historyad.files import write_atomic
    from historyad.judge.explain import picture
    from historyad.names import within
    from historyad.score.result import rows_of

    for name, image in zip(names, images, strict=True):
        found = model(image[None], views=view_scores, maps=True)
        assert found.maps is not None
        drawn = io.BytesIO()
        Image.fromarray(picture(model, image, found.maps[0])).save(drawn, "PNG")
        # The whole name, since a.bmp and a.jpg are two images.
        write_atomic(
            within(folder, name if name.endswith(".png") else f"{name}.png"), drawn.getvalue()
        )
        yield from rows_of(columns_of([name], found))


def with_discoveries(rows: Iterator[Row], rate: float) -> Iterator[Row]:
    """Yield the rows with one column more, which depends on all of them."""
    import numpy as np

    from historyad.score.calibration import benjamini_hochberg

    scored = list(rows)
    discoveries = benjamini_hochberg(np.array([row["p_value"] for row in scored]), rate)
    for row, is_discovery in zip(scored, discoveries.tolist(), strict=True):
        yield {**row, "is_discovery": is_discovery}


def write_rows(out: str, columns: tuple[str, ...], rows: Iterator[Row]) -> Counter[str]:
    """Write the rows and count them, the anomalous ones and the discoveries."""
    counts: Counter[str] = Counter()
    with open_table(out, columns) as write:
        for row in rows:
            write(row)
            counts["scored"] += 1
            counts["anomalous"] += row.get("is_anomalous", False)
            counts["discoveries"] += row.get("is_discovery", False)
    return counts


def summary(scored: int, anomalous: int, unreadable: int) -> str:
    """Return what became of samples, on one line."""
    skipped = f", {unreadable:,} could not be read" if unreadable else ""
    return f"{scored:,} scored, {anomalous:,} anomalous{skipped}"
