"""Packages of the extras, imported where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from historyad.errors import InputError


def require(package: str, purpose: str, extra: str, remedy: str = "") -> Any:
    """Return a module; InputError says that ``purpose`` needs it, and which ``extra`` brings it.

    ``remedy`` may add what else would do.
    """
    try:
        return import_module(package)
    except ImportError as error:
        missing = error.name or package
        raise InputError(
            f"{purpose} needs {missing}: install historyad[{extra}]{remedy}"
        ) from error
