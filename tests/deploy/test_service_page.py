"""The page, in a real browser: Debian's chromium and chromium-driver."""

import csv
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from serving import HeldModel, serving
from tiny import tiny_config

from historyad.data.datasets import open_source
from historyad.model.fit import fit_model
from historyad.model.run import RunDirectory

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1200, 900), (360, 740)

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and "CI" not in os.environ,
    reason="needs chromium and chromedriver (apt-get install chromium chromium-driver)",
)


@pytest.fixture(scope="module")
def model(digits, tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("page") / "run")
    return fit_model(open_source(digits[0][:400]), tiny_config(), run)


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """Ten digits, one of them inverted and with markup in its name, and a text file."""
    folder = tmp_path_factory.mktemp("files")
    for i, image in enumerate(digits[0][400:409, :, :, 0]):
        Image.fromarray(image).save(folder / f"digit-{i}.png")
    odd = 255 - digits[0][409, :, :, 0]
    Image.fromarray(odd).save(folder / "<b onclick=x>odd.png")
    (folder / "notes.txt").write_text("no image")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


def resize(browser, size):
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def open_page(browser, client, size=DESKTOP):
    resize(browser, size)
    browser.get_log("browser")  # forget what an earlier page wrote
    browser.get(str(client.base_url))


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


@pytest.fixture
def page(browser, client):
    open_page(browser, client)
    wait(browser, lambda: find(browser, "images").is_displayed())
    yield browser
    assert browser.get_log("browser") == []  # no error, and nothing that the policy refused


def find(browser, name):
    return browser.find_element(By.ID, name)


def wait(browser, condition):
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: condition())


def choose(browser, files):
    find(browser, "files").send_keys("\n".join(map(str, files)))


def cards(browser):
    return browser.find_elements(By.CSS_SELECTOR, "#results li")


def text_of(card, part):
    return card.find_element(By.CLASS_NAME, part).text


def choose_and_wait(page, files):
    choose(page, files)
    n_images = sum(file.suffix == ".png" for file in files)
    wait(page, lambda: "waiting" not in find(page, "status").text)
    wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, ".map[src]")) == n_images)


def verdict(result):
    return "anomalous" if result["is_anomalous"] else "normal"


def short(value):
    return f"{float(f'{value:.2g}'):g}"


def test_it_says_what_the_model_is(page):
    text = find(page, "model").text
    assert "trained on 320 grey images, 8 × 8 (array" in text
    assert "calibrated on 80 more" in text


def test_images_are_scored_and_sorted_by_anomaly(page, client, files):
    choose_and_wait(page, files)
    parts = [("files", (file.name, file.read_bytes())) for file in files]
    results = client.post("/score", files=parts).json()["results"]
    scored = [result for result in results if "error" not in result]
    scored.sort(key=lambda result: -result["anomaly_score"])
    *good, bad = cards(page)
    for card, result in zip(good, scored, strict=True):
        assert text_of(card, "name") == result["name"]
        assert text_of(card, "verdict") == verdict(result)
        score = f"{result['anomaly_score']:+.3f}".replace("-", "−")
        p_value = short(result["p_value"])
        assert text_of(card, "figures") == f"score {score} · p-value {p_value}"
        assert card.find_element(By.CLASS_NAME, "map").get_attribute("alt")
        for picture in card.find_elements(By.TAG_NAME, "img"):
            assert page.execute_script("return arguments[0].naturalWidth", picture) == 8
    assert text_of(bad, "name") == "notes.txt"
    assert text_of(bad, "verdict") == "not scored"
    assert "cannot be read as an image" in text_of(bad, "meaning")
    assert not bad.find_element(By.CLASS_NAME, "image").is_displayed()
    n_anomalous = sum(result["is_anomalous"] for result in scored)
    assert find(page, "status").text == f"{n_anomalous} of 10 anomalous, 1 not scored."


def test_the_slider_changes_verdicts_as_the_calibration_does(page, client, files):
    choose_and_wait(page, files)
    slider = find(page, "rate")
    for key in (Keys.HOME, *[Keys.ARROW_RIGHT] * 4):
        slider.send_keys(key)
        rate = float(page.execute_script("return rate()"))
        assert find(page, "rate-text").text.startswith(f"{short(100 * rate)} % (1 in ")
        assert slider.get_attribute("aria-valuetext") == find(page, "rate-text").text
        parts = [("files", (file.name, file.read_bytes())) for file in files]
        answer = client.post(f"/score?false_positive_rate={rate}", files=parts).json()
        expected = {
            result["name"]: verdict(result) for result in answer["results"] if "error" not in result
        }
        shown = {text_of(card, "name"): text_of(card, "verdict") for card in cards(page)[:-1]}
        assert shown == expected
        n_anomalous = sum(verdict == "anomalous" for verdict in expected.values())
        assert find(page, "status").text.startswith(f"{n_anomalous} of 10 anomalous")
    assert rate == 0.5
    assert n_anomalous


