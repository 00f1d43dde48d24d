"""What one client may hold of the service's time and memory, and who waits for it."""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import hostile
import pytest
from serving import HeldModel, encoded, form, serving, serving_process
from tiny import tiny_config

from historyad.data.datasets import open_source
from historyad.deploy.service.answers import HeldAnswer
from historyad.deploy.service.batcher import QueueFullError
from historyad.deploy.service.budget import Budget, give_memory_back
from historyad.deploy.service.lanes import Lane
from historyad.deploy.service.limits import Limits
from historyad.errors import ConfigError
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory

PNG = {"Content-Type": "image/png"}
LARGE = hostile.png(4900, 4900)


@pytest.fixture(scope="module")
def runs(digits, tmp_path_factory):
    """Models of digits: of their size alone, and of any."""
    found = {}
    for name, image_size in (("one", 0), ("any", 8)):
        folder = tmp_path_factory.mktemp(name) / "run"
        config = tiny_config(image_size=image_size)
        fit_model(open_source(digits[0][:400]), config, RunDirectory(folder))
        found[name] = folder
    return found


@pytest.fixture(scope="module")
def model(runs):
    return Model.load(runs["one"])


@pytest.fixture(scope="module")
def of_any_size(runs):
    return Model.load(runs["any"])


@pytest.fixture(scope="module")
def png(digits):
    return encoded(digits[0][0])


def post(client, content):
    return client.post("/score", content=content, headers=PNG)


# --- budgets


def test_a_budget_gives_what_there_is_in_turn():
    async def use():
        budget, order = Budget(10), []

        async def hold(name, n):
            async with budget.holding(n):
                order.append(name)
                await asyncio.sleep(0.01)
                order.append(name)

        budget.take(6)
        waiting = [asyncio.create_task(hold(name, n)) for name, n in [("a", 5), ("b", 4)]]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):  # others come first, though there would be room
            budget.take(1)
        assert order == []  # also b, which would fit, waits its turn
        budget.give_back(6)
        await asyncio.gather(*waiting)
        assert order == ["a", "b", "a", "b"]
        budget.take(10)
        with pytest.raises(QueueFullError):
            budget.take(1)
        budget.give_back(10)
        await hold("more than there is", 10**9)  # alone
        budget.take(10)

    asyncio.run(use())


def test_who_gives_up_waiting_takes_nothing():
    async def use():
        budget = Budget(10)
        budget.take(8)
        first = asyncio.create_task(budget.take_in_turn(10))
        second = asyncio.create_task(budget.take_in_turn(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first, second], timeout=1)
        assert second.done()  # since nobody waits before it any more
        late = asyncio.create_task(budget.take_in_turn(5))
        await asyncio.sleep(0)
        budget.give_back(8)  # its turn comes
        late.cancel()  # and so does the end of its time
        await asyncio.wait([late])
        assert late.cancelled()
        budget.take(8)

    asyncio.run(use())


def test_small_bodies_do_not_count():
    budget = Budget(1000)
    budget.take(1000)
    with budget.counting() as count:
        count(2**15)
        count(2**15)
        with pytest.raises(QueueFullError):
            count(1)
    budget.give_back(1000)
    with contextlib.suppress(RuntimeError), budget.counting() as count:
        count(2**16 + 600)
        with pytest.raises(QueueFullError):
            budget.take(401)
        raise RuntimeError  # however it ends
    budget.take(1000)


def test_memory_can_be_given_back():
    give_memory_back()


def test_a_body_that_could_never_be_read_is_refused():
    with pytest.raises(ConfigError, match="the largest request would never be read"):
        Limits(max_body_bytes=2**28)


# --- bodies


def withhold(client, stack, n):
    """Send a body of ``n`` bytes but its end, and return the connection."""
    address = (client.base_url.host, client.base_url.port)
    raw = stack.enter_context(socket.create_connection(address, timeout=20))
    head = "POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    raw.sendall(f"{head}Content-Length: {n}\r\n\r\n".encode() + bytes(n - 1))
    return raw


