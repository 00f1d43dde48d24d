import asyncio
import base64
import contextlib
import csv
import io
import itertools
import json
import socket
import struct
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx
import numpy as np
import onnxruntime
import pandas
import pytest
from PIL import Image
from serving import HeldModel, encoded, form, serving
from tiny import tiny_config

from historyad.cli import main
from historyad.data.datasets import open_source
from historyad.deploy.service.app import create_app
from historyad.deploy.service.limits import Limits
from historyad.errors import ConfigError
from historyad.model.estimator import HistoryAD
from historyad.model.fit import fit_model
from historyad.model.model import Model
from historyad.model.run import RunDirectory
from historyad.score.calibration import Calibration

PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}


def fitted(samples, folder, **values):
    run = RunDirectory(folder)
    return fit_model(open_source(samples), tiny_config(**values), run)


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "run"
    fitted(digits[0][:400], folder)
    return folder


@pytest.fixture(scope="module")
def model(run):
    return Model.load(run)


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


@pytest.fixture
def held(model):
    """A service whose model scores only while its gate is open."""
    held = HeldModel.of(model)
    yield held
    held.gate.set()


@pytest.fixture(scope="module")
def png(digits):
    return encoded(digits[0][0])


# --- the same verdicts everywhere


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """A folder of 1,000 images, as files of several formats."""
    folder = tmp_path_factory.mktemp("folder")
    for i, image in enumerate(digits[0][400:1400]):
        suffix = (".png", ".bmp", ".tif", ".pgm")[i % 4]
        Image.fromarray(image[..., 0]).save(folder / f"{i:04}{suffix}")
    return folder


def test_command_line_python_service_and_onnx_agree(run, client, folder, tmp_path):
    table = tmp_path / "scores.csv"
    assert main(["score", str(run), str(folder), "--out", str(table)]) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    detector = HistoryAD.load(run)
    scores, p_values = detector.anomaly_score(folder), detector.p_value(folder)
    verdicts = detector.predict(folder)
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    results = []
    for start in range(0, len(files), 64):
        answer = client.post("/score", files=form(files[start : start + 64])).json()
        results += answer["results"]
    assert answer["threshold"] == detector.threshold_
    assert main(["export", str(run), str(tmp_path / "model.onnx")]) == 0
    graph = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    exported = graph.run(None, {"images": open_source(folder).samples})
    np.testing.assert_allclose(exported[0], scores, atol=1e-4)
    # Where two scores are as close as rounding, their p-values may differ by one held-out sample.
    one = 1.5 / (1 + len(detector.model_.calibration.scores))
    np.testing.assert_allclose(exported[1], p_values, atol=one)
    near = np.abs(scores - detector.threshold_) < 1e-4
    assert ((exported[2] == (verdicts == -1)) | near).all()
    assert len(results) == len(rows) == 1000
    assert 0 < sum(result["is_anomalous"] for result in results) < 1000
    for i, (row, result) in enumerate(zip(rows, results, strict=True)):
        assert result["name"] == row["path"].rpartition("/")[2]
        assert result["anomaly_score"] == pytest.approx(scores[i], abs=1e-5)
        assert result["anomaly_score"] == pytest.approx(float(row["anomaly_score"]), abs=1e-5)
        assert result["p_value"] == pytest.approx(p_values[i], abs=1e-12)
        assert result["p_value"] == pytest.approx(float(row["p_value"]), abs=1e-6)
        assert result["is_anomalous"] == bool(int(row["is_anomalous"])) == (verdicts[i] == -1)


def test_an_image_alone_and_among_others_gets_the_same_score(client, folder):
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())[:8]]
    together = client.post("/score", files=form(files)).json()["results"]
    for (_, data), expected in zip(files, together, strict=True):
        for kind in ("image/png", "application/octet-stream", "Image/TIFF; charset=x"):
            answer = client.post("/score", content=data, headers={"Content-Type": kind})
            (result,) = answer.json()["results"]
            assert result["anomaly_score"] == pytest.approx(expected["anomaly_score"], abs=1e-5)
            assert (result["name"], result["p_value"]) == ("image", expected["p_value"])


