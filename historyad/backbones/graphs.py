"""Backbones in files: an ONNX graph, or a program that torch exported, and a JSON file beside it.

``NAME.json`` says what ``NAME.onnx`` or ``NAME.pt2`` expects and returns::

    {"input_size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
     "outputs": ["layer2", "layer3"]}

Mean and deviation are those of values from 0 to 1, as timm and torchvision have them. ``outputs``
are maps (N, c, h, w) of the graph; left out, all that it returns are taken. `write_backbone` makes
both files from any `nn.Module`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad.backbones.parts import Part
from historyad.constants import CONSTANTS
from historyad.errors import InputError
from historyad.extras import require
from historyad.files import load_json, read_file, save_json, write_atomic

SIDES = (32, 1024)  # of the square that a backbone sees, in pixels, at least and at most
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet
_OPSET = 18
_MAP_AXES = 4


@dataclass(frozen=True, eq=False)
class GraphBackbone:
    """An ONNX graph that onnxruntime runs, one image at a time on one core of the processor."""

    side: int
    graph: bytes
    mean: tuple[float, ...]
    std: tuple[float, ...]
    outputs: tuple[str, ...]
    file: str  # its name, where it came from

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.file

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The features of a cell: the channels of all maps."""
        n_features = sum(one.shape[1] for one in self._example)
        return (Part(n_features, CONSTANTS.cell_components),)

    @property
    def modules(self) -> Sequence[nn.Module]:
        """Nothing: it is a graph already."""
        return ()

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest map."""
        rows, columns = max((one.shape[2:] for one in self._example), key=lambda grid: grid[0])
        return rows, columns

    @cached_property
    def _example(self) -> Sequence[Tensor]:
        maps = self(torch.zeros(1, 3, self.side, self.side))
        for name, found in zip(self.outputs, maps, strict=True):
            if found.dim() != _MAP_AXES or found.shape[0] != 1:
                raise ValueError(
                    f"its output {name} has shape {tuple(found.shape)} and is no map (N, c, h, w)"
                )
        return maps

    @cached_property
    def _session(self) -> Any:
        runtime = _require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return runtime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """Map grey values (N, 3, side, side) to maps."""
        values = self.normalised(x).cpu().numpy()
        (given,) = self._session.get_inputs()
        maps = [
            self._session.run(list(self.outputs), {given.name: np.ascontiguousarray(one[None])})
            for one in values
        ]
        return [
            torch.from_numpy(np.concatenate(parts)).float().to(x.device)
            for parts in zip(*maps, strict=True)
        ]

    def normalised(self, x: Tensor) -> Tensor:
        """Map grey values (N, 3, side, side) to what the graph expects."""
        shape = (1, 3, 1, 1)
        mean, std = (x.new_tensor(values).view(shape) for values in (self.mean, self.std))
        return (x / 255 - mean) / std

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: nothing of it changes, and a session cannot be copied."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array."""
        return {
            "name": "graph",
            "side": self.side,
            "mean": list(self.mean),
            "std": list(self.std),
            "outputs": list(self.outputs),
            "file": self.file,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the graph, byte by byte."""
        return {"graph": torch.from_numpy(np.frombuffer(self.graph, np.uint8).copy())}

    @classmethod
    def from_json(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Return the backbone that a model's file describes; ValueError for one that cannot run."""
        graph = tensors["graph"].numpy()
        if content["name"] != "graph" or graph.dtype != np.uint8:
            raise ValueError(f"a backbone {content['name']!r}")
        found = cls(
            content["side"],
            graph.tobytes(),
            _three(content["mean"]),
            _three(content["std"]),
            tuple(map(str, content["outputs"])),
            str(content["file"]),
        )
        return found.tried()

    def tried(self) -> Self:
        """Return itself once it has run; ValueError where it does not."""
        _require("onnxruntime")
        try:
            _ = self.grid
        except InputError:
            raise
        except Exception as error:  # onnxruntime has its own for each thing that can be wrong
            raise ValueError(f"the backbone does not run ({_first_line(error)})") from error
        return self


def open_graph(name: str, side: int = 0) -> GraphBackbone:
    """Return the backbone of a file, NAME.onnx or NAME.pt2, with the NAME.json beside it.

    ``side`` must be the one that it was made for, if it was made for one; 0 takes that of the JSON.
    Raises InputError for what is missing, is none, or does not run.
    """
    path = Path(name)
    content = _read_description(path.with_suffix(".json"), path)
    graph = _from_program(path) if path.suffix == ".pt2" else _self_contained(path)
    runtime = _require("onnxruntime")
    try:
        session = runtime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        outputs = content.get("outputs") or [output.name for output in session.get_outputs()]
        return GraphBackbone(
            side or content["input_size"],
            graph,
            _three(content.get("mean", _MEAN)),
            _three(content.get("std", _STD)),
            tuple(outputs),
            path.name,
        ).tried()
    except Exception as error:
        raise InputError(
            f"{path} cannot be used as a backbone with {path.with_suffix('.json').name} "
            f"({_first_line(error)}): it takes images (N, 3, size, size) and returns maps"
        ) from error


def write_backbone(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    input_size: int = 224,
    mean: Sequence[float] = _MEAN,
    std: Sequence[float] = _STD,
) -> None:
    """Write ``module`` as the backbone ``path``, NAME.onnx, with its NAME.json.

    It maps images (N, 3, input_size, input_size), normalised by ``mean`` and ``std``, to a map
    (N, c, h, w), or a list or tuple of some. Needs the extra ``export``. Raises InputError for
    another suffix, or a module that returns something else.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise InputError(f"{path}: call the file NAME.onnx")
    x = torch.zeros(2, 3, input_size, input_size)
    with torch.no_grad():
        found = module.eval()(x)
    maps = [found] if isinstance(found, Tensor) else list(found)
    if not all(isinstance(one, Tensor) and one.dim() == _MAP_AXES for one in maps):
        raise InputError("the module returns something else than maps (N, c, h, w)")
    names = [f"map{number}" for number in range(len(maps))]
    write_atomic(path, _exported(module, x, names))
    content = {"input_size": input_size, "mean": list(mean), "std": list(std), "outputs": names}
    save_json(path.with_suffix(".json"), content)


def _exported(program: Any, x: Tensor, names: list[str] | None = None) -> bytes:
    _require("onnxscript")
    with quiet_exporter():
        shapes = None if names is None else ({0: torch.export.Dim("N")},)
        exported = torch.onnx.export(
            program,
            (x,),
            output_names=names,
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    return bytes(exported.model_proto.SerializeToString())


def _from_program(path: Path) -> bytes:
    """Return an exported program as a graph, which scoring reads without running any code."""
    content = read_file(path)
    try:
        program = torch.export.load(io.BytesIO(content))
        (example,), _ = program.example_inputs
    except Exception as error:
        raise InputError(
            f"{path} is no program of torch.export with an example of its input "
            f"({_first_line(error)}): write it with torch.export.save"
        ) from error
    return _exported(program, example)


def _self_contained(path: Path) -> bytes:
    """Return an ONNX file with the weights that may lie beside it."""
    if path.suffix != ".onnx" or not path.is_file():
        raise InputError(f"the backbone {path} is missing: give lite0, or a file .onnx or .pt2")
    onnx = _require("onnx")
    try:
        return bytes(onnx.load(path).SerializeToString())
    except Exception as error:
        raise InputError(
            f"{path} is no ONNX file ({_first_line(error)}): export it again"
        ) from error


def _read_description(path: Path, graph: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f'{path} is missing, which says what {graph.name} takes: write {{"input_size": 224, '
            '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
        )
    content = load_json(path)
    size = content.get("input_size") if isinstance(content, dict) else None
    if type(size) is not int or not SIDES[0] <= size <= SIDES[1]:
        raise InputError(
            f"{path} gives input_size {json.dumps(size)}: give the side of the images in pixels, "
            f"{SIDES[0]} to {SIDES[1]}"
        )
    return dict(content)


def _three(values: Iterable[Any]) -> tuple[float, ...]:
    found: NDArray[np.float64] = np.array([*values], np.float64)
    if found.shape != (3,) or not np.isfinite(found).all():
        raise ValueError(f"{found.tolist()} instead of a number for each of three colours")
    return tuple(found.tolist())


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _require(name: str) -> Any:
    return require(name, "a backbone in a file", "export")


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep to itself what the exporter says about its own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