def test_bodies_that_are_withheld_keep_only_large_ones_waiting(model, png):
    settings = {"max_received_bytes": 10**6, "max_body_bytes": 10**6, "max_requests": 1}
    with serving(model, deadline=60.0, **settings) as client, contextlib.ExitStack() as stack:
        held, large = [], png + bytes(300_000)
        # Two fill the room, unless one is refused because a large body has come in between.
        while (answer := post(client, large)).status_code == 200:
            held.append(withhold(client, stack, 500_000))
            time.sleep(0.1)
            assert len(held) < 10
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.headers["Connection"] == "close"
        assert post(client, png).status_code == 200
        for raw in held:
            raw.close()
        while post(client, large).status_code == 503:
            time.sleep(0.01)
        assert post(client, large).status_code == 200


# --- images


def test_images_that_take_long_delay_only_their_like(of_any_size, png, digits):
    bad = hostile.many_scans()
    settings = {"deadline": 4.0, "decode_seconds": 100, "decode_threads": 1}
    with serving(of_any_size, **settings) as client, ThreadPoolExecutor(4) as pool:
        post(client, encoded(digits[0][0], "TIFF"))
        asked = [pool.submit(post, client, bad) for _ in range(3)]
        readiness = []
        while not all(answer.done() for answer in asked):
            started = time.monotonic()
            assert post(client, png).status_code == 200
            assert time.monotonic() - started < 2
            readiness.append(client.get("/readyz").status_code)
        assert {200, 503} == set(readiness)
        assert [answer.result().status_code for answer in asked] == [503] * 3
        assert post(client, encoded(digits[0][0], "TIFF")).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_an_image_that_takes_long_is_an_error_of_its_own(of_any_size, png, digits):
    files = form([("a", png), ("b", hostile.many_scans()), ("c", encoded(digits[0][1], "TIFF"))])
    with serving(of_any_size, decode_seconds=1, deadline=30.0) as client:
        first, second, third = client.post("/score", files=files).json()["results"]
        assert "b takes more than 1 s of the processor to decode" in second["error"]
        assert "anomaly_score" in first
        assert "anomaly_score" in third


def test_images_of_no_use_are_refused_undecoded(model):
    with serving(model) as client:
        files = [(str(i), LARGE) for i in range(8)]
        files.append(("scans", hostile.many_scans()))
        started = time.monotonic()
        results = client.post("/score", files=form(files)).json()["results"]
        assert all("the detector was fitted on 8 x 8 x 1" in r["error"] for r in results)
        assert time.monotonic() - started < 5


def test_images_are_scored_in_portions_that_fit(model, digits, monkeypatch):
    files = [(str(i), encoded(image)) for i, image in enumerate(digits[0][400:410])]
    files.insert(3, ("none", b"no image"))
    with serving(model) as client:
        expected = client.post("/score", files=form(files)).json()["results"]
    held = HeldModel.of(model)
    sizes = []
    monkeypatch.setattr(
        HeldModel,
        "anomaly_score",
        lambda self, samples: sizes.append(len(samples)) or Model.anomaly_score(self, samples),
    )
    with serving(held, max_decoded_bytes=1, portion_bytes=3 * 64) as client:
        results = client.post("/score", files=form(files)).json()["results"]
    assert sizes == [1, 3, 2, 3, 2]  # the first is a warm-up
    for found, wanted in zip(results, expected, strict=True):
        assert found["name"] == wanted["name"]
        assert found.get("error") == wanted.get("error")
        assert found.get("anomaly_score") == pytest.approx(wanted.get("anomaly_score"), abs=1e-5)


def test_room_for_decoded_images_is_waited_for(model, png):
    held = HeldModel.of(model)
    with serving(held, max_decoded_bytes=200) as client, ThreadPoolExecutor(3) as pool:
        held.hold()
        asked = [pool.submit(post, client, png) for _ in range(3)]  # of which each takes 128
        assert held.at_work.wait(20)
        held.gate.set()
        assert [answer.result().status_code for answer in asked] == [200] * 3


def test_maps_have_room_of_their_own_until_they_are_read(model, png):
    most = 3 * 64 * 4  # three maps
    with serving(model, max_decoded_bytes=most, deadline=5.0) as client:
        answer = client.post("/score?map=1", files=form([("a", png)] * 4))
        reason = "the maps are too large together: send fewer images at a time"
        assert (answer.status_code, answer.json()["detail"]) == (413, reason)
        for _ in range(3):  # what was taken is there again
            assert client.post("/score?map=1", files=form([("a", png)] * 3)).status_code == 200
        bad = form([("a", b"no image")])
        assert client.post("/score?map=1", files=bad).status_code == 422
        assert client.post("/score?map=1", files=form([("a", png)] * 3)).status_code == 200