def test_concurrent_requests_get_their_own_answers(client, folder):
    files = [path.read_bytes() for path in sorted(folder.iterdir())[:200]]

    def ask(data):
        (result,) = client.post("/score", content=data, headers=PNG).json()["results"]
        return result["anomaly_score"]

    with ThreadPoolExecutor(16) as pool:
        scores = list(pool.map(ask, files))
    assert len(set(scores)) > 150
    assert scores[:50] == pytest.approx(list(map(ask, files[:50])), abs=1e-5)


def test_another_false_positive_rate_uses_the_calibration(client, model, folder):
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())[:60]]
    for rate in (0.02, 0.05, 0.3, 0.5):
        answer = client.post("/score", params={"false_positive_rate": rate}, files=form(files))
        content = answer.json()
        threshold = Calibration.fit(model.calibration.scores, rate).threshold
        assert (content["threshold"], content["false_positive_rate"]) == (threshold, rate)
        for result in content["results"]:
            assert result["is_anomalous"] == (result["anomaly_score"] > threshold)
            assert result["is_anomalous"] == (result["p_value"] <= rate)  # as the page decides


@pytest.mark.parametrize("rate", ["0.001", "0", "1e-320", "0.6", "nan", "inf", "-1", "x", ""])
def test_a_rate_that_cannot_be_held_is_refused(client, png, rate):
    answer = client.post(f"/score?false_positive_rate={rate}", content=png, headers=PNG)
    assert answer.status_code == 422
    if rate == "0.001":
        assert "held-out normal samples are too few" in answer.json()["detail"]


def test_images_of_any_size_are_placed_on_the_grid_as_score_does(digits, tmp_path):
    model = fitted(digits[0][:400], tmp_path / "run", image_size=8)
    photo = np.kron(digits[0][7, :, :, 0], np.ones((40, 50))).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    expected = HistoryAD.load(tmp_path / "run").anomaly_score(tmp_path / "photo.png")
    with serving(model) as client:
        answer = client.post("/score", content=(tmp_path / "photo.png").read_bytes(), headers=PNG)
        assert answer.json()["results"][0]["anomaly_score"] == pytest.approx(expected[0], abs=1e-5)
        with_map = client.post("/score?map=1", files=form([("a.png", encoded(photo))])).json()
        assert with_map["results"][0]["map"].startswith("data:image/png;base64,")


def test_a_map_is_a_picture_of_the_image(client, png, digits):
    files = form([("a.png", png), ("b.txt", b"no image"), ("c.png", encoded(digits[0][5]))])
    first, second, third = client.post("/score?map=1", files=files).json()["results"]
    for result in (first, third):
        head, _, data = result["map"].partition(",")
        assert head == "data:image/png;base64"
        assert np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).shape == (8, 8, 3)
    assert first["map"] != third["map"]
    assert set(second) == {"name", "error"}
    assert "map" not in client.post("/score", files=files).json()["results"][0]


# --- images seen in crops, of any size


@pytest.fixture(scope="module")
def crops(digits, tmp_path_factory):
    """A model of crops, fitted on images of 24 x 24 pixels."""
    photos = np.kron(digits[0][:110], np.ones((3, 3, 1), np.uint8))
    return fitted(photos, tmp_path_factory.mktemp("crops") / "run", patch=8, epoch_images=256)


@pytest.fixture(scope="module")
def photos(digits):
    """Images of three sizes, in turn."""
    large = np.kron(digits[0][200:240], np.ones((5, 5, 1), np.uint8))
    return [photo[: (24, 24, 40)[i % 3], : (24, 32, 17)[i % 3]] for i, photo in enumerate(large)]


def test_a_form_of_images_of_several_sizes_is_answered_in_order(crops, photos):
    files = [(str(i), encoded(photo)) for i, photo in enumerate(photos[:10])]
    files.insert(4, ("none", b"no image"))
    with serving(crops) as client:
        results = client.post("/score?map=1", files=form(files)).json()["results"]
    assert [result["name"] for result in results] == [name for name, _ in files]
    assert "error" in results.pop(4)
    for result, photo in zip(results, photos, strict=False):
        expected = crops.anomaly_score(photo[None])[0]
        assert result["anomaly_score"] == pytest.approx(expected, abs=1e-5)
        shown = Image.open(io.BytesIO(base64.b64decode(result["map"].partition(",")[2])))
        assert shown.size == photo.shape[1::-1]


