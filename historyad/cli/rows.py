"""Rows of scores, a part of a source at a time, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from historyad.errors import InputError

if TYPE_CHECKING:
    from historyad.data.sources import Batch, Source
    from historyad.model.model import Model
    from historyad.score.result import Columns


def chunks_of(model: Model, samples: Source) -> Iterator[Batch]:
    """Yield (names, samples) that ``model`` can score; InputError where there are none at all."""
    found = False
    for chunk in samples.chunks(check=model.kind.check):
        found = True
        yield chunk
    if not found:
        name, reason = samples.unreadable[0]
        raise InputError(f"none of {len(samples):,} images can be scored. {name}: {reason}")


def columns_of_sources(
    model: Model, sources: Iterable[tuple[Source, float]], **how: Any
) -> Iterator[Columns]:
    """Yield the columns of some samples of each source at a time.

    With each source comes the share of all that is done with it.
    """
    from historyad.progress import share

    before = 0.0
    for samples, done in sources:
        with share(before, done):
            yield from columns_of_samples(model, samples, **how)
        before = done


def columns_of_samples(
    model: Model, samples: Source, *, view_scores: bool, maps: Path | None, explain: bool
) -> Iterator[Columns]:
    """Yield the columns of some samples at a time."""
    import numpy as np

    from historyad.deploy.parts import score_chunk
    from historyad.judge.explain import reasons
    from historyad.progress import each

    for names, chunk in each(chunks_of(model, samples), -(-len(samples) // samples.at_once)):
        if maps is not None:
            yield from each(_with_maps(model, names, chunk, maps, view_scores), len(chunk))
            continue
        columns = score_chunk(model, names, chunk, view_scores=view_scores)
        if explain:
            pairs = zip(columns["is_anomalous"].tolist(), chunk, strict=True)
            why = ["; ".join(map(str, reasons(model, row))) if odd else "" for odd, row in pairs]
            columns["because"] = np.array(why, object)
        yield columns


def _with_maps(
    model: Model, names: Sequence[str], images: Any, folder: Path, view_scores: bool
) -> Iterator[Columns]:
    """Yield the columns of each image once its map is written: one, since maps are large."""
    import io

    from PIL import Image

    from historyad.deploy.parts import columns_of
    from historyad.files import write_atomic
    from historyad.judge.explain import picture
    from historyad.names import within

    for name, image in zip(names, images, strict=True):
        found = model(image[None], views=view_scores, maps=True)
        assert found.maps is not None
        drawn = io.BytesIO()
        Image.fromarray(picture(model, image, found.maps[0])).save(drawn, "PNG")
        # The whole name, since a.bmp and a.jpg are two images.
        write_atomic(
            within(folder, name if name.endswith(".png") else f"{name}.png"), drawn.getvalue()
        )
        yield columns_of([name], found)


def with_discoveries(parts: Iterable[Columns], rate: float) -> Iterator[Columns]:
    """Yield all rows at once with one column more, which depends on all of them."""
    import numpy as np

    from historyad.score.calibration import benjamini_hochberg

    found = list(parts)
    columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    yield {**columns, "is_discovery": benjamini_hochberg(columns["p_value"], rate)}


def write_columns(out: str, names: tuple[str, ...], parts: Iterable[Columns]) -> Counter[str]:
    """Write the rows of columns and count them, the anomalous ones and the discoveries."""
    from historyad.deploy.tables import open_table

    counts: Counter[str] = Counter()
    with open_table(out, names) as write:
        for columns in parts:
            write(columns)
            counts["scored"] += len(columns[names[0]])
            for name, called in (("is_anomalous", "anomalous"), ("is_discovery", "discoveries")):
                counts[called] += int(columns[name].sum()) if name in columns else 0
    return counts


def summary(scored: int, anomalous: int, unreadable: int) -> str:
    """Return what became of samples, on one line."""
    skipped = f", {unreadable:,} could not be read" if unreadable else ""
    return f"{scored:,} scored, {anomalous:,} anomalous{skipped}"
