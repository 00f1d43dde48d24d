"""Step 2: the recorded history of the GAN and the distribution P_Ghist it forms (section 3.2).

A snapshot is a frozen generator and critic; its time t is counted in epochs. P_Ghist mixes the
generators with the weights of eq. 13, and the critics' weighted average (eq. 14) starts D_TV.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from historyad import ranks
from historyad.config import Config
from historyad.constants import CONSTANTS
from historyad.errors import ConfigError, RunError
from historyad.files import load_json, load_tensors, save_json, save_tensors
from historyad.method.networks import Critic, Generator, Networks
from historyad.randomness import Stream, numpy_generator, torch_generator

_VERSION = 2
_CHUNK = 1024  # samples that one generator makes at a time: bounds the memory


@dataclass(frozen=True)
class Snapshot:
    """One recorded state, by the number of images its critic had seen."""

    images_seen: int
    file: str
    sha256: str


def recorded_interval(config: Config) -> tuple[float, float]:
    """Return the times, in epochs, between which snapshots are recorded.

    They are recorded from alpha on, until the mass that eq. 13 still has to give,
    (e^(-beta t) - e^(-beta n)) / (e^(-beta alpha) - e^(-beta n)), falls below ``mass_tolerance``.
    """
    start, end, rate = config.skip_epochs, config.n_epochs, config.decay
    total = 1 - math.exp(-rate * (end - start))
    if config.mass_tolerance == 0 or total == 0:  # or all snapshots weigh alike
        return start, end
    left = math.exp(-rate * (end - start)) + config.mass_tolerance * total
    return start, min(end, start - math.log(left) / rate)


def is_save(images_seen: int, config: Config) -> bool:
    """Whether the batch that ended at ``images_seen`` is one after which a snapshot is due."""
    every = config.epoch_images / config.saves_per_epoch
    return images_seen // every != (images_seen - config.batch_size) // every


def resolve(config: Config, n_train: int) -> Config:
    """Return ``config`` with the length of an epoch, for ``n_train`` training samples.

    Raises ConfigError unless step 1, as it is set, records a snapshot at all.
    """
    length = config.epoch_images or max(n_train, CONSTANTS.smallest_epoch)
    config = replace(config, epoch_images=length)
    start, end = recorded_interval(config)
    if _last_save(config, end) / config.epoch_images < start:
        raise ConfigError(
            f"saves_per_epoch = {config.saves_per_epoch} saves no snapshot from {start:g} to "
            f"{end:g} epochs, where the history is recorded: raise saves_per_epoch, or lower "
            "skip_epochs or mass_tolerance"
        )
    return config


def _last_save(config: Config, end: float) -> int:
    """Return the images seen at the last save of step 1; -1 when there is none."""
    batch, every = config.batch_size, config.epoch_images / config.saves_per_epoch
    last = batch * math.ceil(end * config.epoch_images / batch)
    save = batch * math.ceil(last // every * every / batch)
    # That quotient may be rounded past a whole number.
    near = (n for n in (save + batch, save, save - batch) if batch <= n <= last)
    return next((n for n in near if is_save(n, config)), -1)


def history_weights(times: NDArray[np.float64], config: Config) -> NDArray[np.float64]:
    """Eq. 13: c 1_[alpha, n_epochs] e^(-beta t) at the snapshots' ``times`` (epochs), summing to 1.

    Raises RunError when no snapshot lies in the interval.
    """
    t = times
    inside = (t >= config.skip_epochs - 1e-9) & (t <= config.n_epochs + 1e-9)
    if not inside.any():
        raise RunError(
            f"the history has no snapshot at or after skip_epochs = {config.skip_epochs:g}: "
            "lower skip_epochs or train longer"
        )
    weights = np.where(inside, np.exp(-config.decay * (t - t[inside].min())), 0.0)
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


def effective_snapshots(weights: NDArray[np.float64]) -> float:
    """Return 1 / sum(w^2): how many equally weighted snapshots would be as diverse."""
    return float(1 / np.square(weights).sum())


class History:
    """The snapshots in a folder, one file each; none is held in memory.

    ``networks`` are those of a snapshot; ``config.epoch_images`` must be resolved (not 0), since
    it turns images seen into epochs.
    """

    def __init__(
        self, path: Path, config: Config, networks: Networks, device: torch.device | str = "cpu"
    ) -> None:
        self.path = path
        self.config = config
        self.networks = networks
        self.device = device
        self.snapshots: list[Snapshot] = []
        self.reload()

    def __len__(self) -> int:
        return len(self.snapshots)

    @property
    def times(self) -> NDArray[np.float64]:
        """Time t of each snapshot, in epochs."""
        seen = np.array([snapshot.images_seen for snapshot in self.snapshots], np.float64)
        # The last batch may overshoot the end.
        return np.minimum(seen / self.config.epoch_images, self.config.n_epochs)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each snapshot in P_Ghist (eq. 13)."""
        return history_weights(self.times, self.config)

    def reload(self) -> None:
        """Read anew which snapshots there are; rank 0 alone knows of those recorded since."""
        manifest = self.path / "manifest.json"
        self.snapshots = _read_manifest(manifest) if manifest.exists() else []

    def record(self, images_seen: int, generator: Generator, critic: Critic) -> None:
        """Append a snapshot, its weights in half precision, its batch-norm statistics in full.

        Of several processes, rank 0 does. Raises RunError for weights that are not finite there.
        """
        if not ranks.is_main():
            return
        file = f"{images_seen:012d}.safetensors"
        tensors = {
            f"{role}.{name}": self.compact(name, tensor)
            for role, network in (("generator", generator), ("critic", critic))
            for name, tensor in network.state_dict().items()
        }
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                epoch = images_seen / self.config.epoch_images
                raise RunError(
                    f"step 1 diverged at epoch {epoch:.4g} ({name} is beyond half precision, in "
                    "which snapshots are stored): lower learning_rate, and fit in a new --out"
                )
        sha256 = save_tensors(self.path / file, tensors)
        self.snapshots.append(Snapshot(images_seen, file, sha256))
        self._write_manifest()

    @staticmethod
    def compact(name: str, tensor: Tensor) -> Tensor:
        """Return a tensor of a network as a snapshot keeps it."""
        keep = not tensor.is_floating_point() or name.endswith(("running_mean", "running_var"))
        return tensor if keep else tensor.half()

    def rewind(self, images_seen: int) -> None:
        """Drop the snapshots after ``images_seen``: training, resumed there, records them anew."""
        kept = [s for s in self.snapshots if s.images_seen <= images_seen]
        if kept != self.snapshots and ranks.is_main():
            self.snapshots = kept
            self._write_manifest()

    def thin(self, every: int) -> History:
        """Return this history with every ``every``-th snapshot, as if saved so many times less."""
        thinned = History(self.path, self.config, self.networks, self.device)
        thinned.snapshots = self.snapshots[::every]
        return thinned

    def load_generator(self, index: int) -> Generator:
        """Return the generator of a snapshot, in evaluation mode.

        Evaluation mode uses the batch-norm statistics recorded while it trained: with those of
        the batch, a sample would depend on its neighbours and a wider latent would be normalised
        away.
        """
        generator = self.networks.generator()
        generator.load_state_dict(self._load(index, "generator"))
        return generator.eval().to(self.device)

    def load_critic(self, index: int) -> Critic:
        """Return the critic of a snapshot."""
        critic = self.networks.critic()
        critic.load_state_dict(self._load(index, "critic"))
        return critic.eval().to(self.device)

    def average_critic(self) -> Critic:
        """Eq. 14: the critic whose weights are the average of the snapshots' critics'."""
        average: dict[str, Tensor] = {}
        for index, weight in enumerate(self.weights):
            if weight == 0:
                continue
            for name, tensor in self._load(index, "critic").items():
                term = tensor.double() * float(weight)
                average[name] = average[name] + term if name in average else term
        critic = self.networks.critic()
        critic.load_state_dict({name: tensor.float() for name, tensor in average.items()})
        return critic.to(self.device)

    @torch.no_grad()
    def sample(self, size: int, position: int = 0) -> NDArray[Any]:
        """Draw ``size`` samples of P_Ghist, at rest like real ones: uint8 images or vectors.

        The number of samples of each snapshot is multinomial (eq. 13), so that every generator
        runs once, over a large batch. A share ``wide_share`` of the latents comes from the wider
        P_Z' (experimental case 2). The draw is a function of the seed and ``position``. Several
        processes must all call it: each runs some of the generators, and all get all samples.
        """
        random = numpy_generator(self.config.seed, Stream.HISTORY, position)
        counts = random.multinomial(size, self.weights)
        places = np.split(random.permutation(size), np.cumsum(counts)[:-1])
        pool = self.networks.empty(size)
        for index in np.flatnonzero(counts)[ranks.rank() :: ranks.world_size()]:
            generator = self.load_generator(int(index))
            latents = self._latents(int(counts[index]), position, int(index))
            for z, rows in zip(
                torch.split(latents, _CHUNK), _split(places[index], _CHUNK), strict=True
            ):
                pool[rows] = self.networks.at_rest(generator(z))
        # Each sample is in one rank's pool, and zero in those of the others.
        ranks.add_up(torch.from_numpy(pool))
        return pool

    def _latents(self, size: int, position: int, index: int) -> Tensor:
        random = torch_generator(self.config.seed, Stream.HISTORY, position, index + 1)
        latents = torch.randn(size, self.config.latent_dim, generator=random)
        wide = torch.rand(size, 1, generator=random) < self.config.wide_share
        return torch.where(wide, latents * self.config.wide_latent, latents).to(self.device)

    def _load(self, index: int, role: str) -> dict[str, Tensor]:
        snapshot = self.snapshots[index]
        tensors, _ = load_tensors(self.path / snapshot.file, snapshot.sha256)
        prefix = role + "."
        return {
            name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }

    def _write_manifest(self) -> None:
        snapshots = [asdict(snapshot) for snapshot in self.snapshots]
        save_json(self.path / "manifest.json", {"version": _VERSION, "snapshots": snapshots})


def _split(rows: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _read_manifest(path: Path) -> list[Snapshot]:
    manifest: Any = load_json(path)
    try:
        if manifest["version"] != _VERSION:
            raise RunError(
                f"{path} has version {manifest['version']}, this program reads {_VERSION}"
            )
        return [Snapshot(**entry) for entry in manifest["snapshots"]]
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}): delete the run and fit again") from error
