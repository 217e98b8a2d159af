"""What the peers' training steps share: the configurations, the arguments, the fixed case.

The step: images stay u8 in memory and are gathered in a new random order each epoch, converted to
float, and trained on with SGD and momentum: the teacher with dropout 0.2 of the inputs and 0.5 of
the hidden units on labels, the student on cached teacher logits at T = 20 and, with weight 0.05,
on labels. The loss is read in each step, as a trainer that reports it must.
"""

import argparse
import json
import pathlib
import statistics
import struct

import numpy

EXAMPLES = 8192
WARM_UP = 8
TEMPERATURE = 20.0
HARD_WEIGHT = 0.05
WIDTHS = {"teacher": 1200, "student": 800}
CLASSES = 10


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--task", choices=WIDTHS, default="teacher")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32",
                        help="of the products' operands; sums, weights and losses are f32")
    parser.add_argument("--case", type=pathlib.Path, help="a folder that `bench step --case` wrote")
    return parser.parse_args()


def random_data(task):
    """Images [n, 784] u8, labels [n], teacher logits [n, 10] or None."""
    rng = numpy.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, 784), dtype=numpy.uint8)
    labels = rng.integers(0, CLASSES, EXAMPLES)
    logits = rng.uniform(-8, 8, (EXAMPLES, CLASSES)).astype(numpy.float32)
    return images, labels, logits if task == "student" else None


class Case:
    """Weights [outputs, inputs], biases, and a batch whose losses are known."""

    def __init__(self, folder):
        case = json.loads((folder / "case.json").read_text())
        file = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", file[:8])
        header, data = json.loads(file[8:8 + length]), file[8 + length:]

        def tensor(name):
            entry = header[name]
            start, end = entry["data_offsets"]
            return numpy.frombuffer(data[start:end], "<f4").reshape(entry["shape"]).copy()

        layers = sum(name.endswith(".weight") for name in header)
        self.weights = [tensor(f"layers.{i}.weight") for i in range(layers)]
        self.biases = [tensor(f"layers.{i}.bias") for i in range(layers)]
        self.labels = numpy.array(case["labels"])
        pixels = numpy.array(case["pixels"], numpy.float32)
        self.inputs = pixels.reshape(len(self.labels), -1) / numpy.float32(255)
        logits = case["teacher_logits"]
        self.teacher_logits = None
        if logits is not None:
            self.teacher_logits = numpy.array(logits, numpy.float32).reshape(-1, CLASSES)
        self.learning_rate, self.momentum = case["learning_rate"], case["momentum"]
        self.losses = case["losses"]


def report(version, args, threads, seconds, case_losses):
    """Prints the result as one JSON object."""
    ms = [1e3 * s for s in seconds]
    print(json.dumps({
        "version": version,
        "task": args.task,
        "batch": args.batch,
        "threads": threads,
        "precision": args.precision,
        "ms_per_step": {"median": statistics.median(ms), "min": min(ms), "max": max(ms)},
        "case_losses": case_losses,
    }), flush=True)
