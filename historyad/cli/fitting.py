"""Commands that make a detector, or its threshold."""

from __future__ import annotations

import sys
import time
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import Group, Parameter

from historyad.cli.common import (
    DataRoot,
    Device,
    Run,
    SkipUnreadable,
    SourceName,
    command_line,
    load_model,
    open_for,
    open_samples,
    report_unreadable,
)
from historyad.cli.console import print_table, progress, say
from historyad.config import PRESETS, Config, make_config, settings

if TYPE_CHECKING:
    from historyad.data.sources import Source

_PATCH, _SCALES = 32, 2  # that suit most images with small defects
_TWELVE_BITS = 16  # what 4095 of 65535 becomes of 255


def _overrides() -> type:
    """Return a dataclass with one optional field, and so one option, for each hyperparameter."""
    types = get_type_hints(Config)
    options = [
        (
            name,
            Annotated[
                types[name] | None,
                Parameter(
                    help=f"{setting.metadata['help']} (default: {setting.default!r})",
                    group=Group("Settings (defaults are those of the preset 'default')"),
                ),
            ],
            None,
        )
        for name, setting in settings().items()
    ]
    # Before Python 3.12 its module would be "types", and cyclopts looks into no builtin type.
    return make_dataclass("Overrides", options, namespace={"__module__": __name__})


if TYPE_CHECKING:
    Overrides = Any
else:
    Overrides = Parameter(name="*")(_overrides())


def fit(
    source: SourceName,
    *,
    out: Annotated[Path, Parameter(help="Directory to write; the same command continues it.")],
    preset: Annotated[
        str, Parameter(help=f"Settings to start from: {', '.join(PRESETS)}.")
    ] = "default",
    data_root: DataRoot = None,
    skip_unreadable: SkipUnreadable = False,
    overrides: Overrides | None = None,
) -> None:
    """Learn what is normal from normal samples alone.

    Interrupted, the same command continues where it was. Under torchrun, all its processes fit one
    model together.
    """
    from historyad.method import ranks as distributed
    from historyad.model.fit import fit_model
    from historyad.model.run import RunDirectory

    given = {name: value for name, value in vars(overrides or object).items() if name in settings()}
    config = make_config(preset, **{k: v for k, v in given.items() if v is not None})
    started = time.monotonic()
    with distributed.launch():
        samples = open_samples(
            source, data_root, skip_unreadable=skip_unreadable, side=config.image_size
        )
        if distributed.is_main():
            _mention_crops(samples, config)
            _mention_dark(samples)
        with progress() as on_progress:
            model = fit_model(
                samples, config, RunDirectory(out), command=command_line(), on_progress=on_progress
            )
        if not distributed.is_main():
            return
    skipped = f" ({len(samples.unreadable)} could not be read)" if samples.unreadable else ""
    say(
        f"{out}: {len(samples):,} normal samples{skipped}, "
        f"threshold {model.calibration.threshold:+.3f} "
        f"at a false-positive rate of {model.calibration.false_positive_rate:g}, "
        f"{time.monotonic() - started:.0f} s"
    )
    say(f"next: historyad score {out} SOURCE")


def _mention_crops(samples: Source, config: Config) -> None:
    """Say before a fit takes its time that images are reduced, and what sees small defects."""
    from historyad.kinds.preprocessing import Preprocessing

    if samples.samples.ndim != 4 or config.patch:
        return
    prepare = Preprocessing.fit(samples.samples, config.image_size)
    height, width = prepare.input_shape[:2]
    if prepare.shrinks and min(height, width) >= _PATCH << (_SCALES - 1):
        say(
            f"note: images of {width} x {height} pixels are reduced to {prepare.side} x "
            f"{prepare.side}; defects of a few pixels are seen in crops: "
            f"--patch {_PATCH} --scales {_SCALES}",
            file=sys.stderr,
        )


def _mention_dark(samples: Source) -> None:
    """Say that images are nearly black, as those of 12 bits in files of 16 are when they come."""
    import numpy as np

    pixels = samples.samples
    if pixels.ndim != 4 or not isinstance(pixels, np.ndarray):  # of shards, only a part was seen
        return
    highest = int(pixels.max())
    if highest <= _TWELVE_BITS:
        say(
            f"note: values reach only {highest} of 255: scale 12-bit data to 0..65535, which "
            "16-bit files hold, and 8-bit data to 0..255",
            file=sys.stderr,
        )


def calibrate(
    run: Run,
    source: SourceName,
    *,
    false_positive_rate: Annotated[
        float | None, Parameter(help="Share of normal inputs to call anomalous, if it changes.")
    ] = None,
    data_root: DataRoot = None,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Set threshold and p-values anew from normal samples not trained on, without training."""
    from historyad.model.fit import calibrate_model
    from historyad.model.run import RunDirectory

    with RunDirectory(run).lock_finished():
        model = load_model(run, device)
        samples = open_for(model, source, data_root, skip_unreadable=skip_unreadable)
        report_unreadable(samples)
        renewed = calibrate_model(model, samples, false_positive_rate)
        renewed.save_calibration(run)
    before, after = model.calibration, renewed.calibration
    print_table(
        [
            ("calibrated on", f"{len(after.scores):,} samples of {source}"),
            ("false positives", f"{after.false_positive_rate:g}"),
            ("threshold", f"{after.threshold:+.4f}, before {before.threshold:+.4f}"),
        ]
    )