def test_requests_of_several_sizes_do_not_disturb_each_other(crops, photos):
    def ask(photo):
        answer = client.post("/score", content=encoded(photo), headers=PNG)
        return answer.json()["results"][0]["anomaly_score"]

    held = HeldModel.of(crops)
    with serving(held) as client, ThreadPoolExecutor(16) as pool:
        held.hold()
        asked = [pool.submit(ask, photo) for photo in photos]
        assert held.at_work.wait(20)
        held.gate.set()
        scores = [answer.result() for answer in asked]
    expected = [crops.anomaly_score(photo[None])[0] for photo in photos]
    assert scores == pytest.approx(expected, abs=1e-5)


def test_pixels_seen_in_crops_are_limited(crops):
    def photo(height, width):
        return ("a", encoded(np.zeros((height, width), np.uint8)))

    with serving(crops, max_work_pixels=2000) as client:
        assert client.get("/model").json()["limits"]["max_work_pixels"] == 2000
        answer = client.post("/score", files=form([photo(41, 50), photo(40, 50)]))
        large, fits = answer.json()["results"]
        assert "has 50 x 41 pixels, more than 2,000" in large["error"]
        assert "anomaly_score" in fits
        answer = client.post("/score", files=form([photo(30, 50), photo(30, 50)]))
        reason = "the images have 3,000 pixels together, more than 2,000: send fewer at a time"
        assert (answer.status_code, answer.json()["detail"]) == (413, reason)
    with serving(crops, max_work_pixels=1) as client:  # but an image as those of the fit
        assert client.post("/score", files=form([photo(24, 24)])).status_code == 200
        assert client.post("/score", files=form([photo(24, 25)])).status_code == 422


def test_too_many_pixels_at_a_time_are_answered_503(crops):
    held, photo = HeldModel.of(crops), encoded(np.zeros((30, 30), np.uint8))
    with serving(held, max_work_pixels=2000) as client, ThreadPoolExecutor(4) as pool:

        def ask(_):
            return client.post("/score", content=photo, headers=PNG)

        held.hold()
        asked = [pool.submit(ask, i) for i in range(4)]
        refused = [done.result() for done in itertools.islice(as_completed(asked, 20), 2)]
        held.gate.set()
        statuses = sorted(answer.result().status_code for answer in asked)
        assert statuses == [200, 200, 503, 503]
        assert all(answer.headers["Retry-After"] == "1" for answer in refused)
        assert ask(0).status_code == 200


# --- vectors


@pytest.fixture(scope="module")
def vectors(digits, tmp_path_factory):
    """A service of a model of vectors, the model, and vectors."""
    samples = digits[0].reshape(-1, 64)[:, 10:20].astype(np.float32)
    model = fitted(samples[:400], tmp_path_factory.mktemp("vectors") / "run")
    with serving(model) as client:
        yield client, model, samples[400:450]


def test_vectors_agree_with_python(vectors):
    client, model, samples = vectors
    answer = client.post("/score", json={"vectors": samples.tolist()}).json()
    scores = model.anomaly_score(samples)
    assert [result["name"] for result in answer["results"]] == [str(i) for i in range(50)]
    found = [result["anomaly_score"] for result in answer["results"]]
    assert found == pytest.approx(scores.tolist(), abs=1e-5)
    found = [result["p_value"] for result in answer["results"]]
    assert found == model.calibration.p_value(scores).tolist()


