"""One ONNX graph from raw samples to verdicts, for machines without Python or PyTorch.

Preprocessing, network, score, conformal p-value and verdict are in the graph. A file exists only
when onnxruntime gave the same answers as `Model` did.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from historyad import __version__
from historyad.backbones.graphs import quiet_exporter
from historyad.config import as_dict
from historyad.errors import ConfigError, InputError, RunError
from historyad.extras import require
from historyad.files import write_atomic
from historyad.kinds.kind import Foreign, Kind
from historyad.layers import PooledConv2d
from historyad.model.model import Model
from historyad.score.calibration import Calibration
from historyad.score.mapped import Mapped
from historyad.score.result import FIGURES, Scored
from historyad.score.score import Score

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-4  # largest difference of two scores, or shares of a map, that is agreement
DEFAULT_OPSET, _NEWEST_OPSET = 18, 25  # what the exporter writes without converting

_PARITY_BATCHES = (1, 7, 64)
_PARITY_VALUES = 2**24  # in one batch, which is smaller where images are large


def export_onnx(
    model: Model,
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    samples: NDArray[Any] | None = None,
    opset: int = DEFAULT_OPSET,
) -> dict[str, Any]:
    """Write ``model`` to ``path`` as ONNX, once onnxruntime agrees with it; return what was found.

    The graph's input is ``images``, uint8 (N, H, W, C), or ``vectors``, float32 (N, F), with any
    N. Its outputs, each (N,), are ``anomaly_score`` (float32), ``p_value`` (float64) and
    ``is_anomalous`` (bool). H and W are those that the model was fitted on, or ``size`` for a
    model that accepts any. Both are compared on made-up inputs and on ``samples``, where given.
    A detector in the features of a backbone has a fourth, ``map`` (float32), (N, H, W).
    Needs the extra ``export``.

    Raises InputError (a size or samples that the model does not accept), ConfigError (opset,
    missing extra) or RunError (the answers differ, the file cannot be written); nothing is
    written then.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        require(package, "export", "export")
    if not DEFAULT_OPSET <= opset <= _NEWEST_OPSET:
        raise ConfigError(f"opset is {opset}: take {DEFAULT_OPSET} to {_NEWEST_OPSET}")
    shape = _input_shape(model.kind, size)
    if samples is not None and samples.shape[1:] != shape:
        raise InputError(
            f"the samples have shape {samples.shape[1:]}, the exported graph takes {shape}: give "
            "samples of that shape, or another size"
        )
    # Convolutions on a GPU are rounded more coarsely than the comparison allows.
    model = dataclasses.replace(model, score=copy.deepcopy(model.score).cpu().eval())
    proto = _to_onnx(model, shape, opset)
    data = proto.SerializeToString()
    difference = _check_parity(data, model, _parity_inputs(model, shape, samples))
    write_atomic(Path(path), data)
    return {
        "input": f"{proto.graph.input[0].name} (N, {', '.join(map(str, shape))})",
        "outputs": ", ".join(_outputs(model)),
        "opset": opset,
        "largest_score_difference": difference,
        "bytes": len(data),
    }


class Graph(nn.Module):
    """`Model` as one module: raw samples of one shape to score, p-value and verdict, each (N,).

    And maps, (N, H, W), where they are what makes the score. ``prepare`` brings samples to what the
    score sees of them.
    """

    def __init__(self, model: Model, shape: tuple[int, ...], prepare: nn.Module) -> None:
        super().__init__()
        self.prepare = prepare
        self.score: Score = _with_plain_convolutions(model.score)
        self.p_value = _PValue(model.calibration)
        self.threshold = model.calibration.threshold
        self.shape = shape

    def forward(self, *samples: Tensor) -> tuple[Tensor, ...]:
        """Return what `_outputs` names."""
        score, *maps = self.score.in_graph(self.prepare(*samples), self.shape)
        return score, self.p_value(score), (score <= self.threshold).logical_not(), *maps


