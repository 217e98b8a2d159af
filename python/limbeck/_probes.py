"""The inputs on which check_loss tries a loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BATCH, CLASSES = 7, 11
"""Primes, so that no divisor of a wrong reduction equals another's."""
MANY = 307
"""More classes than a top k takes, in a batch that no chunk holds."""


@dataclass(frozen=True)
class Probe:
    """Logits [B, C] or [B, L, C] of student and teacher, with labels [B] or [B, L]."""

    name: str
    student: npt.NDArray[np.floating[Any]]
    teacher: npt.NDArray[np.floating[Any]]
    labels: npt.NDArray[np.int64]
    counted: npt.NDArray[np.bool_]
    """Of the shape of labels: what takes part in the loss."""
    dtype: str
    """Of the logits in the call, which holds their values."""
    gives_mask: bool
    """Whether the loss is given `counted`."""
    ignore_index: int | None
    """The label of what does not count."""
    step: float
    """Of central differences."""
    ordinary: bool
    """Whether all probabilities are well above rounding."""

    def logits(self) -> list[npt.NDArray[Any]]:
        """The arguments that gradients are taken of."""
        return [self.student, self.teacher]

    def targets(self) -> list[npt.NDArray[Any]]:
        """The other arguments."""
        return [self.labels, self.counted] if self.gives_mask else [self.labels]


def representable(x: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[Any]:
    """Values near x that `dtype` holds; those of half precision in f32."""
    if dtype == "float16":
        return x.clip(-6e4, 6e4).astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        # The upper half of an f32, to the nearest and of two to the even one.
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    return x.astype(dtype)


def probes(
    *,
    temperature: float,
    dtype: str,
    classes: int | None,
    length: int | None,
    ignore_index: int | None,
    mask: bool,
    seed: int,
) -> Iterator[Probe]:
    """The ordinary probe first; those of other shapes and sizes of logits after it."""
    rng = np.random.default_rng(seed)
    # Logits over T are of the order of 1 where T is below 1, so that softmax(z/T) is not one-hot.
    unit = min(1.0, temperature)
    # exp(z) and exp(z/T) of the offset are infinite in every format, and 0 across gaps of 1000·T.
    large = max(1.0, temperature) if np.isfinite(temperature) else 1.0
    offset, extreme = 800 * large, 200 * large

    def probe(
        name: str,
        scale: float,
        *,
        batch: int = BATCH,
        width: int = classes or CLASSES,
        same: bool = False,
        offset: float = 0.0,
        ordinary: bool = True,
    ) -> Probe:
        shape = (batch,) if length is None else (batch, length)
        labels = rng.integers(0, width, shape)
        target = (labels[..., None] == np.arange(width)).astype(np.float64)
        # The teacher knows the labels better than the student does.
        teacher = offset + scale * (rng.normal(0, 1.5, target.shape) + 3 * target)
        student = teacher if same else offset + scale * (rng.normal(0, 1.5, target.shape) + target)
        counted = np.ones(shape, bool)
        if ignore_index is not None or mask:
            if length is not None and length > 1:
                # Padding behind sequences of unequal lengths, from 1 to L.
                lengths = 1 + (np.arange(batch) + length // 2) % length
                counted = np.arange(length) < lengths[:, None]
            else:
                counted[1::3] = False
        if ignore_index is not None:
            labels = np.where(counted, labels, ignore_index)
        return Probe(
            name,
            representable(student, dtype),
            representable(teacher, dtype),
            labels,
            counted,
            dtype=dtype,
            gives_mask=mask,
            ignore_index=ignore_index,
            step=0.02 * unit,
            ordinary=ordinary,
        )

    yield probe("ordinary logits", unit)
    yield probe("a teacher equal to the student", unit, same=True)
    yield probe("a batch of one", unit, batch=1)
    if classes is None:
        yield probe("two classes", unit, width=2)
    yield probe("confident logits", 4 * unit, ordinary=False)
    yield probe("logits with a large common offset", unit, offset=offset, ordinary=False)
    yield probe("extreme logits", extreme, ordinary=False)
    # Probabilities between those, from 0.9 to 10⁻⁵ at T: what tells most in few bits. Two batches, so that
    # none is taken for the number in a divisor.
    yield probe("logits that are confident at T", 2 * large, batch=13, ordinary=False)
    yield probe("five that are confident at T", 2 * large, batch=5, ordinary=False)
    if length is None and (classes or 0) <= MANY:
        wide = "a larger batch" if classes else "a larger batch of many classes"
        yield probe(wide, unit, batch=33, width=classes or MANY, ordinary=False)
