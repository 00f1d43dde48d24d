"""What a detector has against a sample: the views that object, and what it was compared with."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from historyad.model.card import WORDS
from historyad.model.examples import Examples, url_of
from historyad.model.model import Model

_MOST = 3
_RARE = 1.0  # a view exceeds it on one in twenty normal samples


def objections(model: Model, sample: NDArray[Any]) -> list[tuple[str, float]]:
    """Return the views that find ``sample`` rare, as a source holds it, in words, the first most.

    0 is typical, and one normal sample in twenty exceeds 1.
    """
    views = model.score.of(sample[None], views=True).views or {}
    found = [(WORDS.get(name, name), float(values[0])) for name, values in views.items()]
    return sorted((one for one in found if not one[1] <= _RARE), key=lambda one: -one[1])[:_MOST]


def as_line(found: list[tuple[str, float]]) -> str:
    """Return objections as one line; empty where no view objects by itself."""
    return ", ".join(f"{words} ({value:.1f})" for words, value in found)


def nearest(
    model: Model, examples: Examples | None, sample: NDArray[Any], name: str | None = None
) -> list[int]:
    """Return which of the normal samples that a run keeps are nearest to one, but for itself.

    They are compared as its neighbours are: images as a whole.
    """
    if examples is None:
        return []
    place = model.score.place(sample[None])
    if place is None or place.shape[1] != examples.places.shape[1]:
        return []
    return examples.nearest(place[0], but=name)


def nearest_pictures(
    model: Model, examples: Examples | None, image: NDArray[Any], name: str | None = None
) -> list[dict[str, str]]:
    """Return the names and pictures of the normal images that are `nearest`, as data URIs."""
    return [
        {"name": examples.names[row], "picture": url_of(examples.pictures[row])}
        for row in nearest(model, examples, image, name)
        if examples is not None
    ]
