"""Options of a source that is scored in parts, and what becomes of them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from historyad.cli.common import USER_ERROR, Address, Engine, report_left_out
from historyad.cli.console import note, say
from historyad.cli.rows import summary
from historyad.errors import InputError
from historyad.names import without_keys

if TYPE_CHECKING:
    from historyad.deploy.parts import Job, Part


@dataclass(frozen=True)
class PartOptions:
    """How a source is scored in parts."""

    shard: Annotated[
        str | None,
        Parameter(help="Score one part of several, 0/10 to 9/10, each perhaps on its own machine."),
    ] = None
    engine: Engine | None = None
    address: Address = None
    actors: Annotated[
        int,
        Parameter(
            help="Processes of the engine that score; 0: one for each accelerator or core.",
            validator=validators.Number(gte=0),
        ),
    ] = 0
    file_format: Annotated[
        Literal["parquet", "csv", "jsonl"] | None,
        Parameter(name="--format", help="Of the part files; parquet unless given."),
    ] = None

    @property
    def is_asked_for(self) -> bool:
        """Whether there are parts at all."""
        return self.shard is not None or self.engine is not None

    def check(self, source: str) -> None:
        """Raise InputError for options that would have no effect, or that ``source`` needs."""
        if "://" in source and self.engine is None:
            raise InputError(
                f"{without_keys(source)} is an address, and an engine reads it: give --engine ray "
                "and --out"
            )
        if self.shard is not None and self.engine is not None:
            raise InputError("--shard scores one part here, --engine all: leave out one of them")
        if self.file_format is not None and not self.is_asked_for:
            raise InputError("--format is that of part files: give --shard or --engine with it")
        if self.engine is None:
            if self.actors:
                raise InputError("--actors are processes of an engine: give --engine with it")
            if self.address not in (None, os.environ.get("RAY_ADDRESS")):
                raise InputError("--address is that of an engine: give --engine with it")


def score_parts(job: Job, out: str, options: PartOptions, device: str, *, strict: bool) -> int:
    """Score one part, or all on an engine; say what became of them and return the exit status."""
    from historyad.deploy.many import score_dataset
    from historyad.deploy.objects import is_address
    from historyad.deploy.parts import score_shard

    def on_part(part: Part) -> None:
        for name, reason in part.unreadable:
            say(f"historyad: skipped {name}: {reason}", file=sys.stderr)
        note(f"part {part.number}: {part.scored:,} scored")

    if is_address(job.source):
        return _score_objects(job, out, options, device, strict=strict)
    if options.shard is None:
        parts = score_dataset(
            job,
            address=options.address,
            actors=options.actors,
            device=device,
            on_part=on_part,
            on_open=report_left_out,
        )
    else:
        number, slash, of = options.shard.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and int(of)):
            raise InputError(f"'{options.shard}' is no shard: write 0/10 for the first of ten")
        job = replace(job, parts=int(of))
        parts = [score_shard(job, int(number), device=device, on_open=report_left_out)]
        on_part(parts[0])
    unreadable = sum(len(part.unreadable) for part in parts)
    scored, anomalous = (sum(getattr(part, n) for part in parts) for n in ("scored", "anomalous"))
    note(f"{summary(scored, anomalous, unreadable)}; in {job.out}")
    return USER_ERROR if strict and unreadable else 0


def _score_objects(job: Job, out: str, options: PartOptions, device: str, *, strict: bool) -> int:
    """Score what an address names, on the engine; say what became of it."""
    from historyad.deploy.objects import score_objects

    if options.file_format not in (None, "parquet"):
        raise InputError(
            f"{without_keys(job.source)} is an address, and an engine reads it and writes Parquet: "
            "leave out --format"
        )
    found = score_objects(job, out, address=options.address, actors=options.actors, device=device)
    counts = (found[name] for name in ("scored", "anomalous", "unreadable"))
    note(f"{summary(*counts)}; in {without_keys(out)}")
    return USER_ERROR if strict and found["unreadable"] else 0
