"""What a training with views sees, from the documentation of datasets/src/views.rs alone: the
keystreams, the order of an epoch, and the pixels of each kind of view, in plain Python.

    python tests/golden/views.py               # needs numpy, safetensors; writes views.safetensors

The two generators train on these pixels with a teacher who is asked in every step.
"""

import math
import pathlib
import struct

import numpy as np
from safetensors.numpy import save_file
from task import coarse

SEED, EPOCHS, BATCH = 11, 4, 8
# 30 pixels: the last word of the masks' bytes is used in part.
EXAMPLES, HEIGHT, WIDTH = 23, 6, 5
STUDENT, TEACHER = [HEIGHT * WIDTH, 9, 7, 5], [HEIGHT * WIDTH, 11, 5]
SHUFFLE, VIEWS = 1, 12

# Each kind, all together, and the list that is trained on.
KINDS = [
    "plain",
    "mix 0.25",
    "mix 0.7..1",
    "noise 0.1",
    "mask 0.4",
    "mask 0.1..0.6",
    "block 2",
    "mix 0.7..1 + noise 0.05 + mask 0..0.5 + block 3",
]
TRAINED = ["mask 0..0.5", "mix 0.7..1 + noise 0.1", "block 2", "plain"]

# T, soft weight, hard weight; learning rate, momentum, Nesterov, weight decay.
CASE = (4.0, 0.75, 0.25, 2**-5, 0.75, True, 2**-7)


class Keystream:
    """ChaCha8 of (seed, purpose, index), as 32-bit words from word `at` on."""

    def __init__(self, seed, purpose, index, at=0):
        key = b"limbeck\0" + struct.pack("<3Q", seed, purpose, 0)
        self.state = (*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key))
        self.index, self.at = index, at

    def block(self, number):
        start = [*self.state, *struct.unpack("<4I", struct.pack("<2Q", number, self.index))]
        x = start.copy()

        def quarter(a, b, c, d):
            for to, of, into, bits in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
                x[to] = (x[to] + x[of]) % 2**32
                x[into] ^= x[to]
                x[into] = (x[into] << bits | x[into] >> 32 - bits) % 2**32

        for _ in range(4):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        return [(a + b) % 2**32 for a, b in zip(x, start)]

    def word(self):
        self.at += 1
        return self.block((self.at - 1) // 16)[(self.at - 1) % 16]

    def words(self, count):
        return [self.word() for _ in range(count)]


def order(epoch):
    """Fisher-Yates from the last place down; a word whose product falls below 2^32 mod n is drawn again."""
    stream, places = Keystream(SEED, SHUFFLE, epoch), list(range(EXAMPLES))
    for last in range(EXAMPLES - 1, 0, -1):
        while (product := stream.word() * (last + 1)) % 2**32 < 2**32 % (last + 1):
            pass
        chosen = product >> 32
        places[last], places[chosen] = places[chosen], places[last]
    return places


def interval(text):
    low, _, high = text.partition("..")
    return float(low), float(high or low)


def seen(images, views, epoch, position, example):
    """The image `example` [H*W] as it is drawn at a position of an epoch."""
    size = HEIGHT * WIDTH
    bytes_, head = -(-size // 4), 8
    stream = Keystream(SEED, VIEWS, epoch, position * (head + bytes_ + size))
    draws = stream.words(head)
    masks = b"".join(struct.pack("<I", word) for word in stream.words(bytes_))
    below = lambda word, n: word * n >> 32
    between = lambda ends, word: ends[0] + (ends[1] - ends[0]) * word / (2**32 - 1)
    view = views[below(draws[0], len(views))]
    ways = {} if view == "plain" else dict(way.split() for way in view.split(" + "))
    x = [int(pixel) for pixel in images[example]]
    if "mix" in ways:
        other = images[below(draws[1], EXAMPLES)]
        share = math.floor(between(interval(ways["mix"]), draws[2]) * 2**16 + 0.5)
        x = [(share * a + (2**16 - share) * int(b) + 2**15) >> 16 for a, b in zip(x, other)]
    if "noise" in ways:
        factor = 255 * float(ways["noise"]) / math.sqrt(4 * (256**2 - 1) / 12)
        sums = [sum(struct.pack("<I", word)) for word in stream.words(size)]
        noisy = [a + factor * (total - 510) for a, total in zip(x, sums)]
        x = [min(max(math.floor(value + 0.5), 0), 255) for value in noisy]
    if "mask" in ways:
        rate = math.floor(between(interval(ways["mask"]), draws[3]) * 256 + 0.5)
        x = [0 if byte < rate else a for a, byte in zip(x, masks)]
    if "block" in ways:
        high, wide = (min(int(ways["block"]), side) for side in (HEIGHT, WIDTH))
        top, left = below(draws[4], HEIGHT - high + 1), below(draws[5], WIDTH - wide + 1)
        inside = lambda i: 0 <= i // WIDTH - top < high and 0 <= i % WIDTH - left < wide
        x = [0 if inside(i) else a for i, a in enumerate(x)]
    return x


def task():
    """Images, labels, and weights [outputs, inputs] and biases of student and teacher."""
    rng = np.random.default_rng(2)
    arrays = {"images": rng.integers(0, 256, (EXAMPLES, HEIGHT * WIDTH), dtype=np.uint8)}
    arrays["labels"] = rng.integers(0, STUDENT[-1], EXAMPLES)
    for net, widths in [("student", STUDENT), ("teacher", TEACHER)]:
        for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            bound = np.sqrt(6 / inputs)
            name = f"{net}.layers.{i}"
            arrays[f"{name}.weight"] = coarse(rng.uniform(-bound, bound, (outputs, inputs)))
            arrays[f"{name}.bias"] = coarse(rng.uniform(-0.25, 0.25, outputs))
    return arrays


def epoch(images, views, number):
    """The pixels [n, H*W] of an epoch in the order in which they are seen."""
    rows = [seen(images, views, number, p, e) for p, e in enumerate(order(number))]
    return np.array(rows, dtype=np.uint8)


def batches(arrays):
    """Pixels and labels of each step of the training. The student takes a pixel to pixel/256 - 1/2,
    the teacher to pixel/128 - 1."""
    for number in range(EPOCHS):
        pixels, labels = epoch(arrays["images"], TRAINED, number), arrays["labels"][order(number)]
        for start in range(0, EXAMPLES, BATCH):
            yield pixels[start : start + BATCH], labels[start : start + BATCH]


def main():
    arrays = task()
    images = arrays["images"]
    names = {str(i): kind for i, kind in enumerate(KINDS)} | {"trained": ", ".join(TRAINED)}
    for i, views in [*((i, [kind]) for i, kind in enumerate(KINDS)), ("trained", TRAINED)]:
        arrays[f"pixels.{i}"] = np.stack([epoch(images, views, e) for e in range(EPOCHS)])
    arrays["order"] = np.array([order(e) for e in range(EPOCHS)])
    path = pathlib.Path(__file__).parent / "views.safetensors"
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, names)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