def test_images_can_be_dropped_anywhere(page, files):
    page.execute_script(
        """
        const bytes = Uint8Array.from(arguments[0]);
        const dropped = new DataTransfer();
        dropped.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        const options = { dataTransfer: dropped, bubbles: true, cancelable: true };
        document.querySelector("h1").dispatchEvent(new DragEvent("drop", options));
        """,
        list(files[-2].read_bytes()),
    )
    wait(page, lambda: find(page, "status").text.endswith("of 1 anomalous."))
    assert text_of(cards(page)[0], "name") == "dropped.png"


def test_the_table_can_be_saved(page, files, downloads):
    choose_and_wait(page, files)
    find(page, "save").click()
    table = downloads / "scores.csv"
    wait(page, table.exists)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [text_of(card, "name") for card in cards(page)[:-1]]
    assert set(rows[0]) == {"path", "anomaly_score", "p_value", "is_anomalous"}


def test_names_in_the_table_are_no_formulas(page, files, tmp_path, downloads):
    names = {
        "=HYPERLINK(1).png": "'=HYPERLINK(1).png",
        "-1,2.png": "'-1,2.png",
        'ü"x".png': 'ü"x".png',
        "a\x1b[2J\u202e.png": r"a\x1b[2J\u202e.png",
    }
    for name in names:
        (tmp_path / name).write_bytes(files[0].read_bytes())
    choose_and_wait(page, sorted(tmp_path.iterdir()))
    (downloads / "scores.csv").unlink(missing_ok=True)
    find(page, "save").click()
    wait(page, (downloads / "scores.csv").exists)
    with (downloads / "scores.csv").open(newline="", encoding="utf-8") as file:
        assert {row["path"] for row in csv.DictReader(file)} == set(names.values())


def test_clearing_leaves_nothing(page, files):
    choose_and_wait(page, files[:3])
    find(page, "clear").click()
    assert cards(page) == []
    assert find(page, "status").text == "No images yet."
    assert page.switch_to.active_element.get_attribute("id") == "files"
    assert not find(page, "clear").is_enabled()
    choose_and_wait(page, files[:3])  # the same again
    assert len(cards(page)) == 3


# --- for everyone


def test_the_keyboard_reaches_everything_in_order(page, files):
    choose_and_wait(page, files[:2])
    page.execute_script("document.activeElement.blur(); window.focus()")
    reached = []
    for _ in range(4):
        ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(page.switch_to.active_element.get_attribute("id"))
    assert reached == ["files", "rate", "save", "clear"]
    page.execute_script("document.getElementById('files').focus()")
    outline = page.execute_script(
        "return getComputedStyle(document.getElementById('drop')).outline"
    )
    assert "3px" in outline  # what has the focus can be seen


def test_everything_has_a_name(page, files):
    choose_and_wait(page, files)
    for element in page.find_elements(By.CSS_SELECTOR, "input, button, section, ol, img"):
        if element.is_displayed() or element.get_attribute("id") == "files":
            if element.get_attribute("class").startswith("image"):
                assert element.get_attribute("alt") == ""  # its name stands beside it
            else:
                assert element.accessible_name
    assert find(page, "status").aria_role == "status"
    assert page.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    assert page.find_elements(By.CSS_SELECTOR, "b") == []  # a name is text, whatever it holds


CONTRASTS = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = channels(colour).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (channels(colour)[3] !== 0) return colour;
  }
};
return [...document.querySelectorAll("body *")]
  .filter((node) => node.checkVisibility() && !node.disabled)
  .filter((node) => [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim()))
  .map((node) => {
    const pair = [luminance(getComputedStyle(node).color), luminance(ground(node))];
    const [low, high] = pair.sort((a, b) => a - b);
    return [node.className || node.id || node.tagName, (high + 0.05) / (low + 0.05)];
  });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page, files, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    choose_and_wait(page, files)
    find(page, "rate").send_keys(Keys.END)
    contrasts = page.execute_script(CONTRASTS)
    assert {"name", "verdict", "figures", "limits"} <= {name for name, _ in contrasts}
    assert {name for name, contrast in contrasts if contrast < 4.5} == set()  # WCAG 2.2, AA