GOOD = "[" + ",".join("1" * 10) + "]"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ("[" * 100_000, 400),
        ("9" * 10_000, 400),
        (b"\xff\xfe", 400),
        ("[]", 422),
        ("null", 422),
        ('{"vectors": "digits:test"}', 422),
        ('{"vectors": ["digits:test"]}', 422),
        ('{"vectors": []}', 422),
        ('{"vectors": [[]]}', 422),
        ('{"vectors": [[1, 2], [3]]}', 422),
        ('{"vectors": [[1, 2]]}', 422),
        ('{"vectors": [[[1]]]}', 422),
        ('{"vectors": [["1"]]}', 422),
        (f'{{"vectors": [{GOOD.replace("1", "true", 1)}]}}', 422),
        (f'{{"vectors": [{GOOD.replace("1", "[1]", 1)}]}}', 422),
        (f'{{"vectors": [{GOOD.replace("1", "null", 1)}]}}', 422),
        (f'{{"vectors": [{GOOD.replace("1", "NaN", 1)}]}}', 422),
        (f'{{"vectors": [{GOOD.replace("1", "1e999", 1)}]}}', 422),
        (f'{{"vectors": [{GOOD.replace("1", "9" * 400, 1)}]}}', 422),
        (f'{{"vectors": [{",".join([GOOD] * 65)}]}}', 413),
        ('{"vectors": [' + " " * 5_000_000 + "]}", 413),
    ],
)
def test_vectors_that_are_none_are_refused(vectors, body, status):
    answer = vectors[0].post("/score", content=body, headers=JSON)
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_texts_and_what_is_missing_in_a_table():
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {"kind": random.choice(["a", "b"], 300), "ok": random.random(300) < 0.7}
    )
    frame["heat"] = np.where(random.random(300) < 0.2, np.nan, random.normal(size=300))
    detector = HistoryAD(preset="instant").fit(frame)
    rows = [["a", True, 0.5], ["b", False, None], ["new", True, 0.5], ["a", None, 0.5]]
    with serving(detector.model_) as client:
        answer = client.post("/score", json={"vectors": rows}).json()
        refused = client.post("/score", json={"vectors": [["a", "x", 1]]})
    table = pandas.DataFrame(rows, columns=["kind", "ok", "heat"])
    expected = detector.anomaly_score(table.astype({"heat": float}))
    found = [result["anomaly_score"] for result in answer["results"]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [result["is_anomalous"] for result in answer["results"]][2:] == [True, True]
    assert (refused.status_code, "vector 0 holds str" in refused.text) == (422, True)


def test_a_long_text_among_numbers_takes_no_memory(vectors):
    rows = [[0.0] * 10] * 63 + [["x" * 30_000] + [0.0] * 9]
    tracemalloc.start()
    try:
        answer = vectors[0].post("/score", json={"vectors": rows})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "vector 63 holds str: give numbers alone",
    )
    assert peak < 20e6  # an array of such texts has 77 MB


def test_the_wrong_kind_of_input_is_named(vectors, client, png):
    answer = vectors[0].post("/score", content=png, headers=PNG)
    assert (answer.status_code, "this model scores vectors" in answer.text) == (422, True)
    answer = client.post("/score", json={"vectors": [[1, 2]]})
    assert (answer.status_code, "this model scores images" in answer.text) == (422, True)


# --- what is not an image


