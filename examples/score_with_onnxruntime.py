"""Score an image with an exported detector: score_with_onnxruntime.py model.onnx image.png."""

import io
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def pixels_of(file: str | Path) -> NDArray[np.uint8]:
    """Pixels as the command line reads them: uint8 (height, width, 1 or 3)."""
    # From its bytes: some TIFFs that are opened by name are turned twice.
    opened = Image.open(io.BytesIO(Path(file).read_bytes()), formats=FORMATS)
    if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":
        sys.exit(f"{file} has several frames: save each as a file of its own")
    image = ImageOps.exif_transpose(opened)
    is_deep = image.mode == "F" or image.mode.startswith("I")
    is_grey = image.mode in ("1", "L", "LA")
    if image.mode in ("La", "RGBa") or (is_deep and image.has_transparency_data):
        sys.exit(f"{file} has transparency of a rare kind: save it without")
    if is_deep:
        values, top = np.asarray(image), 1 if image.mode == "F" else 65535
        if not (values.min() >= 0 and values.max() <= top):
            sys.exit(f"{file} has values outside 0..{top}: scale them")
        return np.rint(values * (255 / top)).astype(np.uint8)[..., None]
    if image.has_transparency_data:  # over black
        layers = np.asarray(image.convert("LA" if is_grey else "RGBA"), np.uint16)
        return ((layers[..., :-1] * layers[..., -1:] + 127) // 255).astype(np.uint8)
    pixels = np.asarray(image.convert("L" if is_grey else "RGB"))
    return pixels[..., None] if is_grey else pixels


if __name__ == "__main__":
    model, file = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    shape, pixels = tuple(session.get_inputs()[0].shape[1:]), pixels_of(file)
    if pixels.shape != shape:
        sys.exit(f"{file} is of shape {pixels.shape}, the detector takes {shape}")
    score, p_value, is_anomalous, *maps = session.run(None, {"images": pixels[None]})
    verdict = "anomalous" if is_anomalous[0] else "normal"
    print(f"{file}: {verdict}, anomaly score {score[0]:+.4f}, p-value {p_value[0]:.4f}")
    for (values,) in maps:  # of detectors that make one
        row, column = np.unravel_index(values.argmax(), values.shape)
        print(f"most anomalous at column {column}, row {row}: {values[row, column]:.1f}")
