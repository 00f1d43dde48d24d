"""Step 3: train D_TV to tell the data from their history (section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam

from historyad import ranks
from historyad.config import Config
from historyad.method.batches import Batches
from historyad.method.gan import make_adam, set_learning_rate
from historyad.method.history import History
from historyad.method.loop import Loop, Session
from historyad.method.losses import detector_loss, total_variation_estimate
from historyad.method.networks import Critic, Networks, initialise
from historyad.randomness import Stream, torch_generator

# History samples drawn at a time: fewer where they are large, which bounds the memory.
_POOL_IMAGES, _POOL_BYTES = 65_536, 2**28
_SCALE_BATCHES = 16  # of data and of the history, that put the averaged critic on its scale
_SMALLEST_DEVIATION = 1e-6
_ALONE = Session()


def start_detector(history: History) -> Critic:
    """Return D_TV before training: the averaged critic (eq. 14), or random weights.

    The two starts fail on different anomalies. From the averaged critic D_TV inherits what the
    critics learnt between the data and the generator's early samples; from random weights it is
    free of the regions that the critics got wrong.
    """
    if history.config.detector_start != "random":
        return history.average_critic()
    return random_detector(history.networks, history.config).to(history.device)


def random_detector(networks: Networks, config: Config) -> Critic:
    """Return a D_TV that knows nothing: its weights are drawn from the seed."""
    detector = networks.critic()
    initialise(detector, torch_generator(config.seed, Stream.WEIGHTS, 1))
    return detector


def train_detector(batches: Batches, history: History, session: Session = _ALONE) -> Critic:
    """Step 3: train D_TV (eq. 10) on ``batches`` of normal data against samples of ``history``.

    Where the ``session`` keeps checkpoints, training continues where it was left. Raises RunError
    when the history has no snapshot to draw from.
    """
    config = history.config
    detector = start_detector(history)
    if config.detector_start == "untrained":
        return detector.eval()
    betas = config.detector_momentum, config.detector_square_momentum
    optimizer = make_adam(detector, config.detector_learning_rate, betas)
    length = config.detector_epochs * config.epoch_images
    # Whole, as the pool needs it: a product such as 1.1 * 50,000 is rounded to a bit more.
    end = max(1, round(length))
    pool = Pool(history, end)
    if config.detector_start == "standardised":
        n_batches = min(_SCALE_BATCHES, math.ceil(end / config.batch_size))
        put_on_scale(detector, batches, pool, [i * config.batch_size for i in range(n_batches)])
    loop = Loop(3, config, session, {"detector": detector}, {"optimizer": optimizer})
    part = ranks.own_part(config.batch_size)
    for seen in loop.until(end):
        set_learning_rate(optimizer, config.detector_learning_rate * (1 - seen / length))
        real = batches.at(seen, config.batch_size, part)
        generated = pool.at(seen, config.batch_size, part)
        estimate = loop.count(detector_step(detector, optimizer, real, generated, config))
        if estimate is not None:  # a save interval has ended
            loop.report(of=config.detector_epochs, total_variation=estimate)
    return detector.eval()


@torch.no_grad()
def put_on_scale(detector: Critic, batches: Batches, pool: Pool, positions: Sequence[int]) -> None:
    """Give the detector's output mean 0 and deviation 1 on data and history samples together.

    A critic of eq. 1 is known but for a constant, and its unit is that of distances: on digits, the
    average of eq. 14 says about -41 of data and -23 of their history. D_TV has its values in
    [-1, 1]. The bound (eq. 10) has a gradient of lambda times the distance to it: some 400 there,
    beside the 1 of what tells data and history apart. Adam's mean of squares remembers the first
    steps, and all but stops those that follow.
    """
    size, everyone = pool.batch_size, slice(None)
    both = (batches, pool)
    found = [detector(of.at(start, size, everyone)) for start in positions for of in both]
    outputs = torch.cat(found).double()
    mean, deviation = outputs.mean(), outputs.std().clamp(min=_SMALLEST_DEVIATION)
    last = detector.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.div_(deviation)
    last.bias.sub_(mean).div_(deviation)


def detector_step(
    detector: Critic, optimizer: Adam, real: Tensor, generated: Tensor, config: Config
) -> Tensor:
    """Take one step on eq. 10; return the estimate of the total variation (eq. 7), in [-1, 1].

    ``real`` and ``generated`` are this rank's part of the batch.
    """
    real_scores, history_scores = detector(torch.cat([real, generated])).chunk(2)
    loss = detector_loss(real_scores, history_scores, config.bound_weight)
    optimizer.zero_grad(set_to_none=True)
    ranks.backward(loss, detector, config.batch_size)
    optimizer.step()
    return total_variation_estimate(real_scores.detach(), history_scores.detach())


class Pool:
    """History samples drawn many at a time; like `Batches`, a function of the position alone.

    ``n_samples`` are drawn in all, and at ``most`` so many at a time.
    """

    def __init__(self, history: History, n_samples: int, most: int = _POOL_IMAGES) -> None:
        self._history = history
        self.batch_size = history.config.batch_size
        self._n_batches = math.ceil(n_samples / self.batch_size)
        # A batch never straddles two pools.
        n_images = min(most, _POOL_BYTES // history.networks.empty(1).nbytes)
        self._batches_at_a_time = max(1, n_images // self.batch_size)
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
        return self._history.networks.floats(samples[part], self._history.device)
