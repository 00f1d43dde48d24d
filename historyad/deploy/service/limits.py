"""What the service takes on, and how much of it at once; every limit bounds memory or time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from cyclopts import Parameter

from historyad.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """The limits of `historyad.deploy.service.app.create_app` and of ``historyad serve``."""

    token: Annotated[
        str | None,
        Parameter(
            help="Ask for this bearer token; better given in the environment, where others do not "
            "see it.",
            env_var="HISTORYAD_TOKEN",
            show_env_var=True,
        ),
    ] = None
    max_body_bytes: Annotated[int, Parameter(help="Largest request body.")] = 32 * 2**20
    max_files: Annotated[int, Parameter(help="Most images or vectors in one request.")] = 64
    max_pixels: Annotated[
        int, Parameter(help="Most pixels of an image, looked up before it is decoded.")
    ] = 25_000_000
    max_work_pixels: Annotated[
        int,
        Parameter(
            help="Pixels worked on at the same time by a detector that takes images of any size "
            "(--patch, --backbone), whose work "
            "grows with the image; more are answered 503. Set it to what is scored within the "
            "deadline: two cores manage about a million pixels a second. An image of more is "
            "refused, unless those of the fit were as large."
        ),
    ] = 2**22
    max_requests: Annotated[
        int, Parameter(help="Requests worked on at the same time; more are answered 503.")
    ] = 32
    max_samples: Annotated[
        int, Parameter(help="Samples worked on at the same time; more are answered 503.")
    ] = 256
    batch_size: Annotated[int, Parameter(help="Most samples scored in one call.")] = 128
    decode_threads: Annotated[int, Parameter(help="Threads that decode images.")] = 2
    decode_seconds: Annotated[
        int,
        Parameter(
            help="Seconds of the processor that an image may take to decode, where its kind bounds "
            "them less."
        ),
    ] = 4
    deadline: Annotated[float, Parameter(help="Seconds after which a request is given up.")] = 10.0
    max_received_bytes: Annotated[
        int,
        Parameter(
            help="Bytes of request bodies that are held at the same time; more are answered 503."
        ),
    ] = 2**27
    max_decoded_bytes: Annotated[
        int,
        Parameter(
            help="Bytes of decoded images, and of maps, that are held at the same time; requests "
            "wait their turn."
        ),
    ] = 2**28
    portion_bytes: Annotated[
        int, Parameter(help="Bytes of decoded images that are scored at a time.")
    ] = 2**25
    allowed_host: Annotated[
        tuple[str, ...],
        Parameter(
            help="Name by which browsers and programs may ask for this service, besides its "
            "addresses, localhost and --host; repeat it for several. With a token, any.",
            negative="",
        ),
    ] = ()

    def __post_init__(self) -> None:
        """Raise ConfigError for a limit that lets nothing through, and for a token that is none."""
        if self.token is not None and not self.token.strip():
            raise ConfigError(
                "the token is empty: set HISTORYAD_TOKEN to letters and digits, or unset it to ask "
                "for none"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("token", "allowed_host") and not value > 0:
                raise ConfigError(f"{field.name} is {value}: it must be above 0")
        if self.max_body_bytes > self.max_received_bytes:
            raise ConfigError(
                f"max_body_bytes ({self.max_body_bytes}) is above max_received_bytes "
                f"({self.max_received_bytes}), so that the largest request would never be read: "
                "lower the one or raise the other"
            )
        if self.max_files > self.max_samples:
            raise ConfigError(
                f"max_files ({self.max_files}) is above max_samples ({self.max_samples}), so that "
                "the largest request would never be scored: lower the one or raise the other"
            )
