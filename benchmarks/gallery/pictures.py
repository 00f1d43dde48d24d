"""Make the pictures of the documentation: `python -m benchmarks.gallery.pictures WORK`.

The folder WORK keeps what takes long, a fitted detector and the toy example, and a second call
finds it there. Needs MNIST and KMNIST (HISTORYAD_DATA names their folder), chromium and
chromedriver.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.pages import PICTURES
from benchmarks.results.pictures import save_webp
from historyad import HistoryAD, open_source
from historyad.judge.explain import anomaly_map, overlay

RUN = "runs/mnist"

BLUE, VERMILLION = "#0072b2", "#d55e00"  # Okabe and Ito
DESKTOP, PHONE = (1200, 900), (390, 780)
MARGIN = 8  # pixels of the page
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"),
)

Images = NDArray[np.uint8]


def main() -> None:
    """Fit where WORK has no detector, and make every picture."""
    work = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    os.chdir(work)
    historyad("fit", "mnist:train", "--preset", "quick", "--out", RUN)
    if not Path("toy/toy.png").exists():
        historyad("reproduce", "toy", "--out", "toy")
    save(Image.open("toy/toy.png"), "toy")
    historyad("probe", RUN, "mnist:test", "--out", "probe")
    save(Image.open("probe/probe.png"), "probe")

    detector = HistoryAD.load(RUN)
    normal, anomalous = (open_source(name).samples for name in ("mnist:test", "kmnist:test"))
    draw_scores(detector, normal, anomalous)
    draw_maps(detector, normal)
    sources = ("--source", "mnist:train", "--normal", "mnist:test", "--anomalous", "kmnist:test")
    historyad("report", RUN, *sources)
    with browser() as window:
        photograph_report(window)
        photograph_service(window, [*normal[:9], *anomalous[:3]])


def historyad(*arguments: str) -> None:
    """Run one command."""
    subprocess.run([sys.executable, "-m", "historyad", *arguments], check=True)


def save(picture: Image.Image, name: str) -> None:
    """Write a picture of the documentation, and another to look at."""
    save_webp(picture, PICTURES / f"{name}.webp")
    picture.save(f"{name}.png")


def save_figure(figure: Figure, name: str) -> None:
    """Write a figure of matplotlib."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=200)
    save(Image.open(drawn), name)


def draw_scores(detector: Any, normal: Images, anomalous: Images) -> None:
    """Draw how the scores of both sets are distributed, and examples beneath."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    halves: Any = figure.subfigures(2, height_ratios=(2.4, 1))
    top, bottom = halves
    axes = top.subplots()
    edges = np.linspace(-1, 1, 81)
    for images, colour, label in (
        (normal, BLUE, "digits (normal)"),
        (anomalous, VERMILLION, "Japanese characters (anomalous)"),
    ):
        scores = detector.anomaly_score(images)
        axes.hist(scores, edges, color=colour, alpha=0.75, label=label)
    axes.axvline(detector.threshold_, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        "threshold: 1 % of held-out\nnormal images lie above it",
        (detector.threshold_, 0.95),
        xycoords=("data", "axes fraction"),
        xytext=(8, 0),
        textcoords="offset points",
        verticalalignment="top",
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set(xlabel="anomaly score", yticks=[], xlim=(-1.05, 1.05))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.02, 1))

    for ax, images, colour in zip(
        bottom.subplots(1, 2), (normal, anomalous), (BLUE, VERMILLION), strict=True
    ):
        show(
            ax,
            np.hstack(
                [np.pad(255 - image[..., 0], 2, constant_values=255) for image in images[:8]]
            ),
        )
        for i, score in enumerate(detector.anomaly_score(images[:8])):
            ax.text(32 * i + 16, 42, f"{score:+.2f}", color=colour, size=7, ha="center")
    save_figure(figure, "scores")


def draw_maps(detector: Any, images: Images) -> None:
    """Draw digits as they are and damaged, with the map over each of them."""
    chosen = images[[4, 7, 11, 17, 61, 84]]
    striped, spotted = chosen.copy(), chosen.copy()
    striped[:, 2:12, 16:26:2] = 255
    spotted[:, 19:26, 3:10] = 255
    rows = (("as they are", chosen), ("with stripes", striped), ("with a spot", spotted))
    figure = Figure(figsize=(7.2, 2.7), layout="constrained")
    for ax, (title, row) in zip(figure.subplots(3), rows, strict=True):
        show(ax, np.hstack([beside_its_map(detector, image) for image in row]))
        ax.text(-4, 14, title, size=8, ha="right", va="center")
        for i, score in enumerate(detector.anomaly_score(row)):
            colour = VERMILLION if score > detector.threshold_ else BLUE
            ax.text(62 * i + 30, 36, f"{score:+.2f}", color=colour, size=8, ha="center")
    save_figure(figure, "maps")


def beside_its_map(detector: Any, image: Images) -> Images:
    """Return the image and, to its right, the image with the map over it."""
    mapped = overlay(image, anomaly_map(detector.model_, image))
    gap = np.full((len(image), 2, 3), 255, np.uint8)
    pair = np.hstack([np.repeat(image, 3, -1), gap, mapped])
    return np.pad(pair, ((0, 0), (2, 2), (0, 0)), constant_values=255)


def show(ax: Any, picture: Images) -> None:
    """Show pixels as they are, without axes."""
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.axis("off")


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a browser without a window, with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        window = webdriver.Chrome(options, service)
        try:
            yield window
        finally:
            window.quit()


def resize(window: Any, size: tuple[int, int]) -> None:
    """Set the size of the page; a phone has finer pixels."""
    width, height = size
    scale = 2 if width == PHONE[0] else 1
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": scale == 2}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def photograph(window: Any, name: str, size: tuple[int, int], last: str) -> None:
    """Save the page down to the end of the element ``last``, so that nothing is cut through."""
    bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
    resize(window, (size[0], math.ceil(window.execute_script(bottom, last)) + MARGIN))
    save(Image.open(BytesIO(window.get_screenshot_as_png())), name)


def photograph_report(window: Any) -> None:
    """Save the beginning of the report, up to its first charts, as two devices show it."""
    for size, name in ((DESKTOP, "report"), (PHONE, "report-phone")):
        resize(window, size)
        window.get(Path("report.html").absolute().as_uri())
        photograph(window, name, size, ".charts figure")


def photograph_service(window: Any, images: list[Images]) -> None:
    """Serve the detector, drop the images on its page, and save what it says."""
    folder = Path("dropped")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"image-{i + 1}.png")
    command = [sys.executable, "-m", "historyad", "serve", RUN, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://\S+", server.stdout.readline() if server.stdout else "")
        assert found
        resize(window, DESKTOP)
        window.get(found[0])
        WebDriverWait(window, 60).until(
            lambda _: window.find_element(By.ID, "images").is_displayed()
        )
        files = "\n".join(str(file.absolute()) for file in sorted(folder.iterdir()))
        window.find_element(By.ID, "files").send_keys(files)
        WebDriverWait(window, 60).until(
            lambda _: len(window.find_elements(By.CSS_SELECTOR, ".map[src]")) == len(images)
        )
        photograph(window, "service", DESKTOP, "#results li:nth-child(5)")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