@pytest.mark.parametrize("size", [DESKTOP, PHONE, (320, 600)])
def test_nothing_is_cut_off_at_any_width(page, files, size):
    resize(page, size)
    choose_and_wait(page, files)
    find(page, "rate").send_keys(Keys.END)
    assert page.execute_script("return document.documentElement.scrollWidth") <= size[0]
    for card in cards(page):
        assert card.rect["x"] >= 0
        assert card.rect["x"] + card.rect["width"] <= size[0]


# --- when things go wrong


def test_a_token_is_asked_for_and_used(browser, model, files):
    with serving(model, token="sesame") as client:
        open_page(browser, client)
        for token in ("wrong", "sesame"):
            wait(browser, lambda: find(browser, "token-form").is_displayed())
            assert browser.switch_to.active_element.get_attribute("id") == "token"
            ActionChains(browser).send_keys(token + Keys.ENTER).perform()
        wait(browser, lambda: find(browser, "images").is_displayed())
        assert not find(browser, "token-form").is_displayed()
        choose_and_wait(browser, files[:3])
        assert find(browser, "status").text.endswith("of 3 anomalous.")


def test_a_busy_service_is_asked_again(browser, model, files):
    held = HeldModel.of(model)
    with serving(held, max_samples=2, max_files=1, batch_size=1) as client:
        open_page(browser, client)
        wait(browser, lambda: find(browser, "images").is_displayed())
        held.hold()
        choose(browser, files[1:2])
        assert held.at_work.wait(20)
        browser.execute_script("window.other = score([items[0].file])")  # waits in the queue
        wait(browser, lambda: "historyad_queue_samples 1.0" in client.get("/metrics").text)
        browser.execute_script("window.third = score([items[0].file])")  # finds it full
        wait(browser, lambda: 'status="503"' in client.get("/metrics").text)
        held.gate.set()
        (result,) = browser.execute_script("return window.third")
        assert "error" not in result
        wait(browser, lambda: find(browser, "status").text.endswith("of 1 anomalous."))


def test_a_service_that_is_gone_is_named(browser, model, files):
    with serving(model) as client:
        open_page(browser, client)
        wait(browser, lambda: find(browser, "images").is_displayed())
    choose(browser, files[1:2])
    wait(browser, lambda: "not scored" in find(browser, "status").text)
    assert "does not answer" in text_of(cards(browser)[0], "meaning")


def test_a_file_that_is_too_large_is_not_sent(browser, model, files, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    with serving(model, max_body_bytes=20_000) as client:
        open_page(browser, client)
        wait(browser, lambda: find(browser, "images").is_displayed())
        choose(browser, [tmp_path / "large.png", files[1]])
        wait(browser, lambda: find(browser, "status").text.endswith("1 not scored."))
        assert "Larger than" in text_of(cards(browser)[-1], "meaning")


def test_images_that_are_seen_in_crops_are_sent_one_at_a_time(browser, digits, tmp_path):
    photos = np.kron(digits[0][:110], np.ones((3, 3, 1), np.uint8))
    run = RunDirectory(tmp_path / "run")
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, photo in zip(paths, photos, strict=False):
        Image.fromarray(photo[..., 0]).save(path)
    model = fit_model(open_source(photos), tiny_config(patch=8, epoch_images=256), run)
    with serving(model, max_work_pixels=1000) as client:  # an image has 576
        open_page(browser, client)
        wait(browser, lambda: find(browser, "images").is_displayed())
        choose_and_wait(browser, paths)
        assert find(browser, "status").text.endswith("of 3 anomalous.")


def test_a_model_of_vectors_shows_how_it_is_asked(browser, digits, tmp_path):
    samples = digits[0].reshape(-1, 64)[:, 10:20].astype(np.float32)
    run = RunDirectory(tmp_path / "run")
    with serving(fit_model(open_source(samples[:400]), tiny_config(), run)) as client:
        open_page(browser, client)
        wait(browser, lambda: find(browser, "vectors").is_displayed())
        assert not find(browser, "images").is_displayed()
        assert "trained on 320 vectors of 10 numbers" in find(browser, "model").text
        assert find(browser, "curl").text.startswith(f"curl {str(client.base_url).rstrip('/')}")
        browser.execute_script("console.warn('the end')")
        log = []
        wait(browser, lambda: log.extend(browser.get_log("browser")) or log)
        assert len(log) == 1  # nothing was written before it
        assert "the end" in log[0]["message"]
