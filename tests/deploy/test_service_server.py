import collections
import contextlib
import itertools
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import encoded, form, serving, serving_process
from tiny import tiny_config

from historyad.cli import main
from historyad.data.datasets import open_source
from historyad.deploy.service import connections
from historyad.deploy.service.server import listen
from historyad.errors import InputError
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "run"
    fit_model(open_source(digits[0][:400]), tiny_config(), RunDirectory(folder))
    return folder


@pytest.fixture(scope="module")
def model(run):
    return Model.load(run)


@pytest.fixture(scope="module")
def png(digits):
    return encoded(digits[0][0])


# --- the address


def test_a_port_that_is_taken_is_named(run, capsys):
    listener, url = listen("127.0.0.1", 0)
    with listener:
        port = url.rpartition(":")[2]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1, port {port}"):
            listen("127.0.0.1", int(port))
        assert main(["serve", str(run), "--port", port]) == 2
        assert f"port {port}" in capsys.readouterr().err
    with pytest.raises(InputError, match="there is no port 70000"):
        listen("127.0.0.1", 70_000)


def test_an_ipv6_address_is_written_in_brackets():
    with contextlib.suppress(InputError):  # a machine without IPv6
        listener, url = listen("::1", 0)
        listener.close()
        assert url == f"http://[::1]:{url.rpartition(':')[2]}"


def test_the_command_listens_on_this_machine_alone(run, png):
    with serving_process(run, HISTORYAD_TOKEN="sesame") as (_, client):
        assert client.base_url.host == "127.0.0.1"
        assert client.post("/score", content=png, headers=PNG).status_code == 401
        headers = {**PNG, "Authorization": "Bearer sesame"}
        assert client.post("/score", content=png, headers=headers).status_code == 200


# --- connections


def connect(client):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)


def test_headers_without_end_are_refused(model):
    with serving(model) as client, connect(client) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 50_000)
        assert raw.recv(100).startswith(b"HTTP/1.1 400")


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("begin", [b"", HEALTH[:-2], HEALTH + b"G"])
def test_a_connection_without_a_whole_request_is_closed(model, begin):
    with serving(model, deadline=0.1) as client, connect(client) as raw:
        raw.sendall(begin)
        received = raw.makefile("rb").read()  # up to the end
        assert received.startswith(b"HTTP/1.1 200") == begin.startswith(HEALTH)


def test_a_client_that_reads_no_answer_is_cut_off(model):
    requests = itertools.repeat(HEALTH.replace(b"healthz", b"page.js"))
    with serving(model, deadline=0.1) as client, connect(client) as raw:
        with pytest.raises(ConnectionError):
            collections.deque(map(raw.sendall, requests), 0)  # as many as it takes
        assert client.get("/healthz").status_code == 200


def test_idle_connections_make_room_for_others(model, png, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 8)
    with serving(model) as client, contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(client)) for _ in range(20)]
        answer = client.post("/score", content=png, headers=PNG)
        assert answer.status_code == 200
        assert [raw.recv(1) for raw in held[:10]] == [b""] * 10
        held[-1].sendall(HEALTH)
        assert held[-1].recv(100).startswith(b"HTTP/1.1 200")


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_what_it_accepted(run, png, number):
    with serving_process(run) as (process, client), ThreadPoolExecutor(8) as pool:
        client.get("/readyz")
        files = form([("a.png", png)] * 40)
        asked = [pool.submit(client.post, "/score?map=1", files=files) for _ in range(4)]
        while "historyad_queue_samples 0.0" in client.get("/metrics").text:
            time.sleep(0.005)
        process.send_signal(number)
        answers = [answer.result() for answer in asked]
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert all(len(a.json()["results"]) == 40 for a in answers if a.status_code == 200)
    assert 200 in {answer.status_code for answer in answers}
