"""What the service and the model files survive: malformed requests, overload, altered files.

    python benchmarks/service_load.py RUN SOURCE [--check requests|load|files] [--out rows.jsonl]

RUN is a finished fit on images and SOURCE holds images that it accepts; all traffic stays on
127.0.0.1. Prints a table and appends one row of JSON for each check.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import os
import random
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from historyad.calibration import Calibration
from historyad.datasets import open_source, open_stream
from historyad.errors import InputError, RunError
from historyad.model import Model

Row = dict[str, Any]
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
TOLERANCE = 1e-5  # of a score in a batch of another size
N_FILES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("source")
    parser.add_argument("--check", choices=CHECKS, action="append")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    command = shlex.join(["python", "benchmarks/service_load.py", *sys.argv[1:]])
    images = open_source(options.source).samples[:N_FILES]
    for name in options.check or CHECKS:
        for row in CHECKS[name](options, images):
            print_row(row)
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                with options.out.open("a") as file:
                    file.write(json.dumps({**row, "command": command}) + "\n")


def print_row(row: Row) -> None:
    width = max(map(len, row))
    for key, value in row.items():
        print(f"{key:<{width}}  {value}")
    print(flush=True)


def encode(image: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, kind)
    return file.getvalue()


# --- the service under test


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
        """Resident memory in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

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


@contextlib.contextmanager
def service(run: Path, *options: str) -> Iterator[Service]:
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
        self._connection.request("POST", "/score", body, {"Content-Type": kind})
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def form(files: list[bytes]) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + b"--x--\r\n"


MULTIPART = "multipart/form-data; boundary=x"


