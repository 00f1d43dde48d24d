"""PyOD's deep detectors: what one installs in a line.

Its defaults are for tables of a few columns, and stay as they are for vectors. Images get hidden
layers of hundreds of units, codes of tens and larger batches. All else is PyOD's choice, except
where a score would depend on chance or on the other samples: its VAE draws a new latent for every
score, and its ALAD scores with dropout.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import random
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from historyad.errors import InputError
from historyad.randomness import Stream, numpy_generator, torch_generator
from historyad.research.peers.features import Features

Detector = Literal["autoencoder", "vae", "deepsvdd", "alad"]

_BATCH, _BATCH_OF_VECTORS = 128, 32  # the second is PyOD's
_SCORE_BATCH = 1024


class PyOD:
    """One of PyOD's detectors, on the CPU.

    Of images, ``n_epochs`` are passes over the data, and more where it takes more to see
    ``n_images``; ``hidden`` are the units of the encoder's layers, which the decoder mirrors, and
    ``latent_dim`` those of the code. Of vectors, PyOD decides.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        n_epochs: int,
        n_images: int = 200_000,
        hidden: tuple[int, ...] = (512, 256),
        latent_dim: int = 32,
        seed: int = 0,
    ) -> None:
        self.detector = detector
        self.n_epochs = n_epochs
        self.n_images = n_images
        self.hidden = hidden
        self.latent_dim = latent_dim
        self.seed = seed

    def fit(self, samples: NDArray[Any]) -> Self:
        """Train the detector; raises InputError, saying how to install it, without PyOD."""
        self._features = Features().fit(samples)
        train = {
            "autoencoder": self._fit_autoencoder,
            "vae": self._fit_vae,
            "deepsvdd": self._fit_deepsvdd,
            "alad": self._fit_alad,
        }[self.detector]
        self._wide = samples.ndim > 2
        with global_draws_from(self.seed):
            self._pyod, networks = train(self._features(samples))
        self._networks = nn.ModuleList(networks).eval()
        return self

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return PyOD's score of each sample, (N,)."""
        scores = [np.empty(0)]
        with global_draws_from(self.seed), torch.inference_mode():
            for start in range(0, len(samples), _SCORE_BATCH):
                x = self._features(samples[start : start + _SCORE_BATCH])
                scores.append(self._pyod.decision_function(x))
        return np.concatenate(scores)

    def _fit_autoencoder(self, x: NDArray[np.float32]) -> tuple[Any, list[nn.Module]]:
        layers = self._if_wide(
            epoch_num=self._passes(len(x)), hidden_neuron_list=[*self.hidden, self.latent_dim]
        )
        pyod = _detector("auto_encoder", "AutoEncoder")(**layers, **self._shared(len(x)))
        pyod.fit(x)
        return pyod, [pyod.model]

    def _fit_vae(self, x: NDArray[np.float32]) -> tuple[Any, list[nn.Module]]:
        # Its default capacity of 0 leaves the Kullback-Leibler term out of the loss.
        layers = self._if_wide(
            epoch_num=self._passes(len(x)),
            encoder_neuron_list=[*self.hidden],
            decoder_neuron_list=[*reversed(self.hidden)],
            latent_dim=self.latent_dim,
        )
        pyod = _detector("vae", "VAE")(**layers, **self._shared(len(x)))
        pyod.fit(x)
        pyod.model.reparameterize = lambda mean, log_variance: mean
        return pyod, [pyod.model]

    def _fit_deepsvdd(self, x: NDArray[np.float32]) -> tuple[Any, list[nn.Module]]:
        layers = self._if_wide(
            epochs=self._passes(len(x)), hidden_neurons=[*self.hidden, self.latent_dim]
        )
        pyod = _detector("deep_svdd", "DeepSVDD")(
            n_features=x.shape[1],
            **layers,
            batch_size=self._batch(len(x)),
            preprocessing=False,
            verbose=0,
        )
        pyod.fit(x)
        return pyod, [pyod.model_]

    def _fit_alad(self, x: NDArray[np.float32]) -> tuple[Any, list[nn.Module]]:
        encoder, decoder = [*self.hidden], [*reversed(self.hidden)]
        layers = self._if_wide(
            enc_layers=encoder,
            dec_layers=decoder,
            disc_xx_layers=encoder,
            disc_zz_layers=encoder,
            disc_xz_layers=encoder,
            latent_dim=self.latent_dim,
            epochs=0,
        )
        pyod = _detector("alad", "ALAD")(**layers, device=torch.device("cpu"))
        if self._wide:
            self._train_alad(pyod, x)
        else:
            pyod.fit(x)
        return pyod, [pyod.enc, pyod.dec, pyod.disc_xx, pyod.disc_zz, pyod.disc_xz]

    def _train_alad(self, pyod: Any, x: NDArray[np.float32]) -> None:
        """Train for as many passes over the data as are due.

        One of its own epochs is a single batch, for which it shuffles all data: here it only builds
        its networks, and gets its batches and its noise from this loop.
        """
        pyod.fit(x[:_BATCH])
        noise = numpy_generator(self.seed, Stream.PEER)
        for _ in range(self._passes(len(x))):
            order = noise.permutation(len(x))
            for rows in np.array_split(order, max(1, len(x) // _BATCH)):
                latents = noise.normal(size=(len(rows), self.latent_dim))
                pyod.train_step((x[rows] + noise.normal(0, 0.1, x[rows].shape), latents))

    def _if_wide(self, **settings: Any) -> dict[str, Any]:
        """Return what replaces PyOD's own settings."""
        return settings if self._wide else {}

    def _passes(self, n_samples: int) -> int:
        """Return how many passes over so many images are due: a few over few are no training."""
        return max(self.n_epochs, math.ceil(self.n_images / n_samples))

    def _batch(self, n_samples: int) -> int:
        """Return the size of a batch; PyOD does not train on fewer samples than one has."""
        return min(_BATCH if self._wide else _BATCH_OF_VECTORS, n_samples)

    def _shared(self, n_samples: int) -> dict[str, Any]:
        return {
            "batch_size": self._batch(n_samples),
            # Divided by their deviation, pixels that hardly vary would outweigh all others; the
            # columns of vectors are divided already.
            "preprocessing": False,
            "verbose": 0,
            "device": torch.device("cpu"),
            "random_state": self.seed % 2**32,
        }


@contextlib.contextmanager
def global_draws_from(seed: int) -> Iterator[None]:
    """Let what draws from the global generators draw from ``seed``; restore them afterwards."""
    before = random.getstate(), np.random.get_state(), os.environ.get("PYTHONHASHSEED")
    random.setstate(random.Random(seed).getstate())
    np.random.set_state(np.random.RandomState(seed % 2**32).get_state())
    try:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(torch_generator(seed, Stream.PEER).get_state())
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if before[2] is None:
            os.environ.pop("PYTHONHASHSEED", None)
        else:
            os.environ["PYTHONHASHSEED"] = before[2]


def _detector(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"pyod.models.{module}"), name)
    except ImportError as error:
        raise InputError(
            f"PyOD's {name} needs {error.name}: pip install historyad[peers]"
        ) from error
