"""The compared methods, one file each, behind ``fit(samples)`` and ``anomaly_score(samples)``.

Samples are as a source holds them: uint8 images (N, H, W, C) or float32 vectors (N, F). Scores
are (N,), higher is more anomalous, and the score of a sample depends on that sample alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from historyad.research.peers.adgan import ADGAN
from historyad.research.peers.anogan import AnoGAN
from historyad.research.peers.early_stopped import EarlyStopped
from historyad.research.peers.egbad import EGBAD
from historyad.research.peers.fence_gan import FenceGAN
from historyad.research.peers.ganomaly import GANomaly
from historyad.research.peers.isolation_forest import IsolationForestPeer
from historyad.research.peers.mahalanobis import Mahalanobis
from historyad.research.peers.memae import MemAE
from historyad.research.peers.neighbours import Neighbours
from historyad.research.peers.one_class_svm import OneClassSVMPeer
from historyad.research.peers.one_number import OneNumber, mean_gradient, png_bytes
from historyad.research.peers.pca_residual import PCAResidual
from historyad.research.peers.pyod import PyOD
from historyad.research.peers.sums import SumOfPeers
from historyad.research.peers.vae import VAE, BernoulliVAE
from historyad.research.peers.wgan_encoder import WGANEncoder


class Peer(Protocol):
    """What the benchmark asks of a method."""

    def fit(self, samples: NDArray[Any]) -> Peer:
        """Learn from normal samples (N, ...) and return the peer itself."""

    def anomaly_score(self, samples: NDArray[Any]) -> NDArray[np.floating]:
        """Return one score per sample, (N,), higher for more anomalous ones."""


def _neighbours_and_gradient(seed: int) -> Peer:
    neighbours = Neighbours(metric="cosine", n_components=64, seed=seed)
    return SumOfPeers([neighbours, OneNumber(mean_gradient)], seed=seed)


def _ensemble(seed: int) -> Peer:
    forest = IsolationForestPeer(seed=seed)
    return SumOfPeers([PCAResidual(seed=seed), Neighbours(metric="euclidean"), forest], seed=seed)


# By name, how a peer is made from a seed.
PEERS: dict[str, Callable[[int], Peer]] = {
    "pca-residual": lambda seed: PCAResidual(seed=seed),
    "mahalanobis": lambda seed: Mahalanobis(),
    "neighbours": lambda seed: Neighbours(metric="euclidean"),
    "neighbours-pca-cosine": lambda seed: Neighbours(metric="cosine", n_components=64, seed=seed),
    "isolation-forest": lambda seed: IsolationForestPeer(seed=seed),
    "one-class-svm": lambda seed: OneClassSVMPeer(seed=seed),
    "mean-gradient": lambda seed: OneNumber(mean_gradient),
    "png-size": lambda seed: OneNumber(png_bytes),
    "gradient+neighbours": _neighbours_and_gradient,
    "pca+neighbours+forest": _ensemble,
    "vae": lambda seed: VAE(seed=seed),
    "vae-dense": lambda seed: VAE(dense=True, seed=seed),
    "vae-bernoulli": lambda seed: BernoulliVAE(seed=seed),
    "memae": lambda seed: MemAE(seed=seed),
    "pyod-autoencoder": lambda seed: PyOD("autoencoder", n_epochs=10, seed=seed),
    "pyod-vae": lambda seed: PyOD("vae", n_epochs=10, seed=seed),
    "pyod-deepsvdd": lambda seed: PyOD("deepsvdd", n_epochs=20, seed=seed),
    "pyod-alad": lambda seed: PyOD("alad", n_epochs=4, seed=seed),
    "anogan": lambda seed: AnoGAN(seed=seed),
    "egbad": lambda seed: EGBAD(seed=seed),
    "egbad-fm": lambda seed: EGBAD(feature_matching=True, seed=seed),
    "adgan": lambda seed: ADGAN(seed=seed),
    "ganomaly": lambda seed: GANomaly(seed=seed),
    "fence-gan": lambda seed: FenceGAN(seed=seed),
    "wgan-encoder": lambda seed: WGANEncoder(seed=seed),
    "early-stopped": lambda seed: EarlyStopped(seed=seed),
}