class _PValue(nn.Module):
    """`Calibration.p_value`, by a binary search with a fixed number of steps.

    ONNX has no searchsorted, and comparing each score with each held-out one takes their product
    of memory.
    """

    held_out: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.n = len(calibration.scores)
        self.n_steps = self.n.bit_length()
        held_out = torch.full((2**self.n_steps - 1,), math.inf)
        held_out[: self.n] = torch.from_numpy(calibration.scores)
        self.register_buffer("held_out", held_out)

    def forward(self, score: Tensor) -> Tensor:
        """Map float32 (N,) to float64 (N,)."""
        below = torch.zeros_like(score, dtype=torch.int64)  # held-out scores known to be smaller
        for step in reversed(range(self.n_steps)):
            further = below + 2**step
            # Nothing is at or above NaN, whose p-value is the smallest.
            at_or_above = self.held_out[further - 1] >= score
            below = torch.where(at_or_above, below, further)
        return (1 + self.n - below.clamp(max=self.n)).double() / (self.n + 1)


def _outputs(model: Model) -> list[str]:
    """Return the names of what a graph returns: the figures, and the map where it has one."""
    return [*FIGURES, *(["map"] if model.score.makes_maps else [])]


def _with_plain_convolutions(detector: Score) -> Score:
    """Return a copy in which each `PooledConv2d` is the strided convolution that it equals."""
    detector = copy.deepcopy(detector)
    pooled = [(n, m) for n, m in detector.named_modules() if isinstance(m, PooledConv2d)]
    for name, module in pooled:
        plain = nn.Conv2d(module.in_channels, module.out_channels, 4, stride=2, padding=1)
        plain.weight = nn.Parameter(module.strided_kernel().detach())
        plain.bias = module.bias
        detector.set_submodule(name, plain)
    return detector


def _input_shape(kind: Kind, size: tuple[int, int] | None) -> tuple[int, ...]:
    shape = kind.input_shape
    if size is None:
        return shape
    if not kind.is_picture or min(size) < 1:
        raise InputError(
            f"size {size[0]} x {size[1]} does not fit a detector of {kind.noun}s: give height and "
            "width in pixels, and only for images"
        )
    shape = (*size, shape[2])
    kind.check(shape)
    return shape


def _to_onnx(model: Model, shape: tuple[int, ...], opset: int) -> ModelProto:
    import onnx

    example = torch.zeros((2, *shape), dtype=model.kind.rest_dtype)
    given, found = [f"{model.kind.noun}s"], _outputs(model)
    foreign = model.kind.within(shape)
    if foreign is None:
        graph = Graph(model, shape, model.kind.onnx(shape))
        proto = _exported(graph, (example,), given, found, opset)
    else:
        maps = [f"map_{number}" for number in range(len(foreign.outputs))]
        before = _exported(foreign.before, (example,), given, ["seen"], opset)
        graph = Graph(model, shape, foreign.after)
        after = _exported(graph, foreign.examples, maps, found, opset, foreign.n_seen)
        proto = _around(foreign, before, after)
    _strip_metadata(proto)
    onnx.helper.set_model_props(proto, _metadata(model))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _exported(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    given: list[str],
    found: list[str],
    opset: int,
    n_seen: int = 1,
) -> ModelProto:
    """Return a module as a graph, for any number of samples, of which each is so many inputs."""
    # Of a multiple, torch takes the name for a formula, and N for a function.
    n = torch.export.Dim("N") if n_seen == 1 else n_seen * torch.export.Dim("samples")
    sizes = tuple({0: n} for _ in examples)
    with quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            examples,
            input_names=given,
            output_names=found,
            # Of a graph that takes several inputs, the exporter counts them as one.
            dynamic_shapes=(sizes,) if isinstance(module, Graph) else sizes,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto: ModelProto = program.model_proto
    return proto


def _around(foreign: Foreign, before: ModelProto, after: ModelProto) -> ModelProto:
    """Return the graph of a user's file between both parts, as one.

    Raises InputError where it takes one image at a time, or has operations of another opset.
    """
    import onnx
    from onnx import compose, version_converter

    middle = onnx.load_from_string(foreign.graph)
    (seen,) = _true_inputs(middle)
    first = seen.type.tensor_type.shape.dim[0]
    if first.HasField("dim_value"):
        raise InputError(
            f"the backbone takes {first.dim_value} image at a time, and so no graph of it takes "
            "any number: write it again with write_backbone, or with a free first axis"
        )
    opset = next(one.version for one in before.opset_import if not one.domain)
    try:
        middle = version_converter.convert_version(middle, opset)
        middle.ir_version = after.ir_version = before.ir_version
        # Parts may call different things by one name.
        before = compose.add_prefix(before, "before_", rename_inputs=False)
        middle = compose.add_prefix(middle, "backbone_")
        taken = [f"backbone_{name}" for name in foreign.outputs]
        whole = compose.merge_models(
            before, middle, [("before_seen", f"backbone_{seen.name}")], outputs=taken
        )
        links = [(name, f"map_{number}") for number, name in enumerate(taken)]
        return compose.merge_models(whole, after, links)
    except Exception as error:  # onnx has its own for each thing that does not fit
        raise InputError(
            f"the backbone cannot be joined with the rest ({str(error).splitlines()[0]}): write it "
            f"with opset {opset}, or export with the --opset that it has"
        ) from error


