"""The named data sets: where their files lie, how they are read, whence they are downloaded."""

import gzip
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from historyad.data.arrays import Labels, Samples, load_npz
from historyad.errors import InputError


@dataclass(frozen=True)
class SetFiles:
    """One way in which the files of a set lie under a data root.

    ``files`` maps each split to its paths, all of which are needed; ``read`` turns them into
    samples and labels, and is absent for a folder of images. With a ``url``, missing files are
    downloaded and compared with ``md5``.
    """

    files: Mapping[str, tuple[str, ...]]
    read: Callable[[str, Sequence[Path]], tuple[Samples, Labels | None]] | None = None
    url: str = ""
    md5: Mapping[str, str] = field(default_factory=dict)


def _roots(data_root: str | Path | None) -> list[Path]:
    """Folders to look in, in this order; the first is also where downloads go."""
    given = [data_root, os.environ.get("HISTORYAD_DATA"), _cache_folder()]
    return [Path(root).expanduser() for root in given if root]


def _cache_folder() -> str:
    try:
        import pooch  # optional
    except ImportError:
        return "~/.cache/historyad"
    return str(pooch.os_cache("historyad"))


def find_files(name: str, split: str, data_root: str | Path | None) -> tuple[SetFiles, list[Path]]:
    """Return the first layout of which all files are there, downloading as a last resort."""
    roots = _roots(data_root)
    layouts = [layout for layout in SETS[name] if split in layout.files]
    for root in roots:
        for layout in layouts:
            paths = [root / file for file in layout.files[split]]
            if all(path.exists() for path in paths):
                return layout, paths
    failure = "it is not downloaded automatically"
    if layouts[0].url:
        try:
            return layouts[0], _download(layouts[0], split, roots[0])
        except ImportError:
            failure = "to have it downloaded, install historyad[datasets]"
        except (OSError, ValueError) as error:  # no network, no permission, wrong checksum
            failure = f"downloading {layouts[0].url} failed ({type(error).__name__})"
    wanted = ", or ".join(_listed(layout.files[split]) for layout in layouts)
    raise InputError(
        f"{name}:{split} is missing: {failure}. Looked in {', '.join(map(str, roots))} for "
        f"{wanted}. Put the files there, or say where they are with --data-root or HISTORYAD_DATA"
    )


def _listed(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{files[0]} (and {len(files) - 1} beside it)"


def _download(layout: SetFiles, split: str, root: Path) -> list[Path]:
    import pooch  # optional

    paths = [root / file for file in layout.files[split]]
    for path in paths:
        if not path.exists():  # pooch would replace a file that has another checksum
            pooch.retrieve(
                url=layout.url + path.name,
                known_hash=f"md5:{layout.md5[path.name]}",
                fname=path.name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(timeout=10),
            )
    return paths


def _read_digits(split: str, _: Sequence[Path]) -> tuple[Samples, Labels]:
    """8 x 8 digits with grey levels 0..16; each third image, from the first on, is the test set."""
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    chosen = (np.arange(len(images)) % 3 == 0) == (split == "test")
    return images[chosen], digits.target[chosen].astype(np.int64)


def _read_idx(_: str, paths: Sequence[Path]) -> tuple[Samples, Labels]:
    images, labels = _parse_idx(paths[0], n_axes=3), _parse_idx(paths[1], n_axes=1)
    if len(images) != len(labels):
        raise InputError(
            f"{paths[0]} has {len(images)} images but {paths[1]} {len(labels)} labels; "
            "fetch both again"
        )
    return images, labels.astype(np.int64)


def _parse_idx(path: Path, n_axes: int) -> NDArray[np.uint8]:
    """Read an array of bytes in IDX format: 0, 0, type 8, n_axes, big-endian sizes, values."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        header = stream.read(4 + 4 * n_axes)
        if len(header) < 4 + 4 * n_axes or header[:4] != bytes([0, 0, 8, n_axes]):
            raise InputError(f"{path} is not an IDX file of {n_axes} axes; fetch it again")
        shape = [int(size) for size in np.frombuffer(header, ">u4", offset=4)]
        expected = math.prod(shape)
        values = stream.read(expected + 1)
    if len(values) != expected:
        raise InputError(f"{path} should hold {expected} values and does not; fetch it again")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_npz(_: str, paths: Sequence[Path]) -> tuple[Samples, Labels | None]:
    return load_npz(paths[0], "images")


def _read_svhn(_: str, paths: Sequence[Path]) -> tuple[Samples, Labels]:
    """The authors' MATLAB file: X (32, 32, 3, N), y (N, 1) in which 10 stands for the digit 0."""
    from scipy.io import loadmat  # slow to import

    contents = loadmat(paths[0], variable_names=("X", "y"))
    images = np.ascontiguousarray(np.moveaxis(contents["X"], -1, 0))
    return images, contents["y"].ravel().astype(np.int64) % 10


def _read_cifar(_: str, paths: Sequence[Path]) -> tuple[Samples, Labels]:
    """The authors' binary version: records of one label byte and 3 x 32 x 32 values."""
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 3073) for path in paths])
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def _idx_layouts(url: str, md5: Sequence[str], *folders: str) -> tuple[SetFiles, ...]:
    """Layouts of the MNIST family; ``md5`` of train images, train labels, test ones likewise."""
    files = [
        f"{part}-{content}-ubyte"
        for part in ("train", "t10k")
        for content in ("images-idx3", "labels-idx1")
    ]
    return tuple(
        SetFiles(
            {
                "train": tuple(f"{folder}/{file}{suffix}" for file in files[:2]),
                "test": tuple(f"{folder}/{file}{suffix}" for file in files[2:]),
            },
            _read_idx,
            url if suffix else "",
            {file + suffix: checksum for file, checksum in zip(files, md5, strict=True)},
        )
        for folder in folders
        for suffix in (".gz", "")
    )


