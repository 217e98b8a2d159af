"""The small task whose results tests/golden/*.safetensors hold, shared by both generators.

All numbers are exact in f32 (pixels/256 - 1/2; weights, logits, rates and weights of the loss with
few binary digits), so that f32 and f64 start from the same values.
"""

import pathlib

import numpy as np
from safetensors.numpy import save_file

WIDTHS = [12, 9, 7, 5]
BATCH = 11
CHECKPOINTS = (1, 10, 100)

# T, soft weight, hard weight; learning rate, momentum, Nesterov, weight decay; dropout masks.
CASES = {
    "hard": (1.0, 0.0, 1.0, 2**-4, 0.875, False, 0.0, False),
    "soft": (20.0, 1.0, 0.0, 2**-6, 0.875, True, 0.0, False),
    "mixed": (4.0, 0.75, 0.25, 2**-5, 0.75, False, 2**-7, False),
    "logits": (np.inf, 1.0, 0.0, 2**-5, 0.5, True, 0.0, False),
    "dropout": (2.0, 0.5, 0.5, 2**-5, 0.875, False, 2**-8, True),
}

MANY = 14_000


def coarse(x):
    """x rounded to multiples of 2^-10."""
    return np.round(x * 1024) / 1024


def task():
    """Pixels, weights [outputs, inputs] and biases, teacher's logits, labels, masks."""
    rng = np.random.default_rng(1)
    arrays = {"pixels": rng.integers(0, 256, (BATCH, WIDTHS[0]), dtype=np.uint8)}
    for i, (inputs, outputs) in enumerate(zip(WIDTHS, WIDTHS[1:])):
        bound = np.sqrt(6 / inputs)
        arrays[f"layers.{i}.weight"] = coarse(rng.uniform(-bound, bound, (outputs, inputs)))
        arrays[f"layers.{i}.bias"] = coarse(rng.uniform(-0.25, 0.25, outputs))
    arrays["teacher"] = coarse(rng.normal(0, 3, (BATCH, WIDTHS[-1])))
    arrays["labels"] = rng.integers(0, WIDTHS[-1], BATCH)
    # What is dropped is 0, what is kept is doubled: a rate of one half.
    for i, width in enumerate(WIDTHS[:-1]):
        arrays[f"mask.{i}"] = 2.0 * rng.integers(0, 2, (BATCH, width))
    return arrays


def inputs(arrays):
    return arrays["pixels"] / 256 - 0.5


def many():
    """Logits and labels of 14,000 classes, by a formula that the test repeats."""
    e, c = np.indices((5, MANY))
    return ((e * 7919 + c * 104_729 + e * c % 97 * 31) % 8192) / 1024 - 4, np.arange(5) * 2791 + 13


def save(name, dtype, arrays, results, versions):
    """A file of the task and its results, with the versions of what computed them."""
    floats = {k: v.astype(np.float64) for k, v in arrays.items() if v.dtype.kind == "f"}
    floats |= {k: np.asarray(v, dtype=dtype) for k, v in results.items()}
    whole = {k: v for k, v in arrays.items() if v.dtype.kind != "f"}
    path = pathlib.Path(__file__).parent / f"{name}-{dtype}.safetensors"
    save_file({k: np.ascontiguousarray(v) for k, v in (floats | whole).items()}, path, versions)
    print(path, path.stat().st_size, versions)