def _true_inputs(proto: ModelProto) -> list[Any]:
    """Return the inputs of a graph that are no weights with a default."""
    weights = {one.name for one in proto.graph.initializer}
    return [one for one in proto.graph.input if one.name not in weights]


def _metadata(model: Model) -> dict[str, str]:
    return {
        "historyad_version": __version__,
        "threshold": repr(model.calibration.threshold),
        "false_positive_rate": repr(model.calibration.false_positive_rate),
        "source_fingerprint": str(model.source.get("fingerprint", "")),
        "config": json.dumps(as_dict(model.config)),
    }


def _strip_metadata(proto: ModelProto) -> None:
    """Remove the exporter's notes, among them stack traces with paths of this machine."""
    graph = proto.graph
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for part in (proto, graph, *itertools.chain(*parts)):
        del part.metadata_props[:]


def _parity_inputs(
    model: Model, shape: tuple[int, ...], samples: NDArray[Any] | None
) -> Iterator[NDArray[Any]]:
    """Yield batches of several sizes: made-up samples, some that nobody can score, ``samples``."""
    random = np.random.default_rng(0)
    for size in _PARITY_BATCHES:
        n = max(1, min(size, _PARITY_VALUES // math.prod(shape)))
        yield model.kind.example(n, random, shape)
        if samples is not None:
            yield samples[np.arange(n) % len(samples)]
    yield from model.kind.unusual(shape)


def _shown_difference(
    model: Model, score: NDArray[np.float32], maps: NDArray[np.float32], ours: Scored
) -> float:
    """Return how far maps and scores differ, as a share of what is shown in full.

    Near the threshold a score is a steep function of its worst cells, and would magnify the last
    bits of a float; far out it is a flat one. So the nearer of the two counts.
    """
    assert isinstance(model.score, Mapped)
    shown = model.map_scale[0]
    worst, our_worst = (
        np.array([model.score.total_at(float(one)) for one in scores])
        for scores in (score, ours.anomaly_score)
    )
    of_scores = np.minimum(np.abs(score - ours.anomaly_score), np.abs(worst - our_worst) / shown)
    of_maps = np.abs(maps - np.stack(ours.maps or [])) / shown
    return float(np.max([of_scores.max(), of_maps.max()]))  # NaN where any is


def _check_parity(data: bytes, model: Model, inputs: Iterable[NDArray[Any]]) -> float:
    """Return the largest difference of scores; RunError when onnxruntime and Python disagree."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    largest = 0.0
    for samples in inputs:
        score, p_value, is_anomalous, *maps = session.run(_outputs(model), {name: samples})
        ours = model(samples, maps=bool(maps))
        known = np.isfinite(ours.anomaly_score)
        same_unknown = np.array_equal(np.isnan(score), ~known)
        difference = float(np.abs(score - ours.anomaly_score)[known].max(initial=0.0))
        largest = max(largest, difference)
        # Scores may differ in the last bits. What follows from a score may not differ at all.
        decided = model.calibration.decide(Scored(score)).columns()
        same_p_values = np.array_equal(p_value, decided["p_value"])
        same_verdicts = np.array_equal(is_anomalous, decided["is_anomalous"])
        if maps:
            difference = _shown_difference(model, score, maps[0], ours)
        # Written so that a NaN fails.
        if not (difference <= TOLERANCE and same_unknown and same_p_values and same_verdicts):
            raise RunError(
                f"onnxruntime and PyTorch disagree on {len(samples)} inputs (scores by "
                f"{difference:.2g}, p-values {'equal' if same_p_values else 'different'}, "
                f"verdicts {'equal' if same_verdicts else 'different'}), so nothing was written: "
                "try another opset or other versions of onnx and onnxruntime"
            )
    return largest
