import numpy as np
import torch
from scipy.signal import periodogram

from historyad.score.windows import WindowCompanions, WindowLook


def flat(windows):
    """Return windows (N, steps, channels) as networks see them."""
    return torch.from_numpy(windows.reshape(len(windows), -1).astype(np.float32))


def random_windows(n=5, steps=16, channels=2):
    return np.random.default_rng(0).standard_normal((n, steps, channels))


def test_level_is_the_mean_and_the_logarithm_of_the_deviation():
    windows = random_windows()
    found = WindowLook(32, 2).level(flat(windows)).numpy()
    np.testing.assert_allclose(found[:, :2], windows.mean(1), atol=1e-6)
    np.testing.assert_allclose(found[:, 2:], np.log(windows.std(1) + 0.05), atol=1e-6)


def test_shape_does_not_change_with_level_and_scale_of_a_channel():
    windows = random_windows()
    look = WindowLook(32, 2)
    moved = windows * [3, 0.5] + [100, -7]
    shape = look.shape(flat(windows)).numpy().reshape(windows.shape)
    np.testing.assert_allclose(look.shape(flat(moved)), shape.reshape(5, -1), atol=1e-4)
    np.testing.assert_allclose(shape.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(shape.std(1), 1, atol=1e-6)
    np.testing.assert_allclose(shape[0, :, 1], (windows[0, :, 1] - windows[0, :, 1].mean())
                               / windows[0, :, 1].std(), atol=1e-5)  # fmt: skip


def test_the_shape_of_what_hardly_varies_is_not_noise_made_large():
    windows = np.full((1, 16, 1), 3.0)
    windows[0, 0] += 1e-3
    assert WindowLook(16, 1).shape(flat(windows)).abs().max() < 0.05


def test_the_spectrum_does_not_depend_on_where_a_wave_begins():
    t = np.arange(128)
    look = WindowLook(128, 1)
    waves = [np.sin(2 * np.pi * 9 * t / 128 + phase)[None, :, None] for phase in (0, 1, 2)]
    found = [look.spectrum(flat(wave)) for wave in waves]
    np.testing.assert_allclose(found[1], found[0], atol=0.05)
    slower = np.sin(2 * np.pi * 3 * t / 128)[None, :, None]
    assert (look.spectrum(flat(slower)) - found[0]).abs().max() > 3


def test_the_spectrum_is_the_periodogram_in_bands():
    windows = random_windows(steps=64, channels=1)
    look = WindowLook(64, 1)
    power = periodogram(
        windows[..., 0], window=look.taper.numpy(), scaling="density", detrend="constant"
    )[1]
    power[:, 1:-1] /= 2  # of one side
    power *= float(look.taper.square().sum()) / 64
    wanted = np.log(power @ look.bands.numpy() + 1e-3)
    np.testing.assert_allclose(look.spectrum(flat(windows)), wanted, rtol=1e-3, atol=1e-4)


def test_bands_share_all_frequencies_but_the_constant():
    for n_steps in (2, 3, 10, 64, 1000):
        bands = WindowLook(n_steps, 1).bands.numpy()
        assert len(bands) == n_steps // 2 + 1
        np.testing.assert_allclose(bands.sum(0), 1, rtol=1e-5)
        assert (np.count_nonzero(bands, axis=1)[1:] <= 1).all()
        assert bands[-1].any() or n_steps > 2


def test_a_long_window_is_compared_by_means_of_some_steps():
    windows = random_windows(3, 4096, 1)
    look = WindowLook(4096, 1)
    np.testing.assert_allclose(
        look.coarse(flat(windows)), windows.reshape(3, 1024, 4).mean(2), atol=1e-5
    )
    both = random_windows(3, 2048, 2)
    wanted = both.reshape(3, 512, 4, 2).mean(2).reshape(3, -1)
    np.testing.assert_allclose(WindowLook(4096, 2).coarse(flat(both)), wanted, atol=1e-5)
    short = flat(random_windows())
    assert WindowLook(32, 2).coarse(short) is short


def test_neighbours_are_at_their_plain_distance():
    windows = random_windows(30)
    companions = WindowCompanions.fit(flat(windows), 2)
    query = flat(random_windows(2) + 0.1)
    distances = np.sort(torch.cdist(query, flat(windows)).numpy(), axis=1)[:, :5].mean(1)
    views = companions(query, query)
    np.testing.assert_allclose(views["neighbours"], distances, rtol=1e-4)


def test_each_view_sees_what_it_is_for():
    random = np.random.default_rng(0)
    phases = 2 * np.pi * random.random((400, 1))
    normal = np.sin(phases + np.arange(64) / 3)[..., None] + 0.1 * random.normal(size=(400, 64, 1))
    companions = WindowCompanions.fit(flat(normal[:300]), 1)

    def views(windows):
        with torch.no_grad():
            return companions(flat(windows), flat(windows))

    usual = {name: float(view.quantile(0.95)) for name, view in views(normal[300:]).items()}
    odd = {
        "level": normal[300:] + 3,
        "spectrum": normal[300:] + 0.5 * random.normal(size=(100, 64, 1)),
        "shape": np.sign(normal[300:]) * 0.8,
        "neighbours": np.roll(normal[300:], 20, 1) * 2,
        "gaussian": normal[300:] + np.linspace(-2, 2, 64)[:, None],
    }
    for name, windows in odd.items():
        assert float(views(windows)[name].median()) > usual[name], name


def test_companions_of_the_same_sizes_are_built_anew():
    windows = flat(random_windows(40))
    fitted = WindowCompanions.fit(windows, 2)
    built = WindowCompanions.build(32, 2, **fitted.sizes)
    built.load_state_dict(fitted.state_dict())
    for name, view in fitted(windows, windows).items():
        torch.testing.assert_close(built(windows, windows)[name], view)


def test_no_view_hides_a_value_that_is_not_a_number():
    windows = flat(random_windows(40))
    companions = WindowCompanions.fit(windows, 2)
    windows[3, 5] = np.nan
    for view in companions(windows, windows).values():
        assert view.isnan().tolist() == [row == 3 for row in range(40)]
