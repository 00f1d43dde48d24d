"""What a frozen network makes of images, kept as long as a fit looks at them again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor

from historyad.data.images import Pixels

Key = tuple[str, tuple[int, ...], bytes]


class Remembered:
    """Tensors that were made of images, by what these show, while there is room for them."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._n_bytes = 0
        self._found: dict[Key, list[Tensor]] | None = None

    @contextmanager
    def on(self) -> Iterator[None]:
        """Remember until the block is left; nothing is forgotten by one within."""
        if self._found is not None:
            yield
            return
        self._found, self._n_bytes = {}, 0
        try:
            yield
        finally:
            self._found = None

    def of(
        self, image: Pixels, make: Callable[[], Iterable[Tensor]], what: str = ""
    ) -> Iterator[Tensor]:
        """Yield what ``make`` makes of an image (H, W, C), or made of it before as ``what``."""
        if self._found is None:
            yield from make()
            return
        key = what, image.shape, hashlib.blake2b(image.tobytes()).digest()
        if key in self._found:
            yield from self._found[key]
            return
        kept: list[Tensor] | None = []
        for one in make():
            if kept is not None:
                kept.append(one)
                n_bytes = sum(part.nbytes for part in kept)
                kept = kept if self._n_bytes + n_bytes <= self._most_bytes else None
            yield one
        if kept is not None:
            self._found[key] = kept
            self._n_bytes += n_bytes
