"""The service under test, in a process of its own, and what a client sends to it."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TOLERANCE = 1e-5  # of a score in a batch of another size


class Service:
    """``historyad serve`` in a process of its own, and a watch on its memory."""

    def __init__(self, run: Path, *options: str) -> None:
        command = [sys.executable, "-m", "historyad", "serve", str(run), "--port=0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://([\d.]+):(\d+)", line)
        if not found:
            raise SystemExit(f"the service did not start: {line}")
        self.host, self.port = found[1], int(found[2])
        self.peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def memory(self) -> float:
        """Resident memory in MB, that of the processes it started included."""
        own = Path(f"/proc/{self.process.pid}")
        with contextlib.suppress(OSError):  # of one that has just ended
            started = (own / "task" / own.name / "children").read_text().split()
            return sum(map(_resident, [own.name, *started]))
        return _resident(own.name)

    def cpu(self) -> float:
        """Seconds of processor time so far, all threads together."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _watch(self) -> None:
        with contextlib.suppress(OSError, IndexError):  # until the process has gone
            while True:
                self.peak = max(self.peak, self.memory())
                time.sleep(0.02)

    def stop(self) -> int:
        """End it with SIGTERM; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def _resident(process: str) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


@contextlib.contextmanager
def service(run: Path, *options: str) -> Iterator[Service]:
    """Yield a service that is up, and kill it afterwards."""
    running = Service(run, *options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


class Client:
    """One connection that is kept, and opened again when the service closed it."""

    def __init__(self, running: Service) -> None:
        self._connection = http.client.HTTPConnection(running.host, running.port, timeout=60)

    def post(self, body: bytes, kind: str) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        self._connection.request("POST", "/score", body, {"Content-Type": kind})
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def form(files: list[bytes]) -> bytes:
    """Return a form that uploads the files."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + b"--x--\r\n"


MULTIPART = "multipart/form-data; boundary=x"


def encode(image: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    """Return a file of the image (H, W, C)."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, kind)
    return file.getvalue()
