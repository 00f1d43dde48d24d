"""Recordings as pictures of their loudness by frequency and time, seen whole."""

from __future__ import annotations

from typing import ClassVar

from historyad.kinds.whole import Whole
from historyad.score.companions import ImageCompanions
from historyad.score.sounds import SoundCompanions


class Sounds(Whole):
    """Pictures of recordings: what images have, and a view of their spectrum."""

    name: ClassVar[str] = "sounds"
    companions: ClassVar[type[ImageCompanions]] = SoundCompanions
