"""Score what an address names, such as ``s3://bucket/images``, by Ray Data alone.

Its readers list and fetch, its actors keep the model, its writers make Parquet files, and to try
again and to go on elsewhere is its own, too. A source in an object store is read once and by many,
and so nothing of it has to lie under the same path on all machines. Images are fetched as bytes and
decoded where they are scored, so that they have the scores that they have anywhere; rows are those
of Parquet files.

Who scores files of a machine part by part, and continues, is `historyad.deploy.many`.
"""

from __future__ import annotations

import logging
import posixpath
import re
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from historyad.data.datasets import open_source
from historyad.data.decoding import decode_image
from historyad.data.images import SUFFIXES, Pixels
from historyad.data.shards import printable
from historyad.deploy.many import workers
from historyad.deploy.parts import Job, column_names, columns_of, score_chunk
from historyad.deploy.ray_cluster import cluster
from historyad.errors import InputError, RunError
from historyad.extras import require
from historyad.model.model import Model
from historyad.names import without_keys
from historyad.ranks import choose_device
from historyad.score.result import Columns

if TYPE_CHECKING:
    from pandas import DataFrame

_IMAGES, _ROWS = 256, 8192  # handed to an actor at a time
_SHARE = 0.25  # of a core: what reads and writes waits for the store


