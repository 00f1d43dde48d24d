"""Model files that were altered: each is refused or scores as before, and none executes code."""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import Row
from benchmarks.reliability.malformed_requests import mutate
from historyad.errors import InputError, RunError
from historyad.model.model import Model

NUMBERS = (-1, 0, 1, 7, 32, 2**40, 10**400, 1e308)
ODD: tuple[Any, ...] = (None, True, *NUMBERS, "", "x", "cpu", [], [1], {}, "\ud800")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in nested JSON but those of long lists."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(3, len(value))):
            yield from leaves(value[i], (*path, i))


def alter_json(content: Any, rng: random.Random) -> Any:
    """Replace or remove one value anywhere."""
    content = json.loads(json.dumps(content))
    *place, last = rng.choice([path for path in leaves(content) if path])
    inner = content
    for key in place:
        inner = inner[key]
    if rng.random() < 0.2:
        del inner[last]
        return content
    inner[last] = rng.choice(ODD)
    return content


def alter_files(source: Path, folder: Path, rng: random.Random) -> str:
    """Write an altered copy of the model into ``folder``; return what was done."""
    json_bytes = (source / "detector.json").read_bytes()
    tensors = (source / "detector.safetensors").read_bytes()
    content = json.loads(json_bytes)
    kind = rng.choice(("json bytes", "tensor bytes", "json, checksum mended", "header, mended"))
    if kind == "json bytes":
        json_bytes = mutate(json_bytes, rng)
    elif kind == "tensor bytes":
        tensors = mutate(tensors, rng)
    else:
        if kind == "header, mended":
            n = 8 + int.from_bytes(tensors[:8], "little")
            tensors = mutate(tensors[:n], rng) + tensors[n:]
            content["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
        else:
            content = alter_json({k: v for k, v in content.items() if k != "sha256"}, rng)
        content.pop("sha256", None)
        checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        json_bytes = json.dumps({**content, "sha256": checksum}).encode()
    (folder / "detector.json").write_bytes(json_bytes)
    (folder / "detector.safetensors").write_bytes(tensors)
    return kind


FORBIDDEN = ("exec", "compile", "pickle.find_class", "os.system", "subprocess.Popen", "os.exec")


def check_files(options: argparse.Namespace, images: np.ndarray[Any, Any]) -> Iterator[Row]:
    """Load and use altered copies of the model; count what comes of each kind of change."""
    expected = Model.load(options.run).anomaly_score(images[:4])
    executed: list[str] = []
    armed = False

    def audit(event: str, _: Any) -> None:
        if armed and event in FORBIDDEN:
            executed.append(event)

    sys.addaudithook(audit)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    slowest = 0.0
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        for i in range(options.files):
            kind = alter_files(options.run, Path(temporary), random.Random(i))
            started = time.monotonic()
            signal.alarm(30)  # a hang would end here
            armed = True
            outcome = try_model(Path(temporary), images[:4], expected)
            armed = False
            signal.alarm(0)
            slowest = max(slowest, time.monotonic() - started)
            counts[kind][outcome] += 1
    yield {
        "check": f"{options.files:,} altered model files",
        **{kind: dict(count) for kind, count in sorted(counts.items())},
        "code executed": dict(collections.Counter(executed)),
        "slowest, s": round(slowest, 2),
    }


def try_model(folder: Path, images: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> str:
    """Return what comes of a model in ``folder``; WRONG is what never should."""
    try:
        scores = Model.load(folder).anomaly_score(images)
    except RunError:
        return "refused"
    except InputError:
        return "refuses these images"  # since it says that it was fitted on others
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    return "same scores" if (scores == expected).all() else "WRONG: other scores"