def test_an_answer_is_held_until_all_of_it_was_taken():
    async def answer(send, closed):
        with contextlib.ExitStack() as held:
            held.callback(closed.append, True)
            await HeldAnswer("x" * 600_000, 200, held.pop_all())({}, None, send)

    sent, closed = [], []

    async def send(message):
        assert not closed
        sent.append(message)

    asyncio.run(answer(send, closed))
    assert sent[0]["status"] == 200
    assert (b"content-length", b"600000") in sent[0]["headers"]
    assert b"".join(message.get("body", b"") for message in sent) == b"x" * 600_000
    assert [message.get("more_body") for message in sent] == [None, True, True, False]
    assert closed == [True]

    async def leave(_):
        raise ConnectionError

    closed = []
    with pytest.raises(ConnectionError):
        asyncio.run(answer(leave, closed))
    assert closed == [True]


# --- lanes


def test_a_lane_says_how_long_the_next_in_turn_has_waited():
    async def use():
        lane, gate, begun, called = Lane(1, "test"), threading.Event(), threading.Event(), []
        first = asyncio.create_task(lane.run(lambda: begun.set() or gate.wait()))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        assert lane.waited == 0
        others = [asyncio.create_task(lane.run(lambda i=i: called.append(i))) for i in range(3)]
        await asyncio.sleep(0.05)
        assert lane.waited > 0.04
        others[0].cancel()
        others[2].cancel()
        await asyncio.sleep(0.05)  # the loop tells the threads
        gate.set()
        await asyncio.wait([first, *others])
        assert called == [1]
        assert lane.waited == 0
        lane.close()

    asyncio.run(use())


# --- headers


def ask(client, head):
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=20) as raw:
        raw.sendall(head.encode("latin-1"))
        return raw.makefile("rb").read().decode()  # up to the end


def test_a_body_of_two_lengths_is_refused(model):
    with serving(model) as client:
        for more in ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",):
            answer = ask(
                client, f"POST /score HTTP/1.1\r\nHost: localhost\r\n{more}\r\n0\r\n\r\nGET / x"
            )
            assert answer.startswith("HTTP/1.1 400")
            assert "Content-Length or Transfer-Encoding, not both" in answer
            assert answer.count("HTTP/1.1") == 1
        chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n"
        answer = ask(client, f"POST /score HTTP/1.1\r\nHost: localhost\r\n{chunked}\r\n0\r\n\r\n")
        assert answer.startswith("HTTP/1.1 415")


def test_names_that_others_made_point_here_are_not_answered_for(model):
    def status(client, host):
        head = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        return ask(client, head)[9:12]

    known = ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:80", "192.168.0.7", "box.lan.")
    strange = ("evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "x" * 300, "a:b:c")
    strange += ("127.0.0.1:80, evil.example", "[::1", "[::1].evil.example", "localhost:evil")
    with serving(model, allowed_host=("Box.lan",)) as client:
        assert [status(client, host) for host in known] == ["200"] * len(known)
        assert [status(client, host) for host in strange] == ["421"] * len(strange)
        answer = client.get("/model", headers={"Host": "evil.example"})
        assert "does not answer for the host evil.example: start it with" in answer.text
        assert "Content-Security-Policy" in answer.headers
        assert ask(client, "GET /healthz HTTP/1.0\r\n\r\n")[9:12] == "200"
    with serving(model, token="sesame") as client:
        assert status(client, "evil.example") == "200"


# --- the end


def test_a_signal_ends_it_soon_also_while_images_take_long(runs, digits):
    options = ("--deadline=3", "--decode-seconds=100")
    with serving_process(runs["any"], *options) as (process, client), ThreadPoolExecutor(4) as pool:
        post(client, encoded(digits[0][0], "TIFF"))
        asked = [pool.submit(post, client, hostile.many_scans()) for _ in range(4)]
        time.sleep(0.5)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - started < 30  # as against the 100 that decoding may take
        assert {answer.result().status_code for answer in asked} == {503}
