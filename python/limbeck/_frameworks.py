"""One call of somebody's loss, in PyTorch, JAX or NumPy, with its gradients as NumPy arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck._probes import Probe

Loss = Callable[..., Any]
Floats = npt.NDArray[np.floating[Any]]


class Fault(Exception):
    """A mistake that shows before any value can be verified: its id, a sentence, the line to write."""

    def __init__(self, mistake: str, says: str, line: str = "") -> None:
        super().__init__(f"{mistake}: {says}" + (f". Right: {line}" if line else ""))
        self.mistake, self.says = mistake, says


@dataclass(frozen=True)
class Outcome:
    """What a loss gave for a probe; a gradient is None where none arrives or none was taken.

    Numbers of half precision are widened to f32.
    """

    loss: Floats
    """Of shape []."""
    d_student: Floats | None
    """The gradient with respect to the student's logits, of their shape."""
    d_teacher: Floats | None
    """The same for the teacher's logits."""
    half: str | None
    """'f16' or 'bf16' where a part of it was computed in that."""


NAMES = ("student_logits", "teacher_logits", "labels", "mask")
HALVES = {"float16": "f16", "bfloat16": "bf16"}


def half_of(dtypes: Iterable[str]) -> str | None:
    """The first that is of half precision, by its name in a case file."""
    return next((HALVES[dtype] for dtype in dtypes if dtype in HALVES), None)


def widened(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same, in f32 if it is of half precision."""
    return x.astype(np.float32) if str(x.dtype) in HALVES else x


def scalar(shape: tuple[int, ...]) -> None:
    """Refuses a loss that is not one number."""
    if int(np.prod(shape)) != 1:
        raise Fault(
            "not_reduced",
            f"the loss has the shape {list(shape)}, not one number",
            "return loss.mean() or loss.sum(), after the sum over the classes",
        )


def not_a_tensor(result: Any, line: str) -> Fault:
    """The refusal of a result that is not one tensor."""
    if result is None:
        return Fault("not_a_tensor", "nothing is returned", "return loss")
    if isinstance(result, (tuple, list, dict)):
        says = f"the result is a {type(result).__name__}, not the loss alone"
        return Fault("not_a_tensor", says, "lambda z, v, y: my_loss(z, v, y)[0], or by its name there")
    says = f"the result is a {type(result).__name__}, through which no gradient flows"
    return Fault("not_a_tensor", says, line)


def unchanged(given: list[npt.NDArray[Any]], probe: Probe) -> None:
    """Refuses a loss that has written to its arguments, which the caller goes on to use."""
    for name, now, before in zip(NAMES, given, (*probe.logits(), *probe.targets())):
        if not np.array_equal(now, before, equal_nan=True):
            line = f"work on a copy of {name}, and not in place"
            raise Fault("changes_its_input", f"{name} is changed in place", line)


def in_torch(fn: Loss, probe: Probe) -> Outcome:
    """By autograd. Logits are results of a computation, as a network's are, not leaves."""
    import torch

    dtype = getattr(torch, probe.dtype)
    leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in probe.logits()]
    given = [leaf.clone() for leaf in leaves] + [torch.tensor(x) for x in probe.targets()]
    try:
        loss = fn(*given)
    except Exception:
        # A teacher's logits are often asked for without a gradient, and taken for such.
        leaves[1] = leaves[1].detach()
        given = [leaves[0].clone(), leaves[1].clone(), *(torch.tensor(x) for x in probe.targets())]
        loss = fn(*given)
    if not isinstance(loss, torch.Tensor):
        raise not_a_tensor(loss, "return the tensor, without .item(), float() or numpy()")
    scalar(tuple(loss.shape))

    def plain(x: torch.Tensor | None) -> Any:
        if x is None:
            return None
        x = x.detach().cpu()
        return (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).numpy()

    unchanged([plain(x) for x in given], probe)
    d_student, d_teacher = None, None
    if loss.requires_grad:
        of = [leaf for leaf in leaves if leaf.requires_grad]
        d_student, *more = torch.autograd.grad(loss.reshape(()), of, allow_unused=True)
        d_teacher = more[0] if more else None
    half = half_of(str(x.dtype).removeprefix("torch.") for x in (loss, leaves[0]))
    return Outcome(plain(loss.reshape(())), plain(d_student), plain(d_teacher), half)