def is_address(text: str) -> bool:
    """Whether ``text`` is an address, such as s3://bucket/name, and no path."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.isalnum()


def score_objects(
    job: Job,
    out: str,
    *,
    address: str | None = None,
    actors: int = 0,
    device: str = "auto",
) -> Counter[str]:
    """Score all that ``job.source`` names into Parquet files in ``out``; count what was found.

    Both are addresses that pyarrow knows (``s3://``, ``gs://``, ``file://``, ...), and ``out`` may
    be a folder. Its rows have the columns of `historyad.deploy.parts.score_chunk`, rows of a table
    after those that they had, and of images ``error`` says why one has no score. Ray Data scores
    again what an actor that died had, and begins anew when it is called again.

    Counted are ``scored``, ``anomalous`` and ``unreadable``. Raises InputError for a source that is
    not there or that the model does not take, and for an ``out`` that holds something, RunError
    when the cluster cannot be reached or gave up.
    """
    import ray

    job = replace(job, run=job.run.absolute())
    model = Model.load(job.run)
    store, path = _store(job.source)
    target, folder = _store(out if is_address(out) else Path(out).absolute().as_uri())
    _check_free(target, folder, out)
    root = _files(store, path, SUFFIXES if model.kind.is_picture else {".parquet"}, job.source)
    with cluster(address):
        ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        read: dict[str, Any] = {"filesystem": store, "num_cpus": _SHARE}
        n_actors, threads, gpus = workers(actors, sys.maxsize, device)
        pool: dict[str, Any] = {
            "fn_constructor_args": (job, root, threads, device),
            "compute": ray.data.ActorPoolStrategy(
                min_size=1, max_size=n_actors, initial_size=n_actors
            ),
            # What reads and writes waits for the store, but needs a core to be free for it.
            "num_cpus": threads / 2 if n_actors * threads > 1 else _SHARE,
            "num_gpus": gpus,
        }
        try:
            if model.kind.is_picture:
                images = ray.data.read_binary_files(path, include_paths=True, **read)
                found = images.map_batches(ScoreImages, batch_size=_IMAGES, **pool)
            else:
                rows = ray.data.read_parquet(path, **read)
                pool["batch_format"] = "pandas"
                found = rows.map_batches(ScoreRows, batch_size=_ROWS, **pool)
            found.write_parquet(folder, filesystem=target, ray_remote_args={"num_cpus": _SHARE})
        except ray.exceptions.RayError as error:
            said = re.findall(r"historyad\.errors\.InputError: (.+)", str(error))
            if said:  # of an actor
                raise InputError(said[-1]) from error
            reason = str(error).strip().partition("\n")[0]
            raise RunError(f"Ray gave up ({type(error).__name__}: {reason})") from error
    return _counts(target, folder)


class ScoreImages:
    """What an actor of Ray Data calls for each batch of images, in a process of its own."""

    def __init__(self, job: Job, root: str, threads: int, device: str) -> None:
        self._job, self._root, self._device = job, root, device
        torch.set_num_threads(threads)
        threadpool_limits(threads)

    @cached_property
    def _model(self) -> Model:
        return Model.load(self._job.run, choose_device(self._device))

    def __call__(self, batch: dict[str, NDArray[Any]]) -> Columns:
        """Return a row for each image, those that cannot be scored among them."""
        names = [posixpath.relpath(path, self._root) for path in batch["path"]]
        files = zip(names, batch["bytes"], strict=True)
        images = [self._decoded(name, data) for name, data in files]
        n = len(names)
        columns: Columns = {"path": np.array([printable(name) for name in names], object)}
        for name in column_names(self._model, view_scores=self._job.view_scores)[1:]:
            columns[name] = np.full(n, None, object)
        columns["error"] = np.array([None if isinstance(i, np.ndarray) else i for i in images])
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, image in enumerate(images):
            if isinstance(image, np.ndarray):
                alike[image.shape].append(place)
        for places in alike.values():
            same = np.stack([images[place] for place in places])
            found = columns_of([names[p] for p in places], self._scored(same))
            for name, values in found.items():
                columns[name][places] = values
        return {name: _arrow(name, values) for name, values in columns.items()}

    def _decoded(self, name: str, data: bytes) -> Pixels | str:
        kind = self._model.kind
        channels = self._job.channels or self._model.channels
        try:
            return decode_image(
                data, name=name, side=kind.grid, channels=channels, check=kind.check
            )
        except InputError as error:
            return str(error)

    def _scored(self, images: Pixels) -> Any:
        return self._model(images, views=self._job.view_scores)


class ScoreRows(ScoreImages):
    """The same for rows of a table."""

    def __call__(self, batch: DataFrame) -> DataFrame:
        """Return the rows, and what is said of each."""
        model = self._model
        source = model.takes(
            open_source(batch, id_column=self._job.id_column, texts=model.text_columns)
        )
        views = self._job.view_scores
        found = score_chunk(model, source.names, source.samples, view_scores=views)
        return batch.assign(**{name: v for name, v in found.items() if name != "path"})


def _arrow(name: str, values: NDArray[Any]) -> Any:
    """Return values, None among them, as a column of one type in all batches."""
    import pyarrow

    types = {
        "path": pyarrow.string(),
        "error": pyarrow.string(),
        "p_value": pyarrow.float64(),
        "is_anomalous": pyarrow.bool_(),
    }
    return pyarrow.array(values.tolist(), types.get(name, pyarrow.float32()))


def _store(address: str) -> tuple[Any, str]:
    """Return the store of an address, and the path there."""
    require("pyarrow", "addresses", "ray")
    from pyarrow.fs import FileSystem

    try:
        store, path = FileSystem.from_uri(address)
    except (OSError, ValueError) as error:
        raise InputError(f"{without_keys(address)} cannot be opened: {error}") from error
    return store, path.rstrip("/")


def _files(store: Any, path: str, suffixes: set[str] | frozenset[str], source: str) -> str:
    """Return the folder that names of files are relative to; InputError where there are none."""
    from pyarrow.fs import FileSelector, FileType

    try:
        itself = store.get_file_info(path)
        if itself.type == FileType.File:
            return posixpath.dirname(path)
        found = store.get_file_info(FileSelector(path, recursive=True))
    except OSError as error:
        raise InputError(f"{without_keys(source)} cannot be read: {error}") from error
    if not any(posixpath.splitext(one.path)[1].lower() in suffixes for one in found):
        listed = " ".join(sorted(suffixes))
        raise InputError(f"{without_keys(source)} holds no file that the model takes ({listed})")
    return path


def _check_free(store: Any, folder: str, out: str) -> None:
    from pyarrow.fs import FileSelector

    if store.get_file_info(FileSelector(folder, allow_not_found=True)):
        raise InputError(f"{without_keys(out)} holds something: name another --out")


def _counts(store: Any, folder: str) -> Counter[str]:
    import pyarrow.compute
    import pyarrow.dataset

    counts: Counter[str] = Counter()
    rows = pyarrow.dataset.dataset(folder, filesystem=store, format="parquet")
    for batch in rows.to_batches(columns=["is_anomalous"]):
        verdicts = batch.column(0)
        counts["unreadable"] += verdicts.null_count
        counts["scored"] += len(verdicts) - verdicts.null_count
        counts["anomalous"] += pyarrow.compute.sum(verdicts).as_py() or 0
    return counts
