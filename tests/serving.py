"""A real service on a free port, for the tests of the service and of its page."""

import io
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import httpx
import numpy as np
from PIL import Image

from historyad.deploy.service.limits import Limits
from historyad.deploy.service.server import listen, make_server
from historyad.model.model import Model


@contextmanager
def serving(model, **settings):
    """Serve from a thread; yield a client that knows the address."""
    listener, url = listen("127.0.0.1", 0)
    server = make_server(model, Limits(**settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            while not server.started and thread.is_alive():
                thread.join(0.01)
            yield client
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving_process(*arguments, **environment):
    """Serve with ``historyad serve``; yield the process and a client."""
    process = subprocess.Popen(
        [sys.executable, "-m", "historyad", "serve", *map(str, arguments), "--port=0"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, process.stderr.read()
        with httpx.Client(base_url=found[0], timeout=30, trust_env=False) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(np.squeeze(image)).save(file, kind, **options)
    return file.getvalue()


def form(files):
    return [("files", (name, data)) for name, data in files]


@dataclass(frozen=True)
class HeldModel(Model):
    """A model that scores only while its gate is open."""

    gate: threading.Event = field(default_factory=threading.Event)
    at_work: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, model):
        held = cls(**{part.name: getattr(model, part.name) for part in fields(model)})
        held.gate.set()
        return held

    def hold(self):
        self.gate.clear()
        self.at_work.clear()

    def anomaly_score(self, samples):
        self.at_work.set()
        assert self.gate.wait(20)
        return super().anomaly_score(samples)
