import io

import numpy as np
import pytest
import soundfile
from serving import serving

from historyad import HistoryAD, open_source
from historyad.cli import main
from historyad.data.decoding import decode_image
from historyad.data.sounds import SIDE, is_sound, mel_bands, part_powers, picture_of
from historyad.errors import InputError
from historyad.judge.metrics import auroc

RATE = 16_000


def sine(hertz, seconds=1.0, rate=RATE, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def written(path, samples, rate=RATE, subtype="PCM_16"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def loudest_row(picture):
    return int(picture[..., 0].mean(1).argmax())


def test_a_sine_has_its_power_in_one_place():
    powers = part_powers(sine(1000), RATE)
    assert powers.shape == (SIDE, SIDE)
    np.testing.assert_allclose(powers.sum(1), 0.5**2 / 2, rtol=0.02)
    assert (powers.max(1) > 0.4 * powers.sum(1)).all()


def test_bands_share_every_frequency():
    bands = mel_bands(4096, RATE)
    frequencies = np.fft.rfftfreq(4096, 1 / RATE)
    inside = (frequencies > 50) & (frequencies < 7500)
    np.testing.assert_allclose(bands[inside].sum(1), 1)
    assert (bands.sum(0) > 0).all()


def test_high_tones_are_above_low_ones_and_late_ones_are_right():
    low, high = (picture_of(sine(hertz), RATE) for hertz in (300, 3000))
    assert loudest_row(high) < loudest_row(low)
    late = np.concatenate([np.zeros(RATE), sine(1000)])
    picture = picture_of(late, RATE)[..., 0]
    assert picture[:, :31].max() == 0
    assert picture[:, 33:].max() > 150


def test_grey_is_loudness():
    loud, quiet = (picture_of(sine(1000, amplitude=a), RATE).max() for a in (0.5, 0.05))
    assert int(loud) - int(quiet) == pytest.approx(255 * 20 / 100, abs=1)
    assert picture_of(np.zeros(RATE), RATE).max() == 0


def test_the_picture_depends_neither_on_the_rate_nor_on_the_length():
    wanted = picture_of(sine(1000), RATE).astype(int)
    for rate in (8000, 22_050, 44_100, 96_000):
        found = picture_of(sine(1000, rate=rate), rate).astype(int)
        assert np.abs(found - wanted)[wanted > 100].max() <= 3, rate
    longer = picture_of(sine(1000, seconds=7), RATE).astype(int)
    assert np.abs(longer - wanted)[wanted > 100].max() <= 3
    assert picture_of(sine(1000, seconds=0.01), RATE).shape == (64, 64, 1)


def test_every_usual_kind_of_file_gives_the_same_picture(tmp_path):
    samples = sine(1000) + sine(250)
    wanted = picture_of(samples, RATE).astype(int)
    for subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        found = decode_image(written(tmp_path / "a.wav", samples, subtype=subtype))
        assert np.abs(found.astype(int) - wanted).max() <= 1, subtype
    stereo = np.stack([2 * sine(1000), 2 * sine(250)], axis=1)
    found = decode_image(written(tmp_path / "a.wav", stereo, subtype="FLOAT"))
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_what_is_no_recording_is_refused(tmp_path):
    path = written(tmp_path / "a.wav", sine(1000))
    content = path.read_bytes()
    assert is_sound(content[:12])
    assert not is_sound(b"RIFF\0\0\0\0WEBP")
    with pytest.raises(
        InputError,
        match=r"a.wav holds 100 samples at 16000 Hz, less than 0.01 seconds: leave it out$",
    ):
        decode_image(written(path, np.zeros(100)))
    with pytest.raises(InputError, match="more than 9,999 or 64 channels: cut it into pieces"):
        decode_image(content, max_pixels=9999)
    with pytest.raises(InputError, match="holds values that are no numbers: save it again"):
        decode_image(written(path, np.full(1000, np.nan), subtype="FLOAT"))
    with pytest.raises(
        InputError, match=r"a.wav is clipped: \d+% of its samples are at full scale"
    ):
        decode_image(written(path, np.clip(sine(1000, amplitude=3), -1, 1)))
    assert decode_image(written(path, sine(1000, amplitude=1))).shape[0] == SIDE
    with pytest.raises(InputError, match=r"a.wav holds 0 samples at 16000 Hz.*: leave it out$"):
        decode_image(written(path, np.zeros(0)))
    for damaged in (content[:30], content[:12] + bytes(200)):
        with pytest.raises(InputError, match=r"cannot be read as a recording \(.*\); save it"):
            decode_image(damaged)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Hums of some length and pitch; the odd ones have a whistle."""
    random = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("sounds")
    for folder, n in (("normal", 120), ("fresh", 20), ("odd", 20)):
        (root / folder).mkdir()
        for i in range(n):
            seconds = random.uniform(0.3, 1)
            hum = sine(random.uniform(200, 260), seconds) + 0.01 * random.standard_normal(
                int(seconds * RATE)
            )
            hum[: len(hum) // 2] += (folder == "odd") * 0.05 * sine(4000, seconds)[: len(hum) // 2]
            written(root / folder / f"{i}.wav", hum)
    return root


def test_a_folder_of_recordings_is_a_source(folders, tmp_path, capsys):
    source = open_source(folders / "normal")
    assert source.samples.shape == (120, 64, 64, 1)
    assert source.names[:2] == ["0.wav", "1.wav"]
    detector = HistoryAD(preset="instant").fit(source)
    scores = [detector.anomaly_score(folders / name) for name in ("fresh", "odd")]
    assert auroc(np.repeat([0, 1], 20), np.concatenate(scores)) > 0.98
    detector.save(tmp_path / "run")
    options = ["--maps", str(tmp_path / "maps"), "--out", str(tmp_path / "scores.csv")]
    assert main(["score", str(tmp_path / "run"), str(folders / "odd"), *options]) == 0
    assert (tmp_path / "maps" / "0.wav.png").exists()


def test_voices_are_told_by_their_spectrum(folders):
    model = HistoryAD(preset="instant").fit(folders / "normal").model_
    assert model.kind.name == "sounds"
    assert model.view_names[-1] == "spectrum"
    fresh, odd = (open_source(folders / name).samples for name in ("fresh", "odd"))
    views = [model(part, views=True).views["spectrum"] for part in (fresh, odd)]
    assert auroc(np.repeat([0, 1], 20), np.concatenate(views)) > 0.98
    late = np.roll(fresh, 20, axis=2)  # the same sounds at other times
    np.testing.assert_allclose(model(late, views=True).views["spectrum"], views[0], atol=1e-3)


def test_recordings_of_one_rate_are_learnt_from_and_scored(folders, tmp_path, capsys):
    mixed, run, low = tmp_path / "mixed", tmp_path / "run", tmp_path / "low"
    mixed.mkdir()
    low.mkdir()
    written(low / "0.wav", sine(220, rate=8000), 8000)
    written(mixed / "0.wav", sine(220, rate=8000), 8000)
    for i, rate in enumerate((16_000, 44_100), 1):
        written(mixed / f"{i}.wav", sine(220, rate=rate), rate)
    said = "0.wav is at 8,000 Hz and 1.wav at 16,000 Hz: nothing above 4,000 Hz is heard of the"
    with pytest.raises(InputError, match=said):
        open_source(mixed)
    assert main(["fit", str(mixed), "--out", str(run)]) == 2
    assert said in capsys.readouterr().err
    (mixed / "0.wav").unlink()
    assert open_source(mixed).rate == 16_000  # of what is more, no more is heard
    HistoryAD(preset="instant").fit(folders / "normal").save(run)
    for command in (["score", str(run), str(low)], ["score", str(run), str(low / "0.wav")]):
        assert main(command) == 2
        assert (
            "is at 8,000 Hz, and the detector was fitted on recordings at 16,000 Hz or more: "
            in (capsys.readouterr().err)
        )
    detector, high = HistoryAD.load(run), (folders / "normal" / "0.wav").read_bytes()
    with pytest.raises(InputError, match="bring it to that rate, or fit on recordings that are"):
        detector.anomaly_score(low)
    with serving(detector.model_) as client:
        for data, status in (((low / "0.wav").read_bytes(), 422), (high, 200)):
            answer = client.post("/score", files=[("files", ("0.wav", data))])
            assert answer.status_code == status
            assert ("0.wav is at 8,000 Hz" in answer.text) == (status == 422)


def test_clipped_and_empty_recordings_are_named_and_left_out_of_a_score(folders, tmp_path, capsys):
    run, bad = tmp_path / "run", tmp_path / "bad"
    HistoryAD(preset="instant").fit(folders / "normal").save(run)
    bad.mkdir()
    written(bad / "clipped.wav", np.clip(sine(1000, amplitude=3), -1, 1))
    written(bad / "empty.wav", np.zeros(0))
    written(bad / "fine.wav", sine(220))
    assert main(["fit", str(bad), "--out", str(tmp_path / "other")]) == 2
    said = capsys.readouterr().err
    assert "clipped.wav is clipped: " in said
    assert "record it more quietly, or leave it out" in said
    assert "empty.wav holds 0 samples at 16000 Hz" in said
    assert "leave them out with --skip-unreadable" in said
    assert main(["score", str(run), str(bad)]) == 0
    output = capsys.readouterr()
    assert "1 scored" in output.err
    assert "skipped clipped.wav: " in output.err
    assert [line.split(",")[0] for line in output.out.splitlines()] == ["path", "fine.wav"]


def test_without_the_extra_one_is_told(monkeypatch):
    import sys

    from historyad.data.images import read_image

    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r"install historyad\[sound\]"):
        read_image(io.BytesIO(b"RIFF\0\0\0\0WAVE"), "a.wav", max_pixels=1000)