def in_jax(fn: Loss, probe: Probe) -> Outcome:
    """By jax.grad. A gradient that jax.lax.stop_gradient keeps away is zero, as JAX gives it."""
    import jax
    import jax.numpy as jnp

    given = [jnp.asarray(x, probe.dtype) for x in probe.logits()]
    given += [jnp.asarray(x) for x in probe.targets()]
    loss = fn(*given)
    if not isinstance(loss, jax.Array):
        raise not_a_tensor(loss, "return the jax.Array, without .item() or float()")
    scalar(loss.shape)
    gradient = jax.grad(lambda *x: jnp.reshape(fn(*x), ()), argnums=(0, 1))
    d_student, d_teacher = gradient(*given)

    def plain(x: jax.Array) -> Any:
        return widened(np.asarray(x))

    half = half_of(str(x.dtype) for x in (loss, given[0]))
    return Outcome(plain(loss).reshape(()), plain(d_student), plain(d_teacher), half)


def in_numpy(fn: Loss, probe: Probe) -> Outcome:
    """From a loss in f64: by central differences on ordinary probes, none on the others, where
    gradients fall below what differences resolve. fn may return (loss, gradient) instead."""
    z, v = (x.astype(np.float64) for x in probe.logits())

    def call() -> Any:
        given = [np.array(x) for x in (z, v, *probe.targets())]
        before = replace(probe, student=z, teacher=v)
        result = fn(*given)
        unchanged(given, before)
        return result

    result = call()
    gradient = given = None
    if isinstance(result, tuple) and len(result) == 2:
        result, given = result[0], np.asarray(result[1])
        gradient = widened(given)
        if gradient.dtype.kind == "f" and gradient.dtype.itemsize > 4:
            gradient = gradient.astype(np.float64)
        if gradient.shape != probe.student.shape or gradient.dtype not in (np.float32, np.float64):
            found = f"{gradient.dtype} of shape {list(gradient.shape)}"
            expected = f"floats of shape {list(probe.student.shape)}, that of student_logits"
            raise Fault("wrong_gradient_shape", f"the gradient is {found}, expected {expected}")
    loss = widened(np.asarray(result))
    if loss.dtype.kind not in "fiu":
        raise Fault("not_a_number", f"the result is a {type(result).__name__}, expected a number")
    scalar(loss.shape)
    half = half_of(str(np.asarray(x).dtype) for x in (result, given))
    if loss.dtype != np.float32:
        loss = loss.astype(np.float64)
    if gradient is None and probe.ordinary and loss.dtype == np.float64:
        gradient = central_differences(lambda: float(np.asarray(call()).item()), z, probe.step)
    return Outcome(loss.reshape(()), gradient, None, half)


def central_differences(
    f: Callable[[], float], z: npt.NDArray[np.float64], h: float
) -> npt.NDArray[np.float32]:
    """∂f/∂z, where f reads z: (45·Δ₁ − 9·Δ₂ + Δ₃) / 60h with Δₖ = f(z + kh) − f(z − kh).

    The error is h⁶/140 of the seventh derivative and 2⁻⁵³·|f|/h of rounding: within that of f32,
    which the result is given in.
    """
    d = np.empty(z.shape, np.float32)
    for at in np.ndindex(z.shape):
        original, total = z[at], 0.0
        for k, weight in ((1, 45.0), (2, -9.0), (3, 1.0)):
            for sign in (1, -1):
                z[at] = original + sign * k * h
                total += sign * weight * f()
        z[at] = original
        d[at] = total / (60 * h)
    return d


CALLS = {"torch": in_torch, "jax": in_jax, "numpy": in_numpy}


def call(framework: str, fn: Loss, probe: Probe) -> Outcome:
    """One call; whatever fn raises is a Fault."""
    try:
        return CALLS[framework](fn, probe)
    except Fault:
        raise
    except (Exception, SystemExit) as fault:
        arguments = (*probe.logits(), *probe.targets())
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in zip(NAMES, arguments))
        try:
            text = str(fault)[:500]
        except Exception:
            text = "what it says could not be had"
        says = f"called on {shapes} of {framework}, it raised {type(fault).__name__}: {text}"
        raise Fault("raises", says) from fault


def find(fn: Loss, probe: Probe) -> str:
    """The first framework, among those imported and NumPy, in which fn gives a loss for a probe."""
    faults = []
    for name in [name for name in CALLS if name in sys.modules]:
        try:
            call(name, fn, probe)
            return name
        except Fault as fault:
            faults.append(fault)
    # One that got as far as a result knows more than one that could not be called.
    for known in faults:
        if known.mistake != "raises":
            raise known
    raise Fault("raises", "; ".join(fault.says for fault in faults))
