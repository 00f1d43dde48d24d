"""A model at work elsewhere: ONNX, parts of a source, many machines, a service."""
