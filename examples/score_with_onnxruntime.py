"""Score an image with an exported detector: score_with_onnxruntime.py model.onnx image.png."""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model, file = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
_, height, width, channels = session.get_inputs()[0].shape
image = Image.open(file).convert("L" if channels == 1 else "RGB")
if image.size != (width, height):
    sys.exit(f"{file} has {image.size} pixels, the detector takes {(width, height)}")
pixels = np.asarray(image).reshape(1, height, width, channels)
score, p_value, is_anomalous = session.run(None, {"images": pixels})
verdict = "anomalous" if is_anomalous[0] else "normal"
print(f"{file}: {verdict}, anomaly score {score[0]:+.4f}, p-value {p_value[0]:.4f}")