def bomb(width, height):
    """A PNG that says it is large."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "cannot be read as an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as an image"),
        (bomb(6000, 6000), "has 6000 x 6000 pixels, more than 25,000,000"),
        (bomb(60_000, 60_000), "far too many pixels"),
        (bomb(8, 8)[:-40], "cannot be read as an image"),
        (encoded(np.zeros((8, 9), np.uint8)), "8 x 9 x 1"),
        (encoded(np.zeros((8, 8, 3), np.uint8)), "3 channels"),
    ],
)
def test_one_bad_file_does_not_spoil_the_others(client, png, data, reason):
    answer = client.post("/score", files=form([("a.png", png), ("b", data), ("c.png", png)]))
    assert answer.status_code == 200
    first, second, third = answer.json()["results"]
    assert [first["name"], second["name"], third["name"]] == ["a.png", "b", "c.png"]
    assert reason in second["error"]
    assert first["anomaly_score"] == third["anomaly_score"]
    alone = client.post("/score", content=data, headers=PNG)
    assert alone.status_code == 422
    assert reason in alone.json()["results"][0]["error"]


def test_names_come_back_as_they_were_and_touch_no_file(client, png):
    names = ["../../etc/passwd", "a b.png", "ä€😀.png", '"x".png', "<b>.png"]
    answer = client.post("/score", files=form([(name, png) for name in names]))
    results = answer.json()["results"]
    assert results[0]["name"] == names[0]
    assert results[2]["name"] == names[2]
    assert all("anomaly_score" in result for result in results)


@pytest.mark.parametrize("charset", ["utf-7", "raw_unicode_escape", "base64", "none", "\x7f"])
def test_any_charset_of_a_name_can_be_answered(client, png, charset):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="\\udc80.png"\r\n\r\n'
        + png
        + b"\r\n--x--\r\n"
    )
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    answer = client.post("/score", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200
    assert answer.json()["results"][0]["name"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("", b"x", 415),
        ("text/plain", b"x", 415),
        ("application/x-www-form-urlencoded", b"a=b", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"", 422),
        ("multipart/form-data; boundary=x", b"--y--\r\n", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nno header\r\n\r\n--x--", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\nvalue\r\n--x--\r\n',
            422,
        ),
    ],
)
def test_bodies_that_hold_no_file_are_refused(client, kind, body, status):
    answer = client.post("/score", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["detail"]


# --- limits


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_the_body_is_counted_as_it_comes(model, kind):
    def body(n):
        yield b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        for _ in range(n):
            yield bytes(10_000)

    headers = {"Content-Type": kind}
    with serving(model, max_body_bytes=100_000) as client:
        answer = client.post("/score", content=body(15), headers=headers)
        assert answer.status_code == 413
        assert "larger than 100,000 bytes" in answer.json()["detail"]
        endless = body(10_000)
        with contextlib.suppress(httpx.TransportError):  # closed while it was sending
            client.post("/score", content=endless, headers=headers)
        assert sum(1 for _ in endless) > 5_000
        assert client.get("/healthz").status_code == 200


def test_a_body_of_exactly_the_limit_is_read(model, png):
    with serving(model, max_body_bytes=len(png)) as client:
        assert client.post("/score", content=png, headers=PNG).status_code == 200
        assert client.post("/score", content=png + b"x", headers=PNG).status_code == 413


def test_too_many_files_are_refused(model, png):
    with serving(model, max_files=3) as client:
        assert client.post("/score", files=form([("a", png)] * 3)).status_code == 200
        answer = client.post("/score", files=form([("a", png)] * 4))
        assert (answer.status_code, "Too many files" in answer.text) == (400, True)


def test_a_body_that_does_not_come_is_given_up(model):
    with (
        serving(model, deadline=0.3) as client,
        socket.create_connection((client.base_url.host, client.base_url.port)) as raw,
    ):
        raw.sendall(
            b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Content-Length: 100\r\n\r\nabc"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_a_client_that_leaves_does_no_harm(client, png):
    address = (client.base_url.host, client.base_url.port)
    for end in (10, 130, 140):
        with socket.create_connection(address) as raw:
            request = (
                b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                + f"Content-Length: {len(png)}\r\n\r\n".encode()
                + png
            )
            raw.sendall(request[:end])
    assert client.post("/score", content=png, headers=PNG).status_code == 200


def test_too_many_samples_are_answered_503(held, png):
    settings = {"max_samples": 2, "max_files": 2, "batch_size": 1}
    with serving(held, **settings) as client, ThreadPoolExecutor(8) as pool:
        held.hold()

        def ask():
            return client.post("/score", content=png, headers=PNG)

        first = pool.submit(ask)
        assert held.at_work.wait(20)
        others = [pool.submit(ask) for _ in range(5)]
        assert len(list(itertools.islice(as_completed(others, 20), 4))) == 4
        held.gate.set()
        answers = [first.result(), *(other.result() for other in others)]
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [503] * 4
        for answer in answers:
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) >= 1
        assert ask().status_code == 200


def test_too_many_requests_are_answered_503(held, png):
    with serving(held, max_requests=1) as client, ThreadPoolExecutor(1) as pool:
        held.hold()
        first = pool.submit(client.post, "/score", content=png, headers=PNG)
        assert held.at_work.wait(20)
        answer = client.post("/score", content=png, headers=PNG)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        held.gate.set()
        assert first.result().status_code == 200


def test_a_request_ends_at_its_deadline(held, png):
    with serving(held, deadline=0.3) as client:
        held.hold()
        answer = client.post("/score", content=png, headers=PNG)  # while nothing is scored
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        held.gate.set()
        assert client.post("/score", content=png, headers=PNG).status_code == 200


def test_a_service_that_is_stuck_is_not_ready(held, png):
    def ready():
        return client.get("/readyz").status_code

    with serving(held, deadline=0.3) as client:
        held.hold()
        assert client.post("/score", content=png, headers=PNG).status_code == 503
        while ready() == 200:
            time.sleep(0.01)
        assert client.get("/healthz").status_code == 200
        held.gate.set()
        while ready() == 503:
            time.sleep(0.01)
        assert client.post("/score", content=png, headers=PNG).status_code == 200


def test_an_error_of_ours_shows_no_trace(model, png, capsys):
    class Broken(HeldModel):
        def anomaly_score(self, samples):
            if self.at_work.is_set():  # the first call warms it up
                raise RuntimeError("secret detail")
            return super().anomaly_score(samples)

    with serving(Broken.of(model)) as client:
        answer = client.post("/score", content=png, headers=PNG)
        detail = "an error of the service, which its log describes"
        assert (answer.status_code, answer.json()) == (500, {"detail": detail})
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert client.get("/readyz").status_code == 200
        text = client.get("/metrics").text
        assert 'historyad_requests_total{path="/score",status="500"} 1.0' in text
        assert "historyad_score_seconds_count 1.0" in text
    assert "secret detail" in capsys.readouterr().err  # in the log, for those who run it


# --- tokens, headers, description


def test_without_the_token_nothing_is_told(model, png):
    with serving(model, token="sesame-ä") as client:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic sesame"}):
            for method, path in (("POST", "/score"), ("GET", "/model"), ("GET", "/metrics")):
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == client.get("/").status_code == 200
    with serving(model, token="sesame") as client:
        good = {"Authorization": "Bearer sesame"}
        assert client.get("/model", headers=good).status_code == 200
        answer = client.post("/score", content=png, headers={**PNG, **good})
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/model", "/nothing", "/score"])
def test_every_answer_carries_the_security_headers(client, path):
    headers = client.get(path).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_the_page_loads_nothing_from_elsewhere(client):
    for path in ("/", "/page.css", "/page.js"):
        text = client.get(path).text
        assert "http://" not in text
        assert "https://" not in text
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_no_route_has_a_parameter_in_its_path(client, model):
    assert not [path for path in client.get("/openapi.json").json()["paths"] if "{" in path]
    for path in ("/../../etc/passwd", "/page.js/../app.py", "/%2e%2e/app.py", "/app.py"):
        assert client.get(path).status_code == 404


def test_the_description_names_what_there_is(client):
    content = client.get("/openapi.json").json()
    assert set(content["paths"]) == {"/score", "/model", "/healthz", "/readyz", "/metrics"}
    post = content["paths"]["/score"]["post"]
    assert {parameter["name"] for parameter in post["parameters"]} == {"false_positive_rate", "map"}
    assert "image/*" in post["requestBody"]["content"]
    assert post["responses"]["200"]["content"]["application/json"]["schema"]


def test_the_model_is_described(client, model):
    content = client.get("/model").json()
    limits = {"max_files": 64, "max_body_bytes": 32 * 2**20, "max_work_pixels": None}
    assert content["limits"] == limits
    expected = json.loads(json.dumps(model.describe()))
    assert {key: content[key] for key in expected} == expected


def test_what_happens_is_counted(model, png):
    with serving(model) as client:
        client.post("/score", files=form([("a", png), ("b", b"no image")]))
        client.get("/nothing-1")
        client.get("/nothing-2")
        text = client.get("/metrics").text
    assert 'historyad_requests_total{path="/score",status="200"} 1.0' in text
    assert 'historyad_requests_total{path="other",status="404"} 2.0' in text
    assert 'historyad_samples_total{outcome="unreadable"} 1.0' in text
    assert "historyad_queue_samples 0.0" in text
    assert "historyad_score_seconds_count 1.0" in text
    assert "process_resident_memory_bytes" in text


def test_a_service_that_ends_is_alive_and_not_ready(model):
    app = create_app(model)

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]

    async def live():
        async with app.router.lifespan_context(app):
            return await ask()

    assert asyncio.run(live()) == [200, 200]
    assert asyncio.run(ask()) == [200, 503]


# --- settings and the command


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_files": 0}, "max_files is 0"),
        ({"deadline": float("nan")}, "deadline is nan"),
        ({"max_files": 65, "max_samples": 64}, "never be scored"),
        ({"token": ""}, "the token is empty: set HISTORYAD_TOKEN"),  # of a secret that is missing
        ({"token": " "}, "the token is empty"),
    ],
)
def test_limits_that_let_nothing_through_are_refused(values, message, run, capsys):
    with pytest.raises(ConfigError, match=message):
        Limits(**values)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    assert main(["serve", str(run), *options]) == 2
    assert capsys.readouterr().err
