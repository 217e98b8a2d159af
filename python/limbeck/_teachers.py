"""What a teacher says of examples: logits, whatever the teacher is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck import _arrays
from limbeck._arrays import Array, Floats

PART = 4096
"""Examples that a torch module is given at once."""


@dataclass(frozen=True)
class Targets:
    """Logits [n, classes], and the classes of their columns where the teacher names them."""

    logits: Floats
    classes: Array | None = None


def is_fitted(teacher: Any) -> bool:
    """By scikit-learn's convention: it says so, or has attributes that end in an underscore."""
    if hasattr(teacher, "__sklearn_is_fitted__"):
        return bool(teacher.__sklearn_is_fitted__())
    names = vars(teacher) if hasattr(teacher, "__dict__") else {}
    return any(name.endswith("_") and not name.startswith("__") for name in names)


def of_probabilities(given: Any, name: str, examples: int) -> Floats:
    """Logits whose softmax these are, ln p. A probability of 0 is less than its type can hold, and counts as
    the type's least number above 0."""
    values = checked(given, name, examples)
    if not looks_probable(values):
        raise ValueError(
            f"{name}: found rows that are no probabilities (from {values.min():.3g} to "
            f"{values.max():.3g}), expected numbers of at least 0 that sum to 1; logits are given as "
            "teacher_logits"
        )
    exact = _arrays.plain(given, name)
    exact = exact if exact.dtype in (np.float16, np.float32, np.float64) else values
    least = np.finfo(exact.dtype).smallest_subnormal
    logits: Floats = np.log(np.maximum(exact, least), dtype=np.float64).astype(np.float32)
    return logits


def looks_probable(values: Floats) -> bool:
    return bool((values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-3))


def of_logits(values: Floats, name: str, way: str) -> Floats:
    if values.shape[1] > 1 and looks_probable(values):
        raise ValueError(
            f"{name}: found probabilities (rows of at least 0 that sum to 1), expected logits: {way}"
        )
    return values


def checked(value: Any, name: str, examples: int) -> Floats:
    values = _arrays.matrix(value, name)
    if len(values) != examples:
        raise ValueError(
            f"{name}: found shape {values.shape}, expected [{examples}, classes], a row for each of X"
        )
    return values


def targets_of_arrays(logits: Any, probs: Any, examples: int) -> Targets:
    """Of the answers of a teacher."""
    if logits is not None and probs is not None:
        raise ValueError("teacher_logits, teacher_probs: found both, expected one of them")
    if logits is not None:
        values = checked(logits, "teacher_logits", examples)
        return Targets(of_logits(values, "teacher_logits", "pass them as teacher_probs"))
    return Targets(of_probabilities(probs, "teacher_probs", examples))


def targets_of(teacher: Any, X: Any, x: Floats) -> Targets:
    """Of a teacher that is asked about X, which is x in float32."""
    classes = getattr(teacher, "classes_", None)
    classes = None if classes is None else np.asarray(classes)
    model = getattr(teacher, "model_", None)
    if hasattr(model, "forward") and hasattr(teacher, "_logits"):  # our own
        return Targets(teacher._logits(X), classes)
    if hasattr(teacher, "predict_proba"):
        probs = teacher.predict_proba(X)
        return Targets(of_probabilities(probs, "teacher.predict_proba", len(x)), classes)
    if hasattr(teacher, "decision_function"):
        raw = _arrays.plain(teacher.decision_function(X), "teacher.decision_function")
        if raw.ndim == 1:  # log-odds of the second class
            raw = np.stack([-raw / 2, raw / 2], axis=1)
        return Targets(checked(raw, "teacher.decision_function", len(x)), classes)
    if type(teacher).__module__ == "limbeck" and hasattr(teacher, "forward"):  # limbeck.Model
        return Targets(teacher.forward(x))
    if not callable(teacher):
        raise TypeError(
            f"teacher: found {type(teacher)}, expected a classifier with predict_proba or "
            "decision_function, a torch module, or a function from X to logits"
        )
    is_module = hasattr(teacher, "state_dict") and hasattr(teacher, "parameters")
    raw = ask_module(teacher, x) if is_module else teacher(X)
    values = checked(raw, "teacher", len(x))
    way = "leave its softmax away, or pass fit(…, teacher_probs=)"
    return Targets(of_logits(values, "teacher", way))


def ask_module(module: Any, x: Floats) -> Array:
    """The answers of a torch module in evaluation mode, on its own device and in its own type."""
    import torch

    parameter = next(iter(module.parameters()), torch.zeros(1))
    # Each has a mode of its own: layers may have been frozen.
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            parts = [
                _arrays.plain(module(part.to(parameter.device, parameter.dtype)), "teacher")
                for part in torch.from_numpy(x.copy()).split(PART)
            ]
    finally:
        for part, was_training in modes:
            part.training = was_training
    return np.concatenate(parts)
