"""The run directory: what is written there is whole or absent, and never code.

::

    RUN/config.json          resolved config, source, versions, command
    RUN/log.jsonl            one record per save interval
    RUN/checkpoint/          resumable state of the step under way
    RUN/history/             one file per snapshot + manifest.json
    RUN/suspects.csv         what was set aside as suspicious, if anything
    RUN/detector.safetensors, RUN/detector.json     the model
    RUN/card.md              what it learned from, promises, sees, and does not do
    RUN/examples.safetensors some normal samples, to be shown beside others
    RUN/unfinished           stands beside a first model as long as training may replace it
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from historyad import progress, ranks
from historyad.config import Config, as_dict
from historyad.environment import versions
from historyad.errors import RunError
from historyad.files import (
    cannot_write,
    load_json,
    missing,
    read_file,
    save_json,
    save_rows,
    write_atomic,
)
from historyad.method.loop import CHECKPOINT_SECONDS, SHARED_FOLDER, OnProgress, Session
from historyad.model.suspects import Suspect
from historyad.names import as_cell

# What a run writes; a process that was killed may leave temporary files of these names.
_OURS = (
    *("config.json", "log.jsonl", "suspects.csv", "card.md", "unfinished"),
    *("detector.json", "detector.safetensors", "examples.safetensors"),
)
_OUR_FOLDERS = ("checkpoint", "history")
# The rest of what describes a source, such as where it lies, may change while a run is interrupted.
_IDENTIFIES_DATA = ("fingerprint", "n", "n_train")


class RunDirectory:
    """The files of one run, held by one process at a time.

    An interruption costs what was done since the last checkpoint, ``checkpoint_seconds`` at most.
    """

    def __init__(
        self, path: str | os.PathLike[str], checkpoint_seconds: float = CHECKPOINT_SECONDS
    ) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.log = self.path / "log.jsonl"
        self.suspects = self.path / "suspects.csv"
        self.history = self.path / "history"
        self.checkpoints = self.path / "checkpoint"
        self.unfinished = self.path / "unfinished"
        self.checkpoint_seconds = checkpoint_seconds

    @property
    def has_model(self) -> bool:
        """Whether a model is there: its JSON is the last of its files that is written."""
        return (self.path / "detector.json").exists()

    @property
    def is_finished(self) -> bool:
        """Whether the model is there that no training is to replace."""
        return self.has_model and not self.unfinished.exists()

    def begin_training(self) -> None:
        """Mark the model that is there, or is written next, as one that training may replace."""
        write_atomic(self.unfinished, b"")

    def end_training(self) -> None:
        """Mark the model that is there as the last one."""
        self.unfinished.unlink(missing_ok=True)

    def claim(
        self,
        config: Config,
        source: Mapping[str, Any],
        command: str = "",
        suspects: Sequence[Suspect] = (),
    ) -> None:
        """Start this run, or find that it is the one of this ``config`` and ``source``.

        The config, and what identifies the data in what describes the ``source``, must equal what
        the directory holds: RunError names the first difference, so that a run is never continued
        with other settings or data. So it is where several processes do not agree on what the
        directory holds. Rank 0 writes, and ``suspects``, where something was set aside.
        """
        if ranks.is_main():
            record = {"config": as_dict(config), "source": dict(source)}
            self._claim({**record, "versions": versions(), "command": command}, suspects)
        ranks.barrier()
        seen = load_json(self.config) if self.config.exists() else None
        ranks.agree({"run": ranks.fingerprint([seen, self.is_finished])}, SHARED_FOLDER)

    def _claim(self, record: Mapping[str, Any], suspects: Sequence[Suspect]) -> None:
        if self.config.exists():
            self._refuse_another(record)
        if suspects:
            self._save_suspects(suspects)
        if not self.config.exists():
            save_json(self.config, record)

    def _refuse_another(self, record: Mapping[str, Any]) -> None:
        found = load_json(self.config)
        for part in ("config", "source"):
            old, new = found.get(part) if isinstance(found, dict) else None, record[part]
            if not isinstance(old, dict):
                raise RunError(f"{self.config} was altered: restore it, or choose another --out")
            for key in _IDENTIFIES_DATA if part == "source" else sorted({*old, *new}):
                if old.get(key) != new.get(key):
                    # The name of a source says more than a checksum of it.
                    told = "description" if key == "fingerprint" else key
                    shown = "other samples, " * (old.get(told) == new.get(told))
                    raise RunError(
                        f"{self.path} already holds a run with {told} = {old.get(told)!r}, not "
                        f"{shown}{new.get(told)!r}: choose another --out, or delete {self.path}"
                    )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory; RunError when another process does. A dead process holds nothing.

        Of several processes of one fit, rank 0 does. A directory of something else is refused,
        before anything is written there.
        """
        if not ranks.is_main():
            yield
            return
        if self.path.is_dir() and not self.config.exists():
            ours = {"lock", "config.json", "suspects.csv"}
            ours.update(file.name for file in self._temporary())
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
        if not self.has_model:
            raise missing(self.path / "detector.json")
        with self._hold():
            yield

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        try:
            # Without O_NONBLOCK, a pipe of that name would wait for somebody to read from it.
            flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK
            file = os.fdopen(os.open(self.path / "lock", flags, 0o666), "w")
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

    def _save_suspects(self, suspects: Sequence[Suspect]) -> None:
        """Write what was set aside, the most suspicious first, as CSV."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(Suspect._fields)
        rows.writerows((row, as_cell(name), f"{value:.4f}") for row, name, value in suspects)
        write_atomic(self.suspects, text.getvalue().encode())

    def read_suspects(self) -> list[Suspect]:
        """Return what was set aside, the most suspicious first; names are as in a cell."""
        if not self.suspects.exists():
            return []
        try:
            rows = csv.reader(io.StringIO(read_file(self.suspects).decode()))
            next(rows, None)
            return [Suspect(int(row), name, float(value)) for row, name, value in rows]
        except ValueError as error:
            raise RunError(f"{self.suspects} was altered: restore it, or delete it") from error

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
        for line in read_file(self.log).splitlines():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
        return records

    def session(self, stop_at: float = math.inf) -> Session:
        """Return what keeps the state and the log of a training in this run; rank 0 logs."""
        log = self._logger() if ranks.is_main() else None
        return Session(self.checkpoints, log, self.checkpoint_seconds, stop_at)

    def _logger(self) -> OnProgress:
        """Return a callback that logs a record, unless it is there from before an interruption.

        Who watches the fit is told of each.
        """
        started = time.monotonic()
        self.mend_log()
        logged = {(record["step"], record["images_seen"]) for record in self.read_log()}

        def log(record: dict[str, Any]) -> None:
            record = {**record, "seconds": round(time.monotonic() - started, 3)}
            if (record["step"], record["images_seen"]) not in logged:
                self.append_log(record)
            progress.reach(record["epoch"] / record["of"], record)

        return log

    def mend_log(self) -> None:
        """Drop a last line that a crash cut short, so that the next one starts on its own."""
        if self.log.exists() and not read_file(self.log).endswith(b"\n"):
            save_rows(self.log, self.read_log())
