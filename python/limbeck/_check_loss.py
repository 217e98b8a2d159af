"""check_loss: whether somebody's function is the distillation loss that it should be."""

from __future__ import annotations

import os
import struct
import tempfile
import warnings
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any, Literal

import numpy as np

from limbeck import _frameworks
from limbeck._frameworks import Fault, Loss, Outcome
from limbeck._limbeck import check_case
from limbeck._probes import Probe, probes


@dataclass(frozen=True)
class JudgedInput:
    """One input that a loss was tried on, with the verdict of `limbeck check` on what came out."""

    name: str
    shape: tuple[int, ...]
    """Of the logits."""
    verdict: str
    """That of `check_case`, or 'fault' where there was nothing to verify."""
    message: str
    fits: tuple[str, ...] = ()
    """All known mistakes that fit."""


@dataclass(frozen=True)
class LossReport:
    """The answer of check_loss. str() is one sentence, details() has a line for each input."""

    ok: bool
    """Whether the function is right on every input."""
    message: str
    mistakes: tuple[str, ...]
    """The ids that fit every input; empty where the fault is none of the known mistakes."""
    cases: tuple[JudgedInput, ...]
    teacher_gradient: bool | None
    """Whether a gradient reaches the teacher's logits; None where that was not found out, as with
    NumPy."""

    def __str__(self) -> str:
        return self.message

    def details(self) -> str:
        """The sentence, and what came out for each input."""
        lines = [self.message, ""]
        for case in self.cases:
            lines.append(f"  {case.name}, {list(case.shape)}: {case.verdict}")
            if case.verdict != "agrees":
                lines.append(f"    {case.message}")
        return "\n".join(lines)


def check_loss(
    fn: Loss,
    *,
    temperature: float,
    soft_weight: float = 1.0,
    hard_weight: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    framework: Literal["torch", "jax", "numpy"] | None = None,
    dtype: Literal["float64", "float32", "float16", "bfloat16"] = "float32",
    classes: int | None = None,
    length: int | None = None,
    ignore_index: int | None = None,
    mask: bool = False,
    seed: int = 0,
    save: str | os.PathLike[str] | None = None,
) -> LossReport:
    """Says whether fn(student_logits, teacher_logits, labels) is the distillation loss

        mean(soft_weight T² CE(softmax(v/T), softmax(z/T)) + hard_weight CE(y, softmax(z)))

    with a cross-entropy or a KL divergence as soft term, by its values and gradients on inputs made
    here: ordinary, confident and extreme logits, a teacher equal to the student, a batch of one, two
    classes. fn takes and gives tensors of PyTorch or JAX, whose automatic differentiation is used, or
    NumPy arrays in f64. A NumPy function may return (loss, gradient); else its gradient is taken by
    central differences where these resolve it, and the loss alone is verified on confident and extreme
    logits.

    fn is right only if it is so on every input, gives the same for the same logits, leaves its
    arguments as they are, and lets a gradient through to the student. That a gradient also reaches
    the teacher's logits is no mistake where the caller computes them without one: the report says it.

    framework: which arrays fn takes; by default the first of the imported ones that it can be called
    with. dtype: of the logits; NumPy's are float64. classes: the number of classes, 11 and 2 by default.
    length: L, for logits [B, L, C] and labels [B, L]; the loss is averaged over tokens. ignore_index:
    the label of what takes no part in either term. mask: fn gets as fourth argument what takes part,
    booleans of the labels' shape. save: writes the case that shows the verdict as a safetensors file,
    which `limbeck check` reads.

    Raises ValueError for keywords out of range; never what fn raises, which is a verdict.
    """
    if framework not in (None, *_frameworks.CALLS):
        raise ValueError(f"framework: found {framework!r}, expected 'torch', 'jax' or 'numpy'")
    if dtype not in ("float64", "float32", "float16", "bfloat16"):
        raise ValueError(f"dtype: found {dtype!r}, expected float64, float32, float16 or bfloat16")
    if not temperature > 0:
        raise ValueError(f"temperature: found {temperature}, expected T > 0")
    for name, number, least in (("classes", classes, 2), ("length", length, 1)):
        if number is not None and number < least:
            raise ValueError(f"{name}: found {number}, expected at least {least}")
    contract = Contract(temperature, soft_weight, hard_weight, reduction)
    tried = list(
        probes(
            temperature=temperature, dtype=dtype, classes=classes, length=length,
            ignore_index=ignore_index, mask=mask, seed=seed,
        )
    )
    with warnings.catch_warnings():
        # What fn warns of, an overflow say, shows in its values.
        warnings.simplefilter("ignore")
        try:
            name = framework or _frameworks.find(fn, tried[0])
            first = _frameworks.call(name, fn, tried[0])
            differentiable(name, fn, tried[0], first)
        except Fault as fault:
            return refused(fault, tried[0])
        judged = [judge(name, fn, probe, contract) for probe in tried]
    report, witness = sum_up([case for case, _ in judged], contract, name, first)
    if save is not None and (content := judged[witness][1]) is not None:
        Path(save).write_bytes(content)
    return report


@dataclass(frozen=True)
class Contract:
    """Which loss it should be."""

    temperature: float
    soft_weight: float
    hard_weight: float
    reduction: str

    def __str__(self) -> str:
        weights = f"soft weight {self.soft_weight:g}, hard weight {self.hard_weight:g}"
        return f"T = {self.temperature:g}, {weights}, {self.reduction} over the batch"


