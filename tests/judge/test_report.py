import base64
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from archives import png, write_shard
from PIL import Image
from tiny import tiny_config
from torch.utils.data import TensorDataset

from historyad import Model, fit_model, open_source
from historyad.cli import main
from historyad.config import make_config
from historyad.errors import InputError
from historyad.judge.evaluation import judge
from historyad.judge.report import write_report
from historyad.judge.report.pictures import as_picture, thumbnail
from historyad.judge.report.samples import oddest
from historyad.judge.report.settings import fit_command, nearest_preset
from historyad.judge.report.training import seconds_of
from historyad.model.run import RunDirectory
from historyad.model.suspects import suspicion

EVIL = "<img src=x onerror=alert(1)>'\"&"
CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """The elements of a page, its text, and whether every element is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def fitted(digits, tmp_path_factory):
    """A folder of images with a hostile name, a run on it, and samples to try it on."""
    images, labels = digits
    folder = tmp_path_factory.mktemp("report")
    train = folder / EVIL.replace("/", "")
    train.mkdir()
    for i, image in enumerate(images[labels != 0][:300]):
        Image.fromarray(image.squeeze()).save(train / f"{EVIL} {i:03d}.png")
    np.save(folder / "normal.npy", images[labels != 0][300:400])
    np.save(folder / "anomalous.npy", 255 - images[labels == 0][:50])
    source = open_source(train)
    fit_model(source, tiny_config(seed=3), RunDirectory(folder / "run"), command=f"fit {EVIL}")
    return folder, train


@pytest.fixture(scope="module")
def full(fitted):
    """A report with all there can be in it, and its model."""
    folder, train = fitted
    out = folder / "report.html"
    sources = {name: open_source(folder / f"{name}.npy") for name in ("normal", "anomalous")}
    model = Model.load(folder / "run")
    write_report(
        folder / "run",
        out,
        model=model,
        train=open_source(train),
        command=f"report {EVIL}",
        **sources,
    )
    return out.read_text(), model, sources


def test_it_is_html_that_loads_nothing(full):
    page = Page(full[0])
    for name in ("src", "href", "srcset", "action", "data", "xlink:href"):
        for reference in page.attributes(name):
            assert reference.startswith(("data:image/png;base64,", "#")), reference
    text = re.sub(r"data:image/png;base64,[\w+/=]+", "", full[0])
    assert not re.search(r"https?:|//\w|@import|@font-face", text)
    assert not re.search(r"url\((?!#)", full[0])
    assert "link" not in {tag for tag, _ in page.elements}
    policy = next(a["content"] for tag, a in page.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_names_of_a_user_are_text_and_never_markup(full):
    page = Page(full[0])
    assert "onerror" not in page.attributes("onerror")
    assert "x" not in page.attributes("src")
    assert EVIL in page.text
    assert any(EVIL in alt for alt in page.attributes("alt"))
    assert full[0].count("<script") == 2
    assert full[0].count("<img src=x") == 0


def test_ids_are_unique_and_every_reference_leads_to_one(full):
    page = Page(full[0])
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([\w-]+)\)", full[0])
    used += [href[1:] for href in page.attributes("href")]
    used += re.findall(r'getElementById\("([\w-]+)"\)', full[0])
    assert set(used) <= set(ids)
    assert {"live-trial", "live-roc", "live-precision-recall"} <= set(ids)


def test_its_numbers_are_those_of_the_run(full):
    html, model, sources = full
    text = " ".join(Page(html).text.split())
    negatives, positives = (model.anomaly_score(s.samples) for s in sources.values())
    figures, threshold = judge(negatives, positives), model.calibration.threshold
    assert f"{figures['auroc']:.4f}" in text
    assert f"{figures['auprc']:.4f}" in text
    assert f"{threshold:+.4f}".replace("-", "−") in text
    assert f"{100 * (negatives > threshold).mean():.2f} %" in text
    assert f"{100 * (positives > threshold).mean():.2f} %" in text
    assert "With 60 held-out normals" in text
    assert "9 snapshots from epoch 1.00 to 2.00" in text
    slider = json.loads(
        re.search(r'<script type="application/json" id="trial">(.*?)</script>', html)[1]
    )
    assert slider["normal"] == pytest.approx(np.sort(negatives), abs=1e-5)
    assert slider["own"]["found"] == (positives > threshold).mean()
    assert slider["low"] < threshold < slider["high"]


def test_it_shows_what_can_be_seen_and_the_oddest_training_samples(full, fitted):
    html, model, _ = full
    text = " ".join(Page(html).text.split())
    assert "100 samples of" in text
    assert "seen from" in text
    samples = open_source(fitted[1]).samples
    found = suspicion(model.kind, samples, model.config)
    assert f"{EVIL} {found.argmax():03d}.pngsuspicion {found.max():.2f}, " in text
    shown = [attributes for tag, attributes in Page(html).elements if tag == "img"]
    near = [image for image in shown if image["alt"].startswith("normal: ")]
    pictures = [image for image in shown if "latent" not in image["alt"] and image not in near]
    assert len(shown) == 1 + len(pictures) + len(near)  # the film strip
    assert len(near) == 3 * (24 + 3 * 6)
    assert "against it: " in text
    assert len(pictures) == 2 * (24 + 3 * 6)  # training samples, and each end of the others
    for picture, where in zip(pictures[::2], pictures[1::2], strict=True):
        assert where["alt"] == f"{picture['alt']}: where it looks anomalous"
    # Of a typical sample the map is empty; of some that are odd it is not.
    pairs = zip(pictures[:48:2], pictures[1:48:2], strict=True)
    assert any(picture["src"] != where["src"] for picture, where in pairs)
    assert "within an outline" not in text  # of whole images, no place decides


def test_the_oddest_of_a_stream_keep_their_names_beside_an_unreadable_one(fitted, tmp_path):
    folder, _ = fitted
    members = [(f"{n}.png", png(20 * n, (8, 8))) for n in range(5)]
    members[1] = ("1.png", b"damaged")
    train = open_source(write_shard(tmp_path / "x.tar", members), skip_unreadable=True)
    shown = oddest(Model.load(folder / "run"), train)
    assert sorted(sample["name"] for sample in shown) == [f"x.tar/{n}.png" for n in (0, 2, 3, 4)]
    one = {sample["name"]: sample["score"] for sample in shown}["x.tar/2.png"]
    alone = np.full((1, 8, 8, 1), 40, np.uint8)
    assert one == Model.load(folder / "run").anomaly_score(alone)[0]


def test_charts_have_names_and_colours_of_the_page(full):
    page = Page(full[0])
    charts = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(charts) == 7
    assert all(chart["role"] == "img" and len(chart["aria-label"]) > 20 for chart in charts)
    svg = "".join(re.findall(r"<svg.*?</svg>", full[0], flags=re.DOTALL))
    assert "var(--normal)" in svg
    assert not re.findall(r"#[0-9a-f]{6}", svg)


@pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="needs chromium (apt-get install chromium)"
)
def test_the_slider_shows_the_errors_at_its_threshold(full, tmp_path):
    html, model, sources = full
    scores = [model.anomaly_score(source.samples) for source in sources.values()]
    threshold = float(np.median(scores[0])) + 1e-4
    script = f"""<script>
        const before = document.getElementById("live-roc").getBoundingClientRect();
        slider.step = "any";
        slider.value = {threshold};
        slider.dispatchEvent(new Event("input"));
        const after = document.getElementById("live-roc").getBoundingClientRect();
        document.title = JSON.stringify({{
          moved: [after.x - before.x, before.y - after.y],
          overflow: document.documentElement.scrollWidth - innerWidth,
        }});
    </script></body>"""
    (tmp_path / "page.html").write_text(html.replace("</body>", script))
    flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,800"]
    command = [CHROMIUM, *flags, "--dump-dom", (tmp_path / "page.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    rates = [float((part > threshold).mean()) for part in scores]
    for name, rate in zip(("false-positives", "found"), rates, strict=True):
        output = re.search(rf'<output id="{name}">([\d.]+)&nbsp;%</output>', shown)
        assert float(output[1]) == pytest.approx(100 * rate, abs=0.01)
    seen = json.loads(re.search("<title>(.*?)</title>", shown)[1])
    own = [float((part > model.calibration.threshold).mean()) for part in scores]
    right, up = seen["moved"]
    assert (right > 0, up >= 0) == (rates[0] > own[0], rates[1] >= own[1])
    assert seen["overflow"] <= 0


def test_the_same_run_gives_the_same_bytes(fitted, tmp_path):
    folder, _ = fitted
    model = Model.load(folder / "run")
    for name in ("a.html", "b.html"):
        write_report(folder / "run", tmp_path / name, model=model)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_is_not_there_is_left_out(fitted, tmp_path):
    folder, _ = fitted
    model = Model.load(folder / "run")
    model.save(tmp_path / "bare")
    write_report(tmp_path / "bare", tmp_path / "report.html", model=model)
    html = (tmp_path / "report.html").read_text()
    page = Page(html)
    assert "<script" not in html
    assert "How it decides" in page.text
    for title in ("How well", "What it learned against", "Training samples", "What it can see"):
        assert title not in page.text
    assert "--out" in page.text  # the command, from the settings alone


def test_another_source_than_the_training_one_is_refused(fitted, tmp_path):
    folder, _ = fitted
    with pytest.raises(InputError, match="is not what the detector was trained on"):
        write_report(
            folder / "run",
            tmp_path / "report.html",
            model=Model.load(folder / "run"),
            train=open_source(folder / "normal.npy"),
        )
    assert not (tmp_path / "report.html").exists()


def test_normals_without_anomalies_are_refused(fitted, tmp_path, capsys):
    folder, _ = fitted
    command = ["report", str(folder / "run"), "--normal", str(folder / "normal.npy")]
    assert main([*command, "--out", str(tmp_path / "report.html")]) == 2
    assert "give both normal and anomalous samples, or neither" in capsys.readouterr().err


def test_normals_that_were_calibrated_on_are_called_so(fitted, tmp_path):
    folder, _ = fitted
    run = shutil.copytree(folder / "run", tmp_path / "run")
    normal, anomalous = str(folder / "normal.npy"), str(folder / "anomalous.npy")
    assert main(["calibrate", str(run), normal]) == 0
    out = str(tmp_path / "report.html")
    assert (
        main(["report", str(run), "--normal", normal, "--anomalous", anomalous, "--out", out]) == 0
    )
    text = " ".join(Page((tmp_path / "report.html").read_text()).text.split())
    assert "these figures are too good" in text
    assert f"The threshold was set anew on {normal}" in text


@pytest.mark.parametrize("n_features", [1, 2, 10])
def test_a_report_on_vectors(tmp_path, n_features):
    random = np.random.default_rng(0)
    source = open_source(random.normal(size=(300, n_features)).astype(np.float32))
    model = fit_model(source, tiny_config(), RunDirectory(tmp_path / "run"))
    write_report(tmp_path / "run", tmp_path / "report.html", model=model, train=source)
    page = Page((tmp_path / "report.html").read_text())
    assert "in the plane where the training data" in " ".join(page.text.split())
    assert "historyad fit" not in page.text  # an array has no name that a command could give
    assert not [tag for tag, _ in page.elements if tag == "img"]


def test_samples_at_both_ends_are_shown_the_outermost_first(full):
    html, model, sources = full
    titles = [part.split("</h3>", 1) for part in html.split("<h3>")[1:]]
    negatives, positives = (model.anomaly_score(s.samples) for s in sources.values())
    expected = {
        "Anomalous, with the highest scores": np.argsort(-positives)[:6],
        "Anomalous, with the lowest scores": np.argsort(positives)[:6],
        "Normal, with the highest scores": np.argsort(-negatives)[:6],
    }
    found = {t: re.findall(r'alt="(\d+)"', part.split("<script")[0]) for t, part in titles}
    assert found == {title: [*map(str, rows)] for title, rows in expected.items()}


def test_a_report_on_crops_shows_where_and_what_lies_above_the_threshold(crops, tmp_path):
    normal, anomalous = (
        open_source(crops.source_of(part), any_size=True) for part in ("normal", "anomalous")
    )
    out = tmp_path / "report.html"
    write_report(crops.run, out, model=crops.model, normal=normal, anomalous=anomalous)
    page = Page(out.read_text())
    text = " ".join(page.text.split())
    assert "What lies within an outline is above the threshold" in text
    assert "a crop of 8 x 8, scales 2" in text
    assert "fresh samples of the history" not in text  # which are crops, and have no score
    maps = [a["src"] for _, a in page.elements if a.get("alt", "").endswith("looks anomalous")]
    hues = [hue_of(source, crops.anomalous) for source in maps]
    assert min(hues[:6]) > 3 * max(hues[12:])


def hue_of(source, images):
    """Return how much colour there is in the square of the stripes of a map."""
    data = base64.b64decode(source.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)
    assert pixels.shape[:2] == images.shape[1:3]
    return (pixels[12:22, 24:34, 0] - pixels[12:22, 24:34, 2]).mean()


# --- parts


def test_the_nearest_preset_leaves_the_fewest_settings_to_name(fitted):
    folder, _ = fitted
    model = Model.load(folder / "run")
    source = {**model.source, "n_train": 60_000}
    for preset in ("quick", "default", "paper"):
        # As a fit keeps it: with the length that an epoch of "0" images had.
        resolved = {"epoch_images": 60_000} if preset == "paper" else {}
        config = make_config(preset, **resolved, seed=7)
        changed = Model(model.score, model.calibration, config, source)
        assert nearest_preset(changed) == (preset, [("seed", 7, 0)])
        assert fit_command(changed, folder).endswith(f"--preset {preset} --seed=7")
    for samples in (np.zeros((2, 3)), TensorDataset(torch.zeros(2, 3))):
        source["description"] = open_source(samples).description
        assert fit_command(changed, folder) is None


def test_time_is_counted_over_interruptions():
    assert seconds_of([1.0, 2.0, 5.0, 0.5, 3.0]) == 8.0
    assert seconds_of([]) == 0


@pytest.mark.parametrize(("side", "kind"), [(64, "png"), (65, "jpeg"), (900, "jpeg")])
def test_a_large_picture_takes_little_room_in_the_page(side, kind):
    shown = thumbnail(np.zeros((side, side, 1), np.uint8))
    assert shown.startswith(f"data:image/{kind};base64,")
    assert len(shown) < 3000


@pytest.mark.parametrize(("channels", "first"), [(1, 10), (2, 15), (3, 10), (5, 30)])
def test_images_of_any_channels_can_be_shown(channels, first):
    image = np.arange(1, channels + 1, dtype=np.uint8) * 10
    shown = as_picture(np.broadcast_to(image, (4, 4, channels)))
    assert shown.shape == (4, 4, 3)
    assert shown[0, 0, 0] == first


def test_a_report_on_a_table_shows_rows_beside_normal_ones(columns, tmp_path):
    normal, anomalous = (open_source(columns.source_of(part)) for part in ("normal", "anomalous"))
    out = tmp_path / "report.html"
    write_report(columns.run, out, model=columns.model, normal=normal, anomalous=anomalous)
    html = out.read_text()
    assert html.count("<th>sample ") == 9  # the worst, the best and the most wrong, three each
    assert html.count("<th>normal: ") == 27
    assert "against it: far from " in Page(html).text
