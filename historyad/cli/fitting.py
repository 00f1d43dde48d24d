"""Commands that make a detector, or its threshold."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter, validators

from historyad.cli.common import (
    READING,
    Category,
    Device,
    Reading,
    Run,
    SkipUnreadable,
    SourceName,
    command_line,
    load_model,
    open_for,
    open_samples,
    report_unreadable,
)
from historyad.cli.console import note, print_table, progress, say
from historyad.cli.remarks import about_calibration, about_samples
from historyad.config import PRESETS, Config, given, make_config, overrides, sees_any_size, settings
from historyad.constants import CONSTANTS
from historyad.progress import opening

if TYPE_CHECKING:
    from historyad.data.sources import Source
    from historyad.model.model import Model
    from historyad.score.calibration import Calibration

_ALONE = 2.0  # times as far out as the next held-out sample


_SETTINGS = Group("Settings (defaults are those of the preset 'default')")


def _option(name: str, type_: Any) -> Any:
    """Return the type of a setting with what --help says of it."""
    setting = settings()[name]
    choices = tuple(choice for choice in setting.metadata["choices"] if choice)
    type_ = Literal[choices] | None if choices else type_
    text = f"{setting.metadata['help']} (default: {setting.default!r})"
    return Annotated[type_, Parameter(help=text, group=_SETTINGS)]


if TYPE_CHECKING:
    Overrides = Any
    Preset = str
else:
    Preset = Literal[tuple(PRESETS)]
    # Before Python 3.12 its module would be "types", and cyclopts looks into no builtin type.
    Overrides = Parameter(name="*")(
        make_dataclass("Overrides", overrides(_option), namespace={"__module__": __name__})
    )


def fit(
    source: SourceName,
    *,
    out: Annotated[Path, Parameter(help="Directory to write; the same command continues it.")],
    preset: Annotated[
        Preset, Parameter(help="Settings to start from; historyad list presets compares them.")
    ] = "default",
    category: Category = None,
    reading: Reading = READING,
    group_column: Annotated[
        str | None,
        Parameter(help="Column of a table that says which rows belong together; no value of it."),
    ] = None,
    skip_unreadable: SkipUnreadable = False,
    limit: Annotated[
        float | None,
        Parameter(
            name="--time",
            help="Seconds after which training is stopped, if it has not ended; what trains no "
            "network is kept, and the same command continues.",
            validator=validators.Number(gt=0),
        ),
    ] = None,
    options: Overrides | None = None,
) -> None:
    """Learn what is normal from normal samples alone.

    A detector that trains no network is there at once, and training replaces it where it sees more.
    Interrupted, the same command continues where it was. Under torchrun, all its processes fit one
    model together.
    """
    from historyad import ranks
    from historyad.kinds.choose import settle
    from historyad.model.fit import fit_model
    from historyad.model.run import RunDirectory

    config = make_config(preset, **given(options))
    if reading.time_column is not None and not config.window:
        config = make_config(preset, **{**given(options), "window": "auto"})
    started, was_there = time.monotonic(), RunDirectory(out).is_finished
    source = _normal_source(source, category)
    with ranks.launch(), progress(here=ranks.is_main()), _saying_what_is_kept(out):
        opening()

        def opened(config: Config) -> Source:
            return open_samples(
                source,
                reading,
                skip_unreadable=skip_unreadable,
                mixed=config.image_size or None,
                any_size=sees_any_size(config),
                group_column=group_column,
            )

        samples = opened(config)
        if config.backbone == "auto":
            backbone, why = settle(samples.samples)
            config = make_config(preset, **{**given(options), "backbone": backbone})
            samples = samples if sees_any_size(config) else opened(config)
            if ranks.is_main():
                note(f"backbone {backbone}: {why}")
        if ranks.is_main():
            report_unreadable(samples)
            about_samples(samples, config)
        model = fit_model(
            samples,
            config,
            RunDirectory(out),
            command=command_line(),
            seconds=math.inf if limit is None else limit - (time.monotonic() - started),
        )
        is_main = ranks.is_main()  # as long as there is a group
    if not is_main:
        return
    skipped = f" ({len(samples.unreadable)} could not be read)" if samples.unreadable else ""
    say(
        f"{out}: {len(samples):,} {_noun(model)}{skipped}, "
        f"threshold {model.calibration.threshold:+.3f} "
        f"at a false-positive rate of {model.calibration.false_positive_rate:.4g}"
        f"{_how_sure(model.calibration)}, "
        + ("was fitted before" if was_there else f"{time.monotonic() - started:.0f} s")
    )
    if model.n_folds:
        say(
            f"every {'step' if model.config.window else 'sample'} was learnt from and calibrated "
            f"on: in {model.n_folds} folds, each scored by a detector of the others"
        )
    _mention_rate(model, config)
    if _is_set_by_one(model):
        note(
            "note: the threshold is that of one held-out sample, which is twice as far out as any "
            "other: if it is wrong, fit with --contamination 0.01, or calibrate on others"
        )
    if suspects := RunDirectory(out).read_suspects():
        say(_set_aside([one.name for one in suspects], out))
    if copies := model.source.get("copies"):
        say(
            f"{copies:,} are copies of another sample: copies were kept together, and count once "
            "for the threshold"
        )
    _mention_groups(model)
    _mention_training(model, out, limit)
    note(f"next: historyad score {out} SOURCE", file=sys.stdout)


def _noun(model: Model) -> str:
    window = model.config.window
    return f"normal steps in windows of {window}" if window else "normal samples"


@contextlib.contextmanager
def _saying_what_is_kept(out: Path) -> Iterator[None]:
    """Say of a fit that is interrupted that it left a detector, if it did."""
    from historyad.model.run import RunDirectory

    try:
        yield
    except KeyboardInterrupt:
        if RunDirectory(out).has_model:
            say(f"{out}: the detector that trains no network is kept, and can be used")
        raise


def _mention_training(model: Model, out: Path, limit: float | None) -> None:
    """Say what training brought, where it was to replace a detector that trains no network."""
    from historyad.model.run import RunDirectory

    if not RunDirectory(out).is_finished:
        say(
            f"training had not ended after {limit:g} s: the detector that trains no network is "
            "kept; the same command, with more time, continues"
        )
    elif "seen_trained" in model.source:
        before, after = (model.source[f"seen_{which}"] for which in ("untrained", "trained"))
        is_trained = model.config.views != "companions"
        kept = "" if is_trained else ", and so the detector without it is kept"
        say(
            f"training brought {after - before:+.3f}: AUROC of damaged held-out samples is "
            f"{after:.3f} with it and {before:.3f} without{kept}"
        )


def _how_sure(calibration: Calibration) -> str:
    """Say with what confidence the rate is kept, where it is not one on average."""
    sure = calibration.confidence
    return f" at most, with a confidence of {sure:g}" if sure else ""


def _mention_rate(model: Model, config: Config) -> None:
    """Say where few samples promise no rate as low as is usual, and how many would."""
    from historyad.model.split import samples_for_usual_rate

    rate, usual = model.calibration.false_positive_rate, CONSTANTS.usual_rate
    if not config.false_positive_rate and rate > usual:
        held_out, window = "held-out " * (not model.n_folds), int(model.config.window)
        of = "windows end to end" if window else "samples"
        n, unit = samples_for_usual_rate(model.config), "steps" if window else "samples"
        note(
            f"note: {model.calibration.n_apart} {held_out}{of} can promise no lower rate than "
            f"{rate:.2g}; {n * (window or 1)} {unit} in all promise {usual:g}"
        )


def _mention_groups(model: Model) -> None:
    """Say where a promise rests on fewer groups than it would take samples."""
    n, rate = model.source.get("held_out_groups"), model.calibration.false_positive_rate
    if n is not None and rate * (n + 1) < 1:
        note(
            f"note: the {model.calibration.n_apart:,} samples of the threshold are of {n} "
            f"group{'s' * (n != 1)}: where those of a group are alike, they promise no lower rate "
            f"than {1 / (n + 1):.2g}"
        )


def _is_set_by_one(model: Model) -> bool:
    """Whether the threshold is the highest held-out score, and that one stands far from all."""
    import numpy as np

    found = model.calibration
    *others, highest = model.excess(np.array(found.scores[-2:]))
    return found.threshold == found.scores[-1] and any(highest > _ALONE * one for one in others)


def _set_aside(names: list[str], out: Path) -> str:
    """Say which samples were set aside, the first few by name."""
    first = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
    return f"{len(names):,} look wrong and were set aside: {first}; see {out / 'suspects.csv'}"


def _normal_source(source: str, category: str | None) -> str:
    """Return where to learn from: train/good of a data set in MVTec's layout, which is said."""
    from historyad.data.folders import normal_part, of_category, refuse_dataset_root

    root = of_category(Path(source), category)
    part = normal_part(root)
    if part is None:
        refuse_dataset_root(root)
        return source
    note(f"{root} is a data set: learning from {part}")
    return str(part)


