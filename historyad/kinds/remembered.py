"""What a frozen network makes of images, kept as long as a fit looks at them again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from historyad.data.images import Pixels

Key = tuple[tuple[int, ...], bytes]


class Remembered:
    """Tensors that were made of images, by what these show, while there is room for them."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._found: dict[Key, Tensor] | None = None

    @contextmanager
    def on(self) -> Iterator[None]:
        """Remember until the block is left; nothing is forgotten by one within."""
        if self._found is not None:
            yield
            return
        self._found = {}
        try:
            yield
        finally:
            self._found = None

    def of(self, image: Pixels, make: Callable[[], Tensor]) -> Tensor:
        """Return what ``make`` makes of an image (H, W, C), or made of it before."""
        if self._found is None:
            return make()
        key = image.shape, hashlib.blake2b(image.tobytes()).digest()
        known = self._found.get(key)
        if known is not None:
            return known
        made = make()
        # All are about as large.
        if (len(self._found) + 1) * made.nbytes <= self.most_bytes:
            self._found[key] = made
        return made
