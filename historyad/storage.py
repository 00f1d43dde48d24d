"""The run directory: what is written there is whole or absent, and never code.

::

    RUN/config.json          resolved config, source, versions, command
    RUN/log.jsonl            one record per save interval
    RUN/checkpoint/          resumable state of the step under way
    RUN/history/             one file per snapshot + manifest.json
    RUN/detector.safetensors, RUN/detector.json     the model
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from historyad.errors import RunError
from historyad.files import (
    cannot_write,
    load_json,
    load_tensors,
    missing,
    save_json,
    save_rows,
    save_tensors,
)

# What a run writes; a process that was killed may leave temporary files of these names.
_OURS = ("config.json", "log.jsonl", "detector.json", "detector.safetensors")
_OUR_FOLDERS = ("checkpoint", "history")
# The rest of what describes a source, such as where it lies, may change while a run is interrupted.
_IDENTIFIES_DATA = ("fingerprint", "n", "n_train")


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


class RunDirectory:
    """The files of one run, held by one process at a time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.log = self.path / "log.jsonl"
        self.history = self.path / "history"
        self.gan_checkpoint = Checkpoint(self.path / "checkpoint" / "gan.safetensors")
        self.detector_checkpoint = Checkpoint(self.path / "checkpoint" / "detector.safetensors")

    @property
    def is_finished(self) -> bool:
        """Whether the model is there: its JSON is the last file that a fit writes."""
        return (self.path / "detector.json").exists()

    def claim(self, record: Mapping[str, Any]) -> None:
        """Start this run, or find that it is the one that ``record`` describes.

        ``record["config"]``, and what identifies the data in ``record["source"]``, must equal what
        the directory holds: RunError names the first difference, so that a run is never continued
        with other settings or data.
        """
        if not self.config.exists():
            save_json(self.config, record)
            return
        found = load_json(self.config)
        for part in ("config", "source"):
            old, new = found.get(part) if isinstance(found, dict) else None, record[part]
            if not isinstance(old, dict):
                raise RunError(f"{self.config} was altered: restore it, or choose another --out")
            for key in _IDENTIFIES_DATA if part == "source" else sorted({*old, *new}):
                if old.get(key) != new.get(key):
                    raise RunError(
                        f"{self.path} already holds a run with {key} = {old.get(key)!r}, not "
                        f"{new.get(key)!r}: choose another --out, or delete {self.path}"
                    )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory; RunError when another process does. A dead process holds nothing.

        A directory of something else is refused, before anything is written there.
        """
        if self.path.is_dir() and not self.config.exists():
            ours = {"lock", "config.json", *(file.name for file in self._temporary())}
            if not ours.issuperset(file.name for file in self.path.iterdir()):
                raise RunError(f"{self.path} holds other files and no run: choose another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with self._hold():
            yield

    @contextlib.contextmanager
    def lock_finished(self) -> Iterator[None]:
        """Hold the folder of a model, which need not be that of its run, to change it.

        RunError when there is no model, or another process holds the folder.
        """
        if not self.is_finished:
            raise missing(self.path / "detector.json")
        with self._hold():
            yield

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        try:
            file = (self.path / "lock").open("w")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"another process is writing to {self.path}: wait for it") from None
            for left in self._temporary():
                left.unlink(missing_ok=True)
            yield

    def _temporary(self) -> list[Path]:
        """Return the temporary files of a run: of none that writes, when the directory is held."""
        patterns = [
            *(f"{name}.*tmp" for name in _OURS),
            *(f"{name}/*.tmp" for name in _OUR_FOLDERS),
        ]
        return [file for pattern in patterns for file in self.path.glob(pattern)]

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Add one line to the log."""
        try:
            with self.log.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise cannot_write(self.log, error) from error

    def read_log(self) -> list[dict[str, Any]]:
        """Return the log's records; a last line that a crash cut short is left out."""
        if not self.log.exists():
            return []
        records = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
        return records

    def mend_log(self) -> None:
        """Drop a last line that a crash cut short, so that the next one starts on its own."""
        if self.log.exists() and not self.log.read_bytes().endswith(b"\n"):
            save_rows(self.log, self.read_log())
