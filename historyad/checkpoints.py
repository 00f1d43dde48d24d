"""The resumable state of a training: networks, moments of their optimisers, and where it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from historyad.errors import RunError
from historyad.files import load_tensors, save_tensors


class Checkpoint:
    """The resumable state of one training step, in one file that is replaced as a whole.

    ``networks`` and ``optimizers`` are the objects to save or to restore in place, by name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(
        self,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        state: Mapping[str, Any],
    ) -> None:
        """Replace the checkpoint; ``state`` is what JSON can hold."""
        tensors = {
            f"{name}.{key}": tensor
            for name, network in networks.items()
            for key, tensor in network.state_dict().items()
        }
        for name, optimizer in optimizers.items():
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{key}": value for key, value in moments.items()}
        note = {"state": dict(state), "sha256": _digest(tensors, state)}
        save_tensors(self.path, tensors, json.dumps(note))

    def restore(
        self, networks: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]
    ) -> dict[str, Any] | None:
        """Load what was saved last and return its state, or return None when nothing was.

        Raises RunError when the file is damaged or holds the state of other networks.
        """
        if not self.path.exists():
            return None
        tensors, note = load_tensors(self.path)
        try:
            found = json.loads(note)
            state: dict[str, Any] = found["state"]
            if found["sha256"] != _digest(tensors, state):
                raise ValueError("its checksum differs")
            for name, network in networks.items():
                network.load_state_dict(_under(tensors, name))
            for name, optimizer in optimizers.items():
                _restore_moments(optimizer, _under(tensors, name))
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.path} is damaged ({error}): delete it, and the same command starts this "
                "step again"
            ) from error
        return state


def _digest(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    """Return a checksum of what a checkpoint holds, which has no manifest to hold the file's."""
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _restore_moments(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the moments, named PARAMETER.MOMENT.

    Each gets the memory layout of its parameter, in which the optimiser made it: in another one,
    the next step would differ from that of a run that was not interrupted.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    content = optimizer.state_dict()
    content["state"] = {}
    for key, value in tensors.items():
        index, moment = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:  # all but the count of steps
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)  # noqa: PLW2901
        content["state"].setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict(content)


def _under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``name`` and a dot, without that start."""
    prefix = name + "."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
