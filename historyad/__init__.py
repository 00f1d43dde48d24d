"""Anomaly detection from normal examples alone.

>>> from historyad import HistoryAD
>>> detector = HistoryAD().fit("digits:train")  # doctest: +SKIP
>>> detector.anomaly_score("digits:test")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from historyad.config import PRESETS, Config
    from historyad.data.datasets import open_source
    from historyad.data.sources import Source
    from historyad.model.estimator import HistoryAD
    from historyad.model.fit import fit_model
    from historyad.model.model import Model

__version__ = "0.1.0"

_HOMES = {
    "Config": "config",
    "HistoryAD": "model.estimator",
    "Model": "model.model",
    "PRESETS": "config",
    "Source": "data.sources",
    "fit_model": "model.fit",
    "open_source": "data.datasets",
}
__all__ = ["PRESETS", "Config", "HistoryAD", "Model", "Source", "fit_model", "open_source"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `historyad --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'historyad' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"historyad.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, whether they have been used or not."""
    return sorted([*__all__, "__version__"])
