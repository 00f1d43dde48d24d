"""A recording as a picture: the loudness of 64 bands of frequencies in 64 parts of its time.

====================================  ============================================================
recording                             picture
====================================  ============================================================
any rate                              bands, equally wide in mel, from 0 to 8 kHz; above half of the
                                      rate there is silence
any length                            64 parts, as long as each comes out; at least a hundredth of a
                                      second in all
16, 24, 32 bits, float                full scale is 1
several channels                      their mean
loudness                              -100 dB of full scale is black, 0 dB is white: the power in
                                      a band, of frames of 25 milliseconds
====================================  ============================================================

High bands are at the top. What is said of a picture, also where it is odd, is said of the sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from historyad.errors import InputError
from historyad.extras import require

SOUNDS = (".wav",)
HEAD = 12  # bytes of a file that say whether it is one
_HEADER = 1 << 12  # bytes in which its rate stands
SIDE = 64  # bands, and parts of the time
_HIGHEST = 8000.0  # Hz
FULL_RATE = 16_000  # Hz, from which on all of that is heard
_FRAME = 0.025  # seconds
_SHORTEST = 0.01
_STEP = 10.0  # Hz between two frequencies of a spectrum, at most
_QUIETEST = -100.0  # dB
_MOST_CHANNELS = 64
_FULL, _MOST_CLIPPED = 0.9999, 0.25  # of full scale, and the share of samples that may reach it
_FRAMES_AT_ONCE = 1 << 10


def is_sound(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a recording."""
    return head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def heard_rate(head: bytes) -> int | None:
    """Return the rate in Hz of a recording by its first bytes, at most `FULL_RATE`; None of others.

    Of a lower one, high bands of the picture are silent.
    """
    head = head[:_HEADER]
    place = head.find(b"fmt ", 12)
    if not is_sound(head) or not 0 < place <= len(head) - 16:
        return None
    return min(int.from_bytes(head[place + 12 : place + 16], "little"), FULL_RATE)


def rate_of_all(paths: Sequence[Path]) -> int | None:
    """Return the `heard_rate` of recordings, None where there are none.

    InputError where it is not the same of all. What cannot be read has none.
    """
    found: dict[int, Path] = {}
    for path in paths:
        if path.suffix.lower() not in SOUNDS:
            continue
        with suppress(OSError), path.open("rb") as file:
            if rate := heard_rate(file.read(_HEADER)):
                found.setdefault(rate, path)
    if len(found) > 1:
        (low, one), (high, other) = sorted(found.items())[:2]
        raise InputError(
            f"{one.name} is at {low:,} Hz and {other.name} at {high:,} Hz: nothing above "
            f"{low // 2:,} Hz is heard of the first, and that alone would tell them apart; bring "
            "all to one rate"
        )
    return next(iter(found), None)


def check_rate(rate: int | None, fitted: int | None, what: str) -> None:
    """Raise InputError for recordings, ``what``, at another rate than those that were fitted on."""
    if rate and fitted and rate != fitted:
        raise InputError(
            f"{what} is at {rate:,} Hz, and the detector was fitted on recordings at {fitted:,} Hz "
            f"or more: bring it to that rate, or fit on recordings that are at {rate:,} Hz, too"
        )


def read_sound(stream: BinaryIO, name: str, *, max_samples: int) -> NDArray[np.uint8]:
    """Return the picture of a recording, uint8 (64, 64, 1); InputError where it cannot be had."""
    soundfile = require("soundfile", name, "sound")
    try:
        with soundfile.SoundFile(stream) as file:
            _check(name, file.frames, file.samplerate, file.channels, max_samples)
            samples = file.read(dtype="float32", always_2d=True)
            rate = file.samplerate
    except InputError:
        raise
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise InputError(
            f"{name} cannot be read as a recording ({getattr(error, 'error_string', error)}); "
            "save it again as .wav"
        ) from error
    if not np.isfinite(samples).all():
        raise InputError(f"{name} holds values that are no numbers: save it again")
    clipped = float((np.abs(samples) >= _FULL).mean())
    if clipped > _MOST_CLIPPED:
        raise InputError(
            f"{name} is clipped: {clipped:.0%} of its samples are at full scale; record it more "
            "quietly, or leave it out"
        )
    return picture_of(samples.mean(1), rate)


def _check(name: str, n: int, rate: int, channels: int, most: int) -> None:
    """Raise InputError for a recording that is too short or too large, before it is read."""
    if n < _SHORTEST * rate:
        raise InputError(
            f"{name} holds {n} samples at {rate} Hz, less than {_SHORTEST:g} seconds: leave it out"
        )
    if n * channels > most or channels > _MOST_CHANNELS:
        raise InputError(
            f"{name} holds {n:,} samples of {channels} channels, more than {most:,} or "
            f"{_MOST_CHANNELS} channels: cut it into pieces of some seconds"
        )


def picture_of(samples: NDArray[np.floating], rate: int) -> NDArray[np.uint8]:
    """Return the picture of samples (n,) in [-1, 1], uint8 (64, 64, 1)."""
    power = part_powers(samples, rate)
    loudness = 10 * np.log10(np.maximum(power, 10 ** (_QUIETEST / 10)))
    grey = np.rint(np.clip(255 * (1 - loudness / _QUIETEST), 0, 255)).astype(np.uint8)
    return grey.T[::-1, :, None].copy()


def part_powers(samples: NDArray[np.floating], rate: int) -> NDArray[np.float64]:
    """Return the mean power of samples (n,) in each part of the time and band, (64, 64).

    A sine of amplitude 1 has a power of a half, in all bands together.
    """
    length = min(len(samples), max(2, round(_FRAME * rate)))
    n_frames = SIDE * max(1, round((len(samples) - length) / (SIDE * length / 2)))
    starts = np.linspace(0, len(samples) - length, n_frames).astype(int)
    taper = np.hanning(length + 2)[1:-1]
    size = 1 << int(np.ceil(np.log2(max(length, rate / _STEP))))
    bands = mel_bands(size, rate) * (2 / (size * np.square(taper).sum()))
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)
    powers = np.empty((n_frames, SIDE))
    for first in range(0, n_frames, _FRAMES_AT_ONCE):
        some = slice(first, first + _FRAMES_AT_ONCE)
        spectra: Any = np.fft.rfft(frames[starts[some]] * taper, size)
        powers[some] = np.square(np.abs(spectra)) @ bands
    found: NDArray[np.float64] = powers.reshape(SIDE, -1, SIDE).mean(1)
    return found


def mel_bands(size: int, rate: int) -> NDArray[np.float64]:
    """Return what adds the frequencies of a spectrum up to bands, (size // 2 + 1, 64).

    Bands are triangles that overlap by half; below the first middle and up to the last one, they
    share every frequency.
    """
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    highest = 2595 * np.log10(1 + _HIGHEST / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, SIDE + 2) / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - low) / (middle - low)
    falling = (high - frequencies[:, None]) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))