def calibrate(
    run: Run,
    source: SourceName,
    *,
    false_positive_rate: Annotated[
        float | None, Parameter(help="Share of normal inputs to call anomalous, if it changes.")
    ] = None,
    confidence: Annotated[
        float | None,
        Parameter(help="How sure to be that this detector keeps that rate, if it changes; or 0."),
    ] = None,
    reading: Reading = READING,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Set threshold and p-values anew from normal samples not trained on, without training."""
    from historyad.data.folders import refuse_dataset_root
    from historyad.model.card import renew_card
    from historyad.model.fit import calibrate_model
    from historyad.model.run import RunDirectory

    refuse_dataset_root(Path(source))
    with RunDirectory(run).lock_finished():
        model = load_model(run, device)
        samples = open_for(model, source, reading, skip_unreadable=skip_unreadable)
        report_unreadable(samples)
        renewed = calibrate_model(model, samples, false_positive_rate, confidence)
        renewed.save_calibration(run)
        renew_card(run, renewed.card(run.name))
    before, after = model.calibration, renewed.calibration
    print_table(
        [
            ("calibrated on", f"{len(after.scores):,} samples of {source}{_left_out(renewed)}"),
            ("false positives", f"{after.false_positive_rate:.4g}{_how_sure(after)}"),
            ("threshold", f"{after.threshold:+.4f}, before {before.threshold:+.4f}"),
        ]
    )
    about_calibration(model, model.takes(samples))


def _left_out(model: Model) -> str:
    """Say how many samples a calibration left out."""
    known = (model.calibration_source or {}).get("known", 0)
    return f", without {known:,} that it was trained on" if known else ""
