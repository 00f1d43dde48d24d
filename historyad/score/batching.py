"""A function of batches over any number of samples: several at a time, the same to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad.progress import each

A = TypeVar("A")
T = TypeVar("T")

_BATCH = 256
_SMALL = 32  # a batch of fewer costs more than half as much as one of twice as many
_GRAIN = 16  # a batch is filled up to a multiple of it; with 8, AVX-512 rounds otherwise


class Preparing(Protocol):
    """What a kind of input does before a network sees its samples."""

    def prepare(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return samples at rest, each treated alone."""

    def floats(self, prepared: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
        """Return what was prepared as networks see it."""


def in_batches(
    function: Callable[..., Tensor],
    samples: NDArray[Any],
    kind: Preparing,
    device: torch.device | str = "cpu",
    *,
    size: int = _BATCH,
    grain: int = _GRAIN,
    tells: bool = False,
) -> NDArray[np.float32]:
    """Return ``function`` of all samples, (N, ...), where it maps a batch to (B, ...).

    A batch has at most ``size`` samples and is filled up to a multiple of ``grain``: the kernels
    for a handful of samples round otherwise than those for many, and so the score of a sample is
    the same to the last bit alone and among others. With ``tells``, the function is told how many
    come first that are wanted, and may return anything for the others.
    """

    def part(start: int) -> NDArray[np.float32]:
        batch = kind.prepare(samples[start : start + size])
        n_padding = -len(batch) % grain or grain * (len(batch) == 0)
        padding = [(0, n_padding)] + [(0, 0)] * (batch.ndim - 1)
        filled = kind.floats(np.pad(batch, padding), device)
        values = function(filled, len(batch) or 1) if tells else function(filled)
        return values.detach().cpu().numpy()[: len(batch)]

    on_cpu = torch.device(device).type == "cpu"
    if on_cpu:  # a batch for each core
        share = max(_SMALL, math.ceil(len(samples) / torch.get_num_threads()))
        size = min(size, math.ceil(share / grain) * grain)
    starts = range(0, max(1, len(samples)), size)
    return np.concatenate(side_by_side(part, starts) if on_cpu else [*map(part, each(starts))])


def of_parts(function: Callable[..., T], *rows: Tensor, size: int) -> list[T]:
    """Return ``function`` of ``size`` rows of tensors after the other; several on a processor."""
    parts = [*zip(*(torch.split(tensor, size) for tensor in rows), strict=True)]
    if rows[0].device.type == "cpu":
        return side_by_side(lambda part: function(*part), parts)
    return [function(*part) for part in each(parts)]


def side_by_side(function: Callable[[A], T], arguments: Sequence[A]) -> list[T]:
    """Map ``arguments``, several at a time: many operations are too small to share all cores."""
    n_threads = torch.get_num_threads()
    n_workers = min(n_threads, len(arguments))
    if n_workers <= 1:
        return [function(argument) for argument in each(arguments)]
    # A thread has modes of its own, as it has a number of threads.
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def call(argument: A) -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return function(argument)

    start = partial(torch.set_num_threads, n_threads // n_workers)
    try:
        with ThreadPoolExecutor(n_workers, initializer=start) as pool:
            return list(each(pool.map(call, arguments), len(arguments)))
    finally:
        torch.set_num_threads(n_threads)  # threads that are yet to start take the last one set
