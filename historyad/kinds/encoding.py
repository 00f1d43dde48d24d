"""How categories, and values that are missing, become numbers beside those of other columns.

A column of texts becomes a dummy for each of them, one for missing, and one for whatever else there
is. A dummy is larger the rarer it was, as distances by chi-squared have it, and the dummies of one
column have about the weight of one column of numbers, however many they are. Where a number is
missing, the median stands in its place, and one value more says of all columns of numbers together
how surprising it is that just these are missing. What was never seen is as far out as a new value
of a constant column is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.constants import CONSTANTS
from historyad.data.tables import Levels, as_text
from historyad.kinds.scaling import constant_step, scaling_of

Numbers = NDArray[np.floating]

_RAREST = 1e-6  # share of what was never seen, and so has no logarithm


@dataclass(frozen=True, eq=False)
class Encoding:
    """What is known of the F columns of a table besides the scaling of their numbers.

    ``levels`` are the texts of each column, none of one of numbers; ``shares`` of each column how
    often each of them was seen and, last, how often the value was missing. ``surprise`` is the
    median and the spread, over rows, of how surprising it is that just these numbers are missing.
    """

    levels: Levels
    shares: tuple[NDArray[np.float32], ...]
    surprise: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def unseen(cls, levels: Levels, n_columns: int) -> Self:
        """Return one that has seen nothing yet."""
        levels = levels or ((),) * n_columns
        return cls(levels, tuple(np.zeros(len(texts) + 1, np.float32) for texts in levels))

    def learnt_from(self, vectors: Numbers) -> Self:
        """Return one that has seen vectors (N, F), whose texts are numbers and NaN is missing."""
        shares = []
        for column, texts in zip(vectors.T, self.levels, strict=True):
            known = column[~np.isnan(column)]
            counts = np.bincount(_codes(known, len(texts)), minlength=len(texts))[: len(texts)]
            seen = np.append(counts, len(column) - len(known))
            shares.append((seen / len(column)).astype(np.float32))
        found = type(self)(self.levels, tuple(shares))
        if not len(found.holed):
            return found
        surprises = found.surprises(np.isnan(vectors)).astype(np.float32)
        center, spread = scaling_of(surprises)
        return replace(found, surprise=(center, spread or 1.0))

    @cached_property
    def numbers(self) -> NDArray[np.intp]:
        """Which columns are of numbers."""
        return np.flatnonzero([not texts for texts in self.levels])

    @cached_property
    def texts(self) -> NDArray[np.intp]:
        """Which columns are of texts."""
        return np.flatnonzero([bool(texts) for texts in self.levels])

    @cached_property
    def holed(self) -> NDArray[np.intp]:
        """Which columns of numbers have missing values."""
        return np.array([i for i in self.numbers if self.shares[i][-1] > 0], np.intp)

    @property
    def has_holes(self) -> bool:
        """Whether numbers may be missing."""
        return len(self.holed) > 0

    @property
    def is_plain(self) -> bool:
        """Whether there are numbers alone, and none is missing."""
        return not len(self.texts) and not self.has_holes

    @cached_property
    def owners(self) -> NDArray[np.intp]:
        """The column that each of the encoded values belongs to, (G,): numbers come first.

        How surprising it is what is missing belongs to none, and has the number after the last.
        """
        of_texts = [np.full(len(self.weights(i)), i) for i in self.texts]
        of_holes = [len(self.levels)] * self.has_holes
        return np.concatenate([self.numbers, of_holes, *of_texts]).astype(np.intp)

    @property
    def step(self) -> float:
        """How far out is what was never seen."""
        return constant_step(len(self.levels))

    def weights(self, column: int) -> NDArray[np.float32]:
        """Return the dummies of a column of texts: of each, of missing, and of all others."""
        shares = np.append(self.shares[column], np.float32(0))
        n_others = max(1, int((shares > 0).sum()) - 1)
        with np.errstate(divide="ignore"):
            dummies = np.arcsinh(1 / np.sqrt(shares * n_others))
        return np.where(shares > 0, dummies, self.step).astype(np.float32)

    @property
    def log_shares(self) -> NDArray[np.float64]:
        """How surprising it is that a value is there, and that it is missing, (2, holed columns).

        That is minus the logarithm of how often it was so; where it always was, that of once more.
        """
        missing = np.array([self.shares[i][-1] for i in self.holed], np.float64)
        shares = np.stack([1 - missing, missing])
        return -np.log(np.maximum(shares, _RAREST))

    def surprises(self, missing: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return how surprising it is that just these values (N, F) are missing, (N,)."""
        there, gone = self.log_shares
        return np.asarray(np.where(missing[:, self.holed], gone, there).sum(1))

    def encode(self, vectors: Numbers, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the encoded values of vectors (N, F), (N, G), whose numbers are ``scaled``."""
        missing = np.isnan(vectors)
        filled = np.where(missing, self.never, scaled).astype(np.float32)
        if self.is_plain:
            return filled
        parts = [filled[:, self.numbers]]
        if self.has_holes:
            center, spread = self.surprise
            parts.append(np.arcsinh((self.surprises(missing)[:, None] - center) / spread))
        for i in self.texts:
            weights, known = self.weights(i), ~missing[:, i]
            codes = np.full(len(vectors), len(weights) - 2)
            codes[known] = _codes(vectors[known, i], len(weights) - 2)
            parts.append((codes[:, None] == np.arange(len(weights))) * weights)
        return np.concatenate(parts, axis=1).astype(np.float32)

    @property
    def never(self) -> NDArray[np.float32]:
        """What stands in place of a number that is missing, (F,): far out where none ever was."""
        holed = np.isin(np.arange(len(self.levels)), self.holed)
        return np.where(holed, 0, self.step).astype(np.float32)

    def decode(
        self, encoded: NDArray[np.float32], numbers: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the values (F,) of encoded ones (G,); those of numbers are known, (F,)."""
        values, owners = numbers.copy(), self.owners
        for i in self.texts:
            dummies, shares = encoded[owners == i], self.shares[i]
            code = int((dummies if dummies.any() else shares).argmax())
            values[i] = np.nan if code == len(shares) - 1 else code
        return values

    def numbered(self, row: list[Any]) -> list[Any]:
        """Return a row with the numbers of its texts, that of all others for an unknown one.

        What is missing is NaN; a text in a column of numbers stays.
        """
        if len(row) != len(self.levels):
            return row
        found = [math.nan if value is None else value for value in row]
        for i in self.numbers.tolist():
            found[i] = float(found[i]) if isinstance(found[i], bool) else found[i]
        for i in self.texts.tolist():
            text, texts = as_text(found[i]), self.levels[i]
            if text is None or found[i] != found[i]:
                found[i] = math.nan
            else:
                found[i] = texts.index(text) if text in texts else len(texts)
        return found

    def called(self, column: int, value: float) -> float | str:
        """Return what a person calls a value of a column."""
        if math.isnan(value):
            return "missing"
        texts = self.levels[column]
        if not texts:
            return value
        code = int(_codes(np.array([value]), len(texts))[0])
        return texts[code] if code < len(texts) else "something else"

    def onnx(self) -> nn.Module:
        """Return `encode` as a module."""
        return _Encoding(self)

    def to_json(self) -> list[list[str]]:
        """Return the texts; none where there are numbers alone."""
        return [list(texts) for texts in self.levels] if len(self.texts) else []

    def tensor(self) -> Tensor:
        """Return the shares of all columns, one after the other, and the scale of surprise."""
        return torch.from_numpy(np.concatenate([*self.shares, np.array(self.surprise, np.float32)]))

    @classmethod
    def from_json(cls, content: Any, shares: Tensor, n_columns: int) -> Self:
        """Return what a file describes; ValueError when that contradicts itself."""
        levels: Levels = tuple(map(tuple, content)) or ((),) * n_columns
        ends = np.cumsum([len(texts) + 1 for texts in levels])
        if len(levels) != n_columns or shares.shape != (ends[-1] + 2,):
            raise ValueError(f"texts of {len(levels)} columns of {n_columns}")
        for texts in levels:
            if len(texts) > CONSTANTS.most_levels or len(set(texts)) < len(texts):
                raise ValueError(f"{len(texts)} texts in a column, or some of them twice")
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("texts that are none")
        *found, (center, spread) = np.split(shares.numpy(), ends)
        if not all(((one >= 0) & (one <= 1)).all() for one in found) or not spread > 0:
            raise ValueError("shares below 0 or above 1")
        return cls(levels, tuple(found), (float(center), float(spread)))


def _codes(values: Numbers, n_texts: int) -> NDArray[np.intp]:
    """Return the place of each value, (N,): what is no number of a text is after the last one."""
    known = (values >= 0) & (values < n_texts) & (values == np.floor(values))
    found: NDArray[np.intp] = np.where(known, values, n_texts + 1).astype(np.intp)
    return found


class _Encoding(nn.Module):
    """`Encoding.encode`."""

    never: Tensor
    numbers: Tensor
    holed: Tensor
    log_shares: Tensor

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.is_plain, self.has_holes = encoding.is_plain, encoding.has_holes
        self.surprise, self.texts = encoding.surprise, encoding.texts.tolist()
        self.register_buffer("never", torch.from_numpy(encoding.never))
        for name in ("numbers", "holed", "log_shares"):
            self.register_buffer(name, torch.from_numpy(getattr(encoding, name)))
        for i in self.texts:
            self.register_buffer(f"weights_{i}", torch.from_numpy(encoding.weights(i)))

    def forward(self, vectors: Tensor, scaled: Tensor) -> Tensor:
        """Map float32 (N, F) and (N, F) to (N, G)."""
        missing = vectors.isnan()
        filled = torch.where(missing, self.never, scaled)
        if self.is_plain:
            return filled
        parts = [filled[:, self.numbers]]
        if self.has_holes:
            there, gone = self.log_shares
            surprise = torch.where(missing[:, self.holed], gone, there).sum(1, keepdim=True)
            center, spread = self.surprise
            z = (surprise - center) / spread
            parts.append((z.sign() * (z.abs() + (z * z + 1).sqrt()).log()).float())
        for i in self.texts:
            weights: Tensor = getattr(self, f"weights_{i}")
            is_text = vectors[:, i : i + 1] == torch.arange(len(weights) - 2)
            known = torch.cat([is_text, missing[:, i : i + 1]], 1)
            others = known.any(1, keepdim=True).logical_not()
            parts.append(torch.cat([known, others], 1) * weights)
        return torch.cat(parts, 1)
