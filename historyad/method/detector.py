"""Step 3: train D_TV to tell the data from their history (section 3.3), and score with it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam

from historyad.checkpoints import Checkpoint
from historyad.config import Config
from historyad.kinds.preprocessing import Preprocessing
from historyad.method import ranks as distributed
from historyad.method.batches import Batches, to_float
from historyad.method.gan import make_adam, set_learning_rate
from historyad.method.history import History
from historyad.method.loop import OnProgress, Training
from historyad.method.losses import detector_loss, total_variation_estimate
from historyad.method.networks import Critic, initialise
from historyad.randomness import Stream, torch_generator

T = TypeVar("T")
Scores = NDArray[np.float32]

# History samples drawn at a time: fewer where they are large, which bounds the memory.
_POOL_IMAGES, _POOL_BYTES = 65_536, 2**28
_SCORE_BATCH = 256
_SCORE_GRAIN = 16  # a batch is filled up to a multiple of it; with 8, AVX-512 rounds otherwise


class Score(nn.Module, ABC):
    """What gives samples their anomaly score: D_TV alone, with companions, or at every place."""

    @property
    @abstractmethod
    def d_tv(self) -> Detector:
        """The detector of the paper."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the views that make the score, in their order."""

    @property
    def companion_sizes(self) -> dict[str, int] | None:
        """The sizes by which the companions of D_TV are built anew; None where there are none."""
        return None

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def anomaly_scores(self, samples: NDArray[Any], prepare: Preprocessing) -> Scores:
        """Score samples as a source holds them, uint8 (N, H, W, C) or float32 (N, F): (N,).

        The score of a sample depends on that sample alone.
        """
        with torch.inference_mode():
            return in_batches(self.eval(), samples, prepare, self.device)

    @abstractmethod
    def scores_and_views(
        self, samples: NDArray[Any], prepare: Preprocessing
    ) -> tuple[Scores, Scores]:
        """Return `anomaly_scores` (N,), and what each view says (views, N): 0 is typical."""

    @abstractmethod
    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put anomaly scores (N,) on a scale without an end."""


class Detector(Score):
    """D_TV: one network of the critic's architecture, or the mean of several."""

    names = ("history",)

    def __init__(self, members: Sequence[Critic]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Return the anomaly score of each sample, (B,): about -1 normal, +1 anomalous."""
        return self.scores_of_members(x).mean(0)

    def scores_of_members(self, x: Tensor) -> Tensor:
        """Return the score that each member gives each sample, (members, B)."""
        return torch.stack([member(x) for member in self.members])

    def scores_and_features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the anomaly score of each sample, (B,), and what the first member makes of it.

        That is its features after the last convolution (or, of a vector, after the first layer),
        (B, `Critic.n_features`), and its last hidden layer, (B, hidden).
        """
        first, *others = cast(Sequence[Critic], self.members)
        features, hidden, scores = first.layers_of(x)
        return torch.stack([scores, *(member(x) for member in others)]).mean(0), features, hidden

    @property
    def d_tv(self) -> Detector:
        """Itself."""
        return self

    def scores_and_views(
        self, samples: NDArray[Any], prepare: Preprocessing
    ) -> tuple[Scores, Scores]:
        """Return the anomaly scores (N,), and as the only view the same, (1, N)."""
        scores = self.anomaly_scores(samples, prepare)
        return scores, scores[None]

    def unbounded(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores, which have no end."""
        return scores


def start_detector(history: History) -> Detector:
    """Return D_TV before training: the averaged critic (eq. 14), random weights, or one of each.

    The two starts fail on different anomalies. From the averaged critic D_TV inherits what the
    critics learnt between the data and the generator's early samples; from random weights it is
    free of the regions that the critics got wrong.
    """
    config = history.config
    members = []
    if config.detector_start != "random":
        members.append(history.average_critic())
    if config.detector_start in ("random", "both"):
        member = Critic(history.shape, config.width, config.hidden)
        initialise(member, torch_generator(config.seed, Stream.WEIGHTS, 1))
        members.append(member.to(history.device))
    return Detector(members)


def train_detector(
    batches: Batches,
    history: History,
    *,
    checkpoint: Checkpoint | None = None,
    on_progress: OnProgress | None = None,
) -> Detector:
    """Train D_TV (eq. 10) on ``batches`` of normal data against samples of ``history``.

    Members share the batches and nothing else. With a ``checkpoint``, training continues where
    it was left. Raises RunError when the history has no snapshot to draw from.
    """
    config = history.config
    detector = start_detector(history)
    if config.detector_start == "untrained":
        return detector.eval()
    optimizer = make_adam(detector, config.detector_learning_rate)
    training = Training(3, config, checkpoint, {"detector": detector}, {"optimizer": optimizer})
    length = config.detector_epochs * config.epoch_images
    # Whole, as the pool needs it: a product such as 1.1 * 50,000 is rounded to a bit more.
    end = max(1, round(length))
    part = distributed.own_part(config.batch_size)
    pool = _Pool(history, end)
    while (seen := training.images_seen) < end:
        set_learning_rate(optimizer, config.detector_learning_rate * (1 - seen / length))
        real = batches.at(seen, config.batch_size, part)
        generated = pool.at(seen, config.batch_size, part)
        training.count(detector_step(detector, optimizer, real, generated, config))
        if training.is_at_save:
            estimate = training.take_figure()
            training.report(on_progress, of=config.detector_epochs, total_variation=estimate)
        training.save_in_time()
    training.save()
    return detector.eval()


def detector_step(
    detector: Detector,
    optimizer: Adam,
    real: Tensor,
    generated: Tensor,
    config: Config,
) -> Tensor:
    """Take one step on eq. 10; return the estimate of the total variation (eq. 7), in [-1, 1].

    ``real`` and ``generated`` are this rank's part of the batch.
    """
    scores = detector.scores_of_members(torch.cat([real, generated]))
    real_scores, history_scores = scores.chunk(2, dim=1)
    # The mean over members' samples is the mean of their losses: times members, their sum.
    loss = detector_loss(real_scores, history_scores, config.bound_weight) * len(scores)
    optimizer.zero_grad(set_to_none=True)
    distributed.backward(loss, detector, config.batch_size)
    optimizer.step()
    return total_variation_estimate(real_scores.detach().mean(0), history_scores.detach().mean(0))


def in_batches(
    function: Callable[[Tensor], Tensor],
    samples: NDArray[Any],
    prepare: Preprocessing,
    device: torch.device | str = "cpu",
    *,
    size: int = _SCORE_BATCH,
    grain: int = _SCORE_GRAIN,
) -> NDArray[np.float32]:
    """Return ``function`` of all samples, (N, ...), where it maps a batch to (B, ...).

    A batch has at most ``size`` samples and is filled up to a multiple of ``grain``: the kernels
    for a handful of samples round otherwise than those for many, and so the score of a sample is
    the same to the last bit alone and among others.
    """

    def part(start: int) -> NDArray[np.float32]:
        batch = prepare(samples[start : start + size])
        n_padding = -len(batch) % grain or grain * (len(batch) == 0)
        padding = [(0, n_padding)] + [(0, 0)] * (batch.ndim - 1)
        values = function(to_float(np.pad(batch, padding), device)).detach().cpu().numpy()
        return values[: len(batch)]

    starts = range(0, max(1, len(samples)), size)
    on_cpu = torch.device(device).type == "cpu"
    return np.concatenate(_side_by_side(part, starts) if on_cpu else [*map(part, starts)])


def _side_by_side(function: Callable[[int], T], arguments: Sequence[int]) -> list[T]:
    """Map ``arguments``, several at a time: many operations are too small to share all cores."""
    n_threads = torch.get_num_threads()
    n_workers = min(n_threads, len(arguments))
    if n_workers == 1:
        return [function(argument) for argument in arguments]
    # A thread has modes of its own, as it has a number of threads.
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def call(argument: int) -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return function(argument)

    start = partial(torch.set_num_threads, n_threads // n_workers)
    try:
        with ThreadPoolExecutor(n_workers, initializer=start) as pool:
            return list(pool.map(call, arguments))
    finally:
        torch.set_num_threads(n_threads)  # threads that are yet to start take the last one set


class _Pool:
    """History samples drawn many at a time; like `Batches`, a function of the position alone."""

    def __init__(self, history: History, n_samples: int) -> None:
        self._history = history
        self._n_batches = math.ceil(n_samples / history.config.batch_size)
        n_bytes = math.prod(history.shape) * (1 if len(history.shape) == 3 else 4)
        # A batch never straddles two pools.
        n_images = min(_POOL_IMAGES, _POOL_BYTES // n_bytes)
        self._batches_at_a_time = max(1, n_images // history.config.batch_size)
        self._samples: NDArray[Any] = np.empty(0)
        self._drawn = -1

    def at(self, position: int, size: int, part: slice) -> Tensor:
        """Return ``part`` of the ``size`` samples that follow the first ``position``, as floats.

        ``position`` is a multiple of the batch size, which ``size`` is.
        """
        batch = position // size
        number, place = divmod(batch, self._batches_at_a_time)
        if number != self._drawn:
            first = batch - place
            n_batches = min(self._batches_at_a_time, self._n_batches - first)
            self._samples = np.empty(0)  # never two pools at once
            self._samples = self._history.sample(n_batches * size, first * size)
            self._drawn = number
        samples = self._samples[place * size : (place + 1) * size]
        return to_float(samples[part], self._history.device)
