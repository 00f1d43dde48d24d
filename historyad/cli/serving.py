"""Commands of a detector at work elsewhere: on a stream, over HTTP, and in another program."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from historyad.cli.common import (
    READING,
    Device,
    JsonFile,
    Reading,
    Run,
    SourceName,
    keep_apart,
    load_model,
    open_samples,
    open_stream_for,
    report_unreadable,
    save_record,
)
from historyad.cli.console import print_table, say
from historyad.cli.rows import chunks_of
from historyad.deploy.service.limits import Limits
from historyad.extras import require

ServiceLimits = Annotated[Limits, Parameter(name="*", group="Limits")]


def drift(
    run: Run,
    source: SourceName,
    *,
    level: Annotated[
        float,
        Parameter(
            help="Probability of an alarm, ever, on a stream that does not change.",
            validator=validators.Number(gt=0, lt=1),
        ),
    ] = 0.01,
    seed: Annotated[int, Parameter(help="Of the random numbers that break ties.")] = 0,
    json_file: JsonFile = None,
    reading: Reading = READING,
    device: Device = "auto",
) -> None:
    """Test whether a stream, in its order, is still what was calibrated on, and since when not.

    Of a series, windows are looked at that share no step with each other.
    """
    import numpy as np

    from historyad.data.series import apart
    from historyad.data.shards import printable
    from historyad.judge.drift import detect_drift, table_of

    keep_apart(source, files=[json_file])
    model = load_model(run, device)
    samples = apart(open_stream_for(model, source, reading))
    names: list[str] = []
    scores = [np.empty(0, np.float32)]
    for some, chunk in chunks_of(model, samples):
        names += map(printable, some)
        scores.append(model.anomaly_score(chunk))
    report_unreadable(samples)
    if model.n_folds:
        say(
            "note: the detector was calibrated in folds, by detectors of fewer samples, to which "
            "samples look a little less normal: calibrate on others before you trust an alarm",
            file=sys.stderr,
        )
    found = detect_drift(model.calibration, np.concatenate(scores), level=level, seed=seed)
    print_table(table_of(found, names))
    since = None if found.since is None else names[found.since]
    record = {"run": str(run), "source": source, **vars(found), "since_name": since}
    save_record(json_file, record)


def serve(
    run: Run,
    *,
    host: Annotated[str, Parameter(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 chooses a free one.")] = 8000,
    device: Device = "auto",
    limits: ServiceLimits | None = None,
) -> None:
    """Score over HTTP: POST /score, and a page that shows verdicts on the images dropped there.

    Ends on SIGTERM or Ctrl-C when it has answered what it accepted.
    """
    # Before torch is imported: its threads would spin while they wait, on the event loop's cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    require("historyad.deploy.service.server", "serve", "serve")
    from historyad.deploy.service.server import listen, run_server
    from historyad.model.examples import Examples

    limits = limits or Limits()
    model, examples = load_model(run, device), Examples.load(run)
    listener, url = listen(host, port)
    say(f"{run}: serving at {url}")
    if not (limits.token or url.startswith("http://127.")):
        say(
            f"historyad: whoever reaches {url} can use it; to ask for a token, set HISTORYAD_TOKEN",
            file=sys.stderr,
        )
    hosts = (*limits.allowed_host, host)
    run_server(model, replace(limits, allowed_host=hosts), listener, examples)


def export(
    run: Run,
    path: Annotated[Path, Parameter(help="File to write, .onnx.")],
    *,
    size: Annotated[
        tuple[int, int] | None,
        Parameter(
            negative="", help="Height and width of the images to score, where any are accepted."
        ),
    ] = None,
    samples: Annotated[
        str | None, Parameter(help="Source of inputs on which to compare, besides made-up ones.")
    ] = None,
    opset: Annotated[int, Parameter(help="Version of the ONNX operators, 18 to 25.")] = 18,
    reading: Reading = READING,
) -> None:
    """Write one ONNX file from raw input to score, p-value and verdict, once its answers agree."""
    from historyad.deploy.onnx import export_onnx

    model = load_model(run, "cpu")
    inputs = None if samples is None else open_samples(samples, reading).samples
    found = export_onnx(model, path, size=size, samples=inputs, opset=opset)
    print_table([("written", str(path)), *((name, str(value)) for name, value in found.items())])
