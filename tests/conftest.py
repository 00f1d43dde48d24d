import os

# Before torch is imported: two pytest workers on two cores must not each start two threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before scipy is imported: one of scikit-learn's checks of estimators asks for it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fitted import Fitted, fit_columns, fit_crops, fit_features, fit_whole
from hypothesis import settings
from sklearn.datasets import load_digits
from storing import Disk
from tiny import TRAINED, TinyBackbone

from historyad import HistoryAD
from historyad.backbones.graphs import write_backbone
from historyad.constants import CONSTANTS

# How long a test takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real data sets; tests that need it run only where HISTORYAD_DATA names one."""
    if "HISTORYAD_DATA" not in os.environ:
        pytest.skip("HISTORYAD_DATA is not set")
    return Path(os.environ["HISTORYAD_DATA"])


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All handwritten digits of scikit-learn: images uint8 (1797, 8, 8, 1), labels (1797,)."""
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, bunch.target


@pytest.fixture(scope="session")
def split(digits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits for the peers: all but the zeros, half to fit on, half to test on, and the zeros."""
    images, labels = digits
    normal = images[labels != 0]
    return normal[::2], normal[1::2], images[labels == 0]


@pytest.fixture(scope="session")
def zeros(digits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Zeros for the peers, half to fit on, half to test on, and some of the other digits.

    A small network learns one class on any processor and from any seed. What a GAN learns of nine
    classes at once varies with both, from chance to well: GANs have these alone. Few are tested
    on: what searches latents is slow.
    """
    images, labels = digits
    normal = images[labels == 0]
    return normal[::2], normal[1::2][:60], images[labels != 0][::27]


@pytest.fixture
def disk(tmp_path):
    """A small disk that can be filled and write-protected."""
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


@pytest.fixture
def constants(monkeypatch):
    """Let a module see other constants than those that are declared."""

    def change(module, **values):
        monkeypatch.setattr(module, "CONSTANTS", replace(CONSTANTS, **values))

    return change


# One detector of each kind of input, fitted once. Who changes its files copies them.


@pytest.fixture(scope="session")
def whole(digits, tmp_path_factory) -> Fitted:
    return fit_whole(digits[0], tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def crops(tmp_path_factory) -> Fitted:
    return fit_crops(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> Path:
    """The file of a network that sees squares of 32 pixels in 8 x 8 cells of 20 features."""
    path = tmp_path_factory.mktemp("backbone") / "tiny.onnx"
    write_backbone(TinyBackbone(), path, input_size=32)
    return path


@pytest.fixture(scope="session")
def features(tmp_path_factory, tiny_backbone) -> Fitted:
    return fit_features(tmp_path_factory.mktemp("features"), tiny_backbone)


@pytest.fixture(scope="session")
def columns(tmp_path_factory) -> Fitted:
    return fit_columns(tmp_path_factory.mktemp("columns"))


@pytest.fixture(scope="session", params=["whole", "crops", "features", "columns"])
def fitted(request) -> Fitted:
    """Each of them."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory) -> Path:
    """The run of a detector of digits that was trained for two seconds, on the first 1,000."""
    run = tmp_path_factory.mktemp("trained") / "run"
    HistoryAD(**TRAINED).fit(digits[0][:1000], run=run)
    return run
