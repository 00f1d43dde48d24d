"""What a measurement depends on besides settings and data: versions and the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = ("historyad", "torch", "numpy", "safetensors")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def machine(cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name, as the system gives it, and the number of cores.

    Linux tells it in ``cpu_info``; elsewhere the platform's own word has to do.
    """
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