# --- (a) malformed requests


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or insert some bytes."""
    altered = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        i = rng.randrange(len(altered) + 1)
        n = rng.choice((1, 1, 4, 100))
        action = rng.randrange(4)
        if action == 0:
            altered[i : i + n] = rng.randbytes(n)
        elif action == 1:
            del altered[i : i + n]
        elif action == 2:
            altered[i:i] = altered[max(0, i - n) : i]
        else:
            altered[i:i] = rng.randbytes(n)
    return bytes(altered)


def bomb(rng: random.Random) -> bytes:
    """A small PNG that unpacks to as many pixels as it says, or says so only."""
    width, height = rng.choice(((6000, 6000), (40_000, 40_000), (1, 2**31 - 1), (30_000, 900)))
    rows = min(height, 2000)
    packed = zlib.compress(bytes((width // 8 + 1) * rows)) if width * rows < 10**9 else b""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def post(body: bytes, kind: str = "image/png", length: int | None = None, more: str = "") -> bytes:
    length = len(body) if length is None else length
    head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{more}"
    return f"{head}Content-Length: {length}\r\nConnection: close\r\n\r\n".encode() + body


def mutated_json(rng: random.Random) -> bytes:
    return mutate(b'{"vectors": [[1.5, -2e3, null], [0, true, "x"]]}', rng)


NO_IMAGES = (b"", b"%!PS", b"<svg/>", b"GIF89a", b"\0" * 99, b"\xff\xd8\xff\xe0", bytes(5000))
NO_TYPES = ("", "text/html", "multipart/form-data", "a" * 3000, "/;=\x01", "image", "application/")

# What makes a malformed request out of a valid image.
MALFORMED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "mutated image": lambda image, rng: post(mutate(image, rng)),
    "truncated image": lambda image, rng: post(image[: rng.randrange(len(image))]),
    "not an image": lambda _, rng: post(rng.choice((*NO_IMAGES, rng.randbytes(5000)))),
    "bomb": lambda _, rng: post(bomb(rng)),
    "mutated form": lambda image, rng: post(mutate(form([image] * 3), rng), MULTIPART),
    "mutated JSON": lambda _, rng: post(mutated_json(rng), "application/json"),
    "wrong type": lambda image, rng: post(image, rng.choice(NO_TYPES)),
    "wrong length": lambda image, rng: post(
        image, length=rng.choice((0, 1, len(image) + 9, 10**12, 10**30, -1))
    ),
    "huge headers": lambda image, rng: post(
        image, more="".join(f"X-{i}: {'x' * 900}\r\n" for i in range(rng.choice((30, 300))))
    ),
    "broken HTTP": lambda image, rng: mutate(post(image), rng),
}
INCOMPLETE = ("wrong length", "broken HTTP")  # the service would wait for more


def send(running: Service, request: bytes, half_close: bool) -> str:
    """Return the status of the answer, or that the service closed without one."""
    with socket.create_connection((running.host, running.port), timeout=60) as raw:
        try:
            raw.sendall(request)
            if half_close:
                raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(4096)
        except TimeoutError:
            return "no answer in 60 s"
        except OSError:
            return "closed"
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"


def check_requests(options: argparse.Namespace, images: np.ndarray[Any, Any]) -> Iterator[Row]:
    valid = {kind: encode(images[0], kind) for kind in FORMATS}
    counts: dict[str, collections.Counter[str]] = {
        kind: collections.Counter() for kind in MALFORMED
    }
    with service(options.run) as running:
        expected = Model.load(options.run).anomaly_score(images[:1])[0]
        for _ in range(300):
            Client(running).post(valid["PNG"], "image/png")
        before, running.peak = running.memory(), 0.0

        def one(i: int) -> None:
            rng = random.Random(i)
            kind = list(MALFORMED)[i % len(MALFORMED)]
            request = MALFORMED[kind](valid[rng.choice(FORMATS)], rng)
            counts[kind][send(running, request, kind in INCOMPLETE)] += 1

        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(options.requests)))
        seconds = time.monotonic() - started
        status, body = Client(running).post(valid["PNG"], "image/png")
        right = abs(json.loads(body)["results"][0]["anomaly_score"] - expected) < TOLERANCE
        total: collections.Counter[str] = sum(counts.values(), collections.Counter())
        yield {
            "check": f"{options.requests:,} malformed requests",
            "statuses": dict(sorted(total.items())),
            **{kind: dict(sorted(count.items())) for kind, count in counts.items()},
            "5xx other than 503": sum(n for s, n in total.items() if s[0] == "5" and s != "503"),
            "right answer afterwards": bool(status == 200 and right),
            "memory before, MB": round(before),
            "memory growth, MB": round(running.memory() - before),
            "memory growth at its peak, MB": round(running.peak - before),
            "seconds": round(seconds, 1),
            "exit status after SIGTERM": running.stop(),
        }


# --- (b) overload


def score_rate(run: Path, folder: Path) -> tuple[float, float]:
    """Return images per second, and CPU seconds per image, of what ``historyad score`` does."""
    model = Model.load(run)
    for _ in range(3):  # of which the last counts
        started, cpu = time.monotonic(), time.process_time()
        n = sum(
            len(model.anomaly_score(chunk)) for _, chunk in open_stream(str(folder)).chunks(1024)
        )
    return n / (time.monotonic() - started), (time.process_time() - cpu) / n


@dataclasses.dataclass
class Load:
    """What one client saw."""

    latencies: list[float] = dataclasses.field(default_factory=list)
    refused: int = 0
    wrong: int = 0


Request = tuple[bytes, str, np.ndarray[Any, Any]]  # body, content type, scores


def requests_of(files: list[bytes], scores: np.ndarray[Any, Any], size: int) -> list[Request]:
    parts = [slice(i, i + size) for i in range(0, len(files) - size + 1, size)]
    if size == 1:
        return [(files[part][0], "image/png", scores[part]) for part in parts]
    return [(form(files[part]), MULTIPART, scores[part]) for part in parts]


def drive(
    running: Service, requests: list[Request], calibration: Calibration, gap: float, end: float
) -> Load:
    """Send one of the requests each ``gap`` seconds or, when late, at once."""
    seen, client = Load(), Client(running)
    rng = random.Random(threading.get_ident())
    due = time.monotonic() + gap * rng.random()
    while (now := time.monotonic()) < end:
        if now < due:
            time.sleep(due - now)
        due += gap
        body, kind, scores = rng.choice(requests)
        started = time.monotonic()
        status, answer = client.post(body, kind)
        if status == 503:
            seen.refused += 1
        else:
            seen.latencies.append(time.monotonic() - started)
            results = json.loads(answer).get("results", []) if status == 200 else []
            seen.wrong += not is_right(results, scores, calibration)
    return seen


def is_right(results: list[Row], scores: np.ndarray[Any, Any], calibration: Calibration) -> bool:
    """Whether the scores are those of Python, and p-values and verdicts follow from them."""
    found = np.array([result["anomaly_score"] for result in results], np.float32)
    return (
        len(found) == len(scores)
        and bool((np.abs(found - scores) < TOLERANCE).all())
        and [result["p_value"] for result in results] == calibration.p_value(found).tolist()
        and [r["is_anomalous"] for r in results] == (found > calibration.threshold).tolist()
    )


def check_load(options: argparse.Namespace, images: np.ndarray[Any, Any]) -> Iterator[Row]:
    files = [encode(image) for image in images]
    model = Model.load(options.run)
    scores, calibration = model.anomaly_score(images), model.calibration
    with tempfile.TemporaryDirectory() as folder:
        for i, file in enumerate(files):
            (Path(folder) / f"{i:06}.png").write_bytes(file)
        capacity, score_cpu = score_rate(options.run, Path(folder))
    for size in (32, 1):
        requests = requests_of(files, scores, size)
        gap = options.clients * size / (2 * capacity)
        with service(options.run) as running:
            drive(running, requests, calibration, 0.0, time.monotonic() + 3)
            before, running.peak = running.memory(), 0.0
            started, cpu = time.monotonic(), running.cpu()
            end = started + options.seconds
            with ThreadPoolExecutor(options.clients) as pool:
                clients = [
                    pool.submit(drive, running, requests, calibration, gap, end)
                    for _ in range(options.clients)
                ]
            seen = [client.result() for client in clients]
            seconds, cpu = time.monotonic() - started, running.cpu() - cpu
            latencies = np.concatenate([load.latencies for load in seen])
            refused = sum(load.refused for load in seen)
            rate = len(latencies) * size / seconds
            p50, p99 = np.quantile(latencies, (0.5, 0.99))
            yield {
                "check": f"{options.clients} clients, {size} image(s) in a request",
                "score's rate, images/s": round(capacity),
                "offered, images/s": round((len(latencies) + refused) * size / seconds),
                "accepted, images/s": round(rate),
                "accepted / score's rate": round(rate / capacity, 2),
                "score's CPU, ms/image": round(1000 * score_cpu, 2),
                "service's CPU, ms/image": round(1000 * cpu / (len(latencies) * size), 2),
                "answered": len(latencies),
                "answered 503": refused,
                "wrong answers": sum(load.wrong for load in seen),
                "median of the accepted, s": round(float(p50), 3),
                "p99 of the accepted, s": round(float(p99), 3),
                "memory growth at its peak, MB": round(running.peak - before),
                "seconds": round(seconds, 1),
                "exit status after SIGTERM": running.stop(),
            }


# --- (c) altered model files


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in nested JSON but those of long lists."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(3, len(value))):
            yield from leaves(value[i], (*path, i))


def alter_json(content: Any, rng: random.Random) -> Any:
    """Replace or remove one value anywhere."""
    content = json.loads(json.dumps(content))
    *place, last = rng.choice([path for path in leaves(content) if path])
    inner = content
    for key in place:
        inner = inner[key]
    if rng.random() < 0.2:
        del inner[last]
        return content
    odd = (
        None,
        True,
        -1,
        0,
        1,
        7,
        32,
        2**40,
        10**400,
        1e308,
        "",
        "x",
        "cpu",
        [],
        [1],
        {},
        "\ud800",
    )
    inner[last] = rng.choice(odd)
    return content


def alter_files(source: Path, folder: Path, rng: random.Random) -> str:
    """Write an altered copy of the model into ``folder``; return what was done."""
    json_bytes = (source / "detector.json").read_bytes()
    tensors = (source / "detector.safetensors").read_bytes()
    content = json.loads(json_bytes)
    kind = rng.choice(("json bytes", "tensor bytes", "json, checksum mended", "header, mended"))
    if kind == "json bytes":
        json_bytes = mutate(json_bytes, rng)
    elif kind == "tensor bytes":
        tensors = mutate(tensors, rng)
    else:
        if kind == "header, mended":
            n = 8 + int.from_bytes(tensors[:8], "little")
            tensors = mutate(tensors[:n], rng) + tensors[n:]
            content["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
        else:
            content = alter_json({k: v for k, v in content.items() if k != "sha256"}, rng)
        content.pop("sha256", None)
        checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        json_bytes = json.dumps({**content, "sha256": checksum}).encode()
    (folder / "detector.json").write_bytes(json_bytes)
    (folder / "detector.safetensors").write_bytes(tensors)
    return kind


FORBIDDEN = ("exec", "compile", "pickle.find_class", "os.system", "subprocess.Popen", "os.exec")


def check_files(options: argparse.Namespace, images: np.ndarray[Any, Any]) -> Iterator[Row]:
    expected = Model.load(options.run).anomaly_score(images[:4])
    executed: list[str] = []
    armed = False

    def audit(event: str, _: Any) -> None:
        if armed and event in FORBIDDEN:
            executed.append(event)

    sys.addaudithook(audit)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    slowest = 0.0
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        for i in range(options.files):
            kind = alter_files(options.run, Path(temporary), random.Random(i))
            started = time.monotonic()
            signal.alarm(30)  # a hang would end here
            armed = True
            outcome = try_model(Path(temporary), images[:4], expected)
            armed = False
            signal.alarm(0)
            slowest = max(slowest, time.monotonic() - started)
            counts[kind][outcome] += 1
    yield {
        "check": f"{options.files:,} altered model files",
        **{kind: dict(count) for kind, count in sorted(counts.items())},
        "code executed": dict(collections.Counter(executed)),
        "slowest, s": round(slowest, 2),
    }


def try_model(folder: Path, images: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> str:
    try:
        scores = Model.load(folder).anomaly_score(images)
    except RunError:
        return "refused"
    except InputError:
        return "refuses these images"  # since it says that it was fitted on others
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    return "same scores" if (scores == expected).all() else "WRONG: other scores"


CHECKS: dict[str, Callable[..., Iterator[Row]]] = {
    "requests": check_requests,
    "load": check_load,
    "files": check_files,
}

if __name__ == "__main__":
    main()