def _npz_layout(folder: str, *splits: str) -> SetFiles:
    return SetFiles({split: (f"{folder}/{split}.npz",) for split in splits}, _read_npz)


# In the layouts of the sets' authors, of torchvision, and of plain SET/SPLIT.npz. Where a set is
# downloaded, it goes to the first layout. The checksums are those torchvision publishes.
SETS: dict[str, tuple[SetFiles, ...]] = {
    "digits": (SetFiles({"train": (), "test": ()}, _read_digits),),
    "mnist": _idx_layouts(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        [
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ],
        "MNIST/raw",
        "mnist",
    ),
    "kmnist": _idx_layouts(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        [
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ],
        "KMNIST/raw",
        "kmnist",
    ),
    "fashion-mnist": _idx_layouts(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        [
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ],
        "FashionMNIST/raw",
        "fashion-mnist",
        "/usr/share/datasets/fashion-mnist",  # Debian's dataset-fashion-mnist, whatever the root
    ),
    "svhn": (
        *(
            SetFiles(
                {split: (f"{folder}{split}_32x32.mat",) for split in ("train", "test", "extra")},
                _read_svhn,
                "http://ufldl.stanford.edu/housenumbers/",
                {
                    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
                    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
                },
            )
            for folder in ("svhn/", "SVHN/", "")
        ),
        _npz_layout("svhn", "train", "test"),
    ),
    "cifar10": (
        *(
            SetFiles(
                {
                    "train": tuple(f"{folder}/data_batch_{i}.bin" for i in range(1, 6)),
                    "test": (f"{folder}/test_batch.bin",),
                },
                _read_cifar,  # the authors' other version is a pickle, which runs code when loaded
            )
            for folder in ("cifar-10-batches-bin", "cifar10/cifar-10-batches-bin")
        ),
        _npz_layout("cifar10", "train", "test"),
    ),
    "celeba": (
        _npz_layout("celeba", "train", "test", "test_64x64"),
        SetFiles({"train": ("celeba/train",), "test": ("celeba/test",)}),
        SetFiles({"all": ("celeba/img_align_celeba",)}),
    ),
    "tiny-imagenet": (
        _npz_layout("tiny_imagenet", "train", "test", "test_64x64"),
        SetFiles({split: (f"tiny-imagenet-200/{split}",) for split in ("train", "val", "test")}),
    ),
}
