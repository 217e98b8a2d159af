"""Test errors of a limbeck model on MNIST, with NumPy and nothing of limbeck.

Usage: python3 numpy_eval.py MODEL.safetensors MNIST_DIR

A safetensors file is an 8-byte little-endian length, a JSON header of that length, and the
tensors' bytes. The net: x = pixel * input_scale + input_shift, then x @ W.T + b for each layer,
with ReLU between them.
"""

import gzip
import json
import pathlib
import sys

import numpy as np


def idx(folder, name, header):
    path = pathlib.Path(folder) / name
    data = path.read_bytes() if path.exists() else gzip.open(f"{path}.gz").read()
    return np.frombuffer(data, np.uint8, offset=header)


def main(model, folder):
    data = pathlib.Path(model).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.pop("__metadata__")

    def tensor(name):
        start, end = header[name]["data_offsets"]
        return np.frombuffer(body[start:end], "<f4").reshape(header[name]["shape"])

    pixels = idx(folder, "t10k-images-idx3-ubyte", 16).reshape(-1, 784).astype(np.float32)
    labels = idx(folder, "t10k-labels-idx1-ubyte", 8)
    scale, shift = (np.float32(metadata[key]) for key in ("input_scale", "input_shift"))
    x = pixels * scale + shift
    layers = len(header) // 2
    for i in range(layers):
        x = x @ tensor(f"layers.{i}.weight").T + tensor(f"layers.{i}.bias")
        if i < layers - 1:
            x = np.maximum(x, 0)
    print(int((x.argmax(axis=1) != labels).sum()))


if __name__ == "__main__":
    main(*sys.argv[1:])