def differentiable(framework: str, fn: Loss, probe: Probe, outcome: Outcome) -> None:
    """Refuses a loss whose gradient does not reach the student's logits."""
    if outcome.d_student is not None and outcome.d_student.any():
        return
    if outcome.d_teacher is not None and outcome.d_teacher.any():
        says = "the gradient reaches the teacher's logits and not the student's"
        raise Fault("detached_student", says, "teacher_logits.detach(), not student_logits.detach()")
    elsewhere = replace(probe, student=probe.student[..., ::-1].copy())
    if _frameworks.call(framework, fn, elsewhere).loss == outcome.loss:
        raise Fault("constant", f"the loss is {outcome.loss:g} whatever the student's logits are")
    if outcome.d_student is not None or framework == "torch":
        says = "no gradient reaches the student's logits, though the loss depends on them"
        line = "compute it outside torch.no_grad(), without .detach(), .item() or argmax"
        raise Fault("detached", says, line)


def judge(
    framework: str, fn: Loss, probe: Probe, contract: Contract
) -> tuple[JudgedInput, bytes | None]:
    """The verdict on one input, and the case file that it was passed on."""
    try:
        outcome = _frameworks.call(framework, fn, probe)
        again = _frameworks.call(framework, fn, probe)
        if not same(outcome, again):
            says = f"two calls on the same logits give {outcome.loss:.9g} and {again.loss:.9g}"
            if outcome.loss == again.loss:
                says = "two calls on the same logits give different gradients"
            raise Fault("not_deterministic", says, "model.eval() where a model or dropout is inside")
        ignored = outcome.d_student[~probe.counted] if outcome.d_student is not None else np.zeros(1)
        if ignored.any():
            says = f"what is masked or ignored gets a gradient of up to {np.abs(ignored).max():.3g}"
            line = "loss = (per_token * mask).sum() / mask.sum()"
            raise Fault("padding_counted", says, line)
        content = case_file(probe, outcome, contract)
        answer = verdict_on(content)
    except Fault as fault:
        case = JudgedInput(probe.name, probe.student.shape, "fault", str(fault), (fault.mistake,))
        return case, None
    case = JudgedInput(
        probe.name, probe.student.shape, answer["verdict"], answer["message"], tuple(answer["fits"])
    )
    return case, content


def same(a: Outcome, b: Outcome) -> bool:
    pairs = ((a.loss, b.loss), (a.d_student, b.d_student))
    return all(x is y or np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def verdict_on(content: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.safetensors")
        path.write_bytes(content)
        return check_case(path)


def case_file(probe: Probe, outcome: Outcome, contract: Contract) -> bytes:
    """The case as safetensors: eight bytes of length, the JSON header, the tensors.

    Examples are those that count, [n, C]: a mean over them is a mean over tokens.
    """
    rows = probe.counted
    # Logits in the format of the loss: a case's precision is that of its coarsest tensor.
    student, teacher = (x[rows].astype(outcome.loss.dtype) for x in probe.logits())
    tensors = {
        "student_logits": student,
        "teacher_logits": teacher,
        "labels": probe.labels[rows],
        "loss": np.asarray(outcome.loss).reshape(1),
    }
    if outcome.d_student is not None:
        tensors["d_logits"] = outcome.d_student[rows]
    metadata = {
        "temperature": repr(float(contract.temperature)),
        "soft_weight": repr(float(contract.soft_weight)),
        "hard_weight": repr(float(contract.hard_weight)),
        "reduction": contract.reduction,
    }
    if outcome.half is not None:
        metadata["precision"] = outcome.half
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, tensor in tensors.items():
        start = len(data)
        data += np.ascontiguousarray(tensor).tobytes()
        dtype = {"f4": "F32", "f8": "F64", "i8": "I64"}[tensor.dtype.str[1:]]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, len(data)]}
    text = dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def refused(fault: Fault, probe: Probe) -> LossReport:
    """The report on a loss with nothing to verify."""
    case = JudgedInput(probe.name, probe.student.shape, "fault", str(fault), (fault.mistake,))
    return LossReport(False, str(fault), (fault.mistake,), (case,), None)


def sum_up(
    cases: list[JudgedInput], contract: Contract, framework: str, first: Outcome
) -> tuple[LossReport, int]:
    """The report on all inputs, and the index of the one that shows it best.

    An input on which nothing can be told counts neither for nor against the loss, except the first,
    which must agree.
    """
    failed = [
        i for i, case in enumerate(cases)
        if case.verdict in ("variant", "unknown", "fault") or (i == 0 and case.verdict != "agrees")
    ]
    reaches_teacher = None
    if framework != "numpy":
        reaches_teacher = first.d_teacher is not None and bool(first.d_teacher.any())
    if not failed:
        message = f"agrees with the distillation loss of {contract}: on {len(cases)} inputs of {framework}"
        left = set.intersection(*(set(case.fits) for case in cases if case.verdict == "agrees"))
        if left:
            message += f"; here that is the same as {', '.join(sorted(left))}"
        if reaches_teacher:
            message += "; a gradient also reaches the teacher: give it logits that carry none"
        return LossReport(True, message, (), tuple(cases), reaches_teacher), 0
    # A mistake that is made fits every input on which something can be told; the one that fits
    # fewest others is the best witness.
    first_failed = failed[0]
    known = [case for case in cases if case.verdict in ("variant", "agrees")]
    everywhere = [
        mistake for mistake in cases[first_failed].fits if all(mistake in case.fits for case in known)
    ]
    mistakes = tuple(everywhere) or cases[first_failed].fits
    telling = [i for i in failed if cases[i].verdict == "variant" and mistakes[:1] == cases[i].fits[:1]]
    witness = min(telling, key=lambda i: len(cases[i].fits), default=first_failed)
    message = cases[witness].message
    if first_failed > 0:
        message = f"agrees on {cases[0].name}, but on {cases[witness].name}: {message}"
    return LossReport(False, message, mistakes, tuple(cases), reaches_teacher), witness
