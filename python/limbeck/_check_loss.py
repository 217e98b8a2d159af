"""check_loss: whether somebody's function is the distillation loss that it should be."""

from __future__ import annotations

import os
import struct
import tempfile
import warnings
from dataclasses import dataclass, replace
from json import dumps
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from limbeck import _frameworks
from limbeck._frameworks import HALVES, Fault, Loss, Outcome
from limbeck._limbeck import check_case, mistakes
from limbeck._probes import Probe, probes

if TYPE_CHECKING:
    from limbeck._limbeck import Checked


@dataclass(frozen=True)
class JudgedInput:
    """One input that a loss was tried on, with the verdict of `limbeck check` on what came out."""

    name: str
    shape: tuple[int, ...]
    """Of the logits."""
    verdict: str
    """That of `check_case`, or 'fault' where there was nothing to verify."""
    message: str
    mistakes: tuple[str, ...] = ()
    """Those that were made at once, as far as this input shows."""
    fits: tuple[str, ...] = ()
    """All known mistakes that fit."""
    not_shown: tuple[str, ...] = ()
    """Those that an input of this shape does not show."""
    difference: str = ""
    """Where values differ from the right ones."""


@dataclass(frozen=True)
class LossReport:
    """The answer of check_loss. str() is one sentence, details() has a line for each input."""

    ok: bool
    """Whether the function is right on every input."""
    message: str
    mistakes: tuple[str, ...]
    """The ids of those that most inputs show and none excludes; empty where the fault is none of the
    known mistakes."""
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
    divergence: Literal["forward", "reverse", "symmetric", "js"] = "forward",
    beta: float = 0.5,
    framework: Literal["torch", "jax", "numpy"] | None = None,
    dtype: Literal["float64", "float32", "float16", "bfloat16"] = "float32",
    classes: int | None = None,
    length: int | None = None,
    ignore_index: int | None = None,
    mask: bool = False,
    seed: int = 0,
    save: str | os.PathLike[str] | None = None,
) -> LossReport:
    """Says whether fn(student_logits, teacher_logits, labels) is the distillation loss.

        mean(soft_weight T² CE(softmax(v/T), softmax(z/T)) + hard_weight CE(y, softmax(z)))

    with a cross-entropy or a KL divergence as soft term is what its values and gradients should be on
    inputs made here: ordinary, confident and extreme logits, a large common offset, a teacher equal
    to the student, a batch of one, two classes. fn takes and gives tensors of PyTorch or JAX, which
    differentiate it, or NumPy arrays in f64. A NumPy function may return (loss, gradient); else its
    gradient is taken by central differences where these resolve it, and its loss alone is verified
    elsewhere.

    fn is right only if it is so on every input, gives the same for the same logits, leaves its
    arguments as they are, and lets a gradient through to the student. That a gradient also reaches
    the teacher's logits is no mistake where the caller computes them without one: the report says it.

    temperature: T > 0; inf is the matching of logits. reduction: over the examples that count, or
    their tokens. divergence: what the soft term measures of p = softmax(v/T) and q = softmax(z/T):
    KL(p ‖ q) or its cross-entropy, KL(q ‖ p), half of each, or Jensen–Shannon's
    β KL(p ‖ m) + (1 − β) KL(q ‖ m) with m = β p + (1 − β) q.

    framework: which arrays fn takes; by default the first of the imported ones that it can be called
    with. dtype: of the logits; NumPy's are float64. classes: C; by default 11 and, once, 2. length: L,
    for logits [B, L, C] and labels [B, L]. ignore_index: the label of what takes no part in either
    term. mask: fn gets as fourth argument what takes part, booleans of the labels' shape. save: writes
    the case that shows the verdict, which `limbeck check` reads, as safetensors.

    Raises ValueError for keywords out of range; never what fn raises, which is a verdict.
    """
    choices = (
        ("framework", framework, (None, *_frameworks.CALLS)),
        ("dtype", dtype, ("float64", "float32", "float16", "bfloat16")),
        ("reduction", reduction, ("mean", "sum")),
        ("divergence", divergence, ("forward", "reverse", "symmetric", "js")),
    )
    for name, found, expected in choices:
        if found not in expected:
            raise ValueError(f"{name}: found {found!r}, expected one of {expected}")
    numbers = {"temperature": temperature, "soft_weight": soft_weight, "hard_weight": hard_weight}
    integers = {"classes": classes, "length": length, "ignore_index": ignore_index, "seed": seed}
    for name, given in (numbers | {"beta": beta}).items():
        if not isinstance(given, Real) or isinstance(given, bool):
            raise TypeError(f"{name}: found {given!r:.40}, expected a number: float({name})")
    for name, whole in integers.items():
        if whole is not None and (not isinstance(whole, (int, np.integer)) or isinstance(whole, bool)):
            raise TypeError(f"{name}: found {whole!r:.40}, expected an integer")
    ranges = (
        ("temperature", temperature, temperature > 0, "T > 0"),
        ("soft_weight", soft_weight, 0 <= soft_weight < np.inf, "a finite number from 0"),
        ("hard_weight", hard_weight, 0 <= hard_weight < np.inf, "a finite number from 0"),
        ("soft_weight and hard_weight", 0, soft_weight + hard_weight > 0, "one above 0"),
        ("beta", beta, 0 < beta < 1, "a number between 0 and 1"),
        ("classes", classes, classes is None or classes >= 2, "at least 2"),
        ("length", length, length is None or length >= 1, "at least 1"),
        ("seed", seed, seed >= 0, "at least 0"),
        ("ignore_index", ignore_index, -(2**63) <= (ignore_index or 0) < 2**63, "an integer of 64 bits"),
        ("beta", beta, divergence == "js" or beta == 0.5, "none: it belongs to divergence='js'"),
    )
    for name, value, holds, range_ in ranges:
        if not holds:
            raise ValueError(f"{name}: found {value}, expected {range_}")
    contract = Contract(temperature, soft_weight, hard_weight, reduction, divergence, beta)
    tried = list(
        probes(
            temperature=temperature,
            dtype=dtype,
            classes=classes,
            length=length,
            ignore_index=ignore_index,
            mask=mask,
            seed=seed,
        )
    )
    with warnings.catch_warnings():
        # What fn warns of, an overflow say, shows in its values.
        warnings.simplefilter("ignore")
        try:
            arrays = framework or _frameworks.find(fn, tried[0])
            first = _frameworks.call(arrays, fn, tried[0])
            differentiable(arrays, fn, tried[0], first)
        except Fault as fault:
            return refused(fault, tried[0])
        judged = [judge(arrays, fn, probe, contract) for probe in tried]
    report, witness = sum_up([case for case, _ in judged], contract, arrays, first, dtype)
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
    divergence: str
    beta: float

    def metadata(self) -> dict[str, str]:
        """That of a case file."""
        beta = {"beta": repr(float(self.beta))} if self.divergence == "js" else {}
        return {
            "temperature": repr(float(self.temperature)),
            "soft_weight": repr(float(self.soft_weight)),
            "hard_weight": repr(float(self.hard_weight)),
            "reduction": self.reduction,
            "divergence": self.divergence,
            **beta,
        }

    def __str__(self) -> str:
        weights = f"soft weight {self.soft_weight:g}, hard weight {self.hard_weight:g}"
        kind = "" if self.divergence == "forward" else f"divergence {self.divergence}, "
        return f"T = {self.temperature:g}, {kind}{weights}, {self.reduction} over the batch"


def differentiable(framework: str, fn: Loss, probe: Probe, outcome: Outcome) -> None:
    """Refuses a loss whose gradient does not reach the student's logits."""
    if outcome.d_student is not None and outcome.d_student.any():
        return
    if outcome.d_teacher is not None and outcome.d_teacher.any():
        known = next(mistake for mistake in mistakes() if mistake["id"] == "student_detached")
        raise Fault(known["id"], known["says"], known["fix"])
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
            if np.array_equal(outcome.loss, again.loss):
                says = "two calls on the same logits give different gradients"
            raise Fault(
                "not_deterministic", says, "model.eval() where a model or dropout is inside"
            )
        content = case_file(probe, outcome, contract)
        answer = verdict_on(content)
    except Fault as fault:
        return faulty(probe, fault), None
    case = JudgedInput(
        probe.name,
        probe.student.shape,
        answer["verdict"],
        answer["message"],
        tuple(answer["mistakes"]),
        tuple(answer["fits"]),
        tuple(answer["not_shown"]),
        answer["difference"] or "",
    )
    return case, content


def faulty(probe: Probe, fault: Fault) -> JudgedInput:
    """The verdict on an input for which there was nothing to verify."""
    made = (fault.mistake,)
    return JudgedInput(probe.name, probe.student.shape, "fault", str(fault), made, made)


def same(a: Outcome, b: Outcome) -> bool:
    """Whether two calls gave the same, bit for bit but for NaN."""
    if not np.array_equal(a.loss, b.loss, equal_nan=True):
        return False
    if a.d_student is None or b.d_student is None:
        return a.d_student is b.d_student
    return np.array_equal(a.d_student, b.d_student, equal_nan=True)


def verdict_on(content: bytes) -> Checked:
    """The answer of check_case to a file of this content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.safetensors")
        path.write_bytes(content)
        return check_case(path)


def case_file(probe: Probe, outcome: Outcome, contract: Contract) -> bytes:
    """The case as safetensors: eight bytes of length, the JSON header, the tensors."""
    # Logits in the format of the loss: a case's precision is that of its coarsest tensor.
    student, teacher = (x.astype(outcome.loss.dtype) for x in probe.logits())
    tensors: dict[str, npt.NDArray[Any]] = {
        "student_logits": student,
        "teacher_logits": teacher,
        "labels": probe.labels,
        "loss": outcome.loss.reshape(1),
    }
    if outcome.d_student is not None:
        tensors["d_logits"] = outcome.d_student
    metadata = contract.metadata()
    if probe.gives_mask:
        tensors["mask"] = probe.counted
    if probe.ignore_index is not None:
        metadata["ignore_index"] = str(probe.ignore_index)
    if outcome.half is not None:
        metadata["precision"] = outcome.half
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, tensor in tensors.items():
        start = len(data)
        data += np.ascontiguousarray(tensor).tobytes()
        dtype = {"f4": "F32", "f8": "F64", "i8": "I64", "b1": "BOOL"}[tensor.dtype.str[1:]]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, len(data)]}
    text = dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def refused(fault: Fault, probe: Probe) -> LossReport:
    """The report on a loss with nothing to verify."""
    return LossReport(False, str(fault), (fault.mistake,), (faulty(probe, fault),), None)


def sum_up(
    cases: list[JudgedInput], contract: Contract, framework: str, first: Outcome, dtype: str
) -> tuple[LossReport, int]:
    """The report on all inputs, and the index of the one that shows it best.

    An input on which nothing can be told counts neither for nor against the loss; the first must agree, or
    two of different batches.
    """
    reaches_teacher = None
    if framework != "numpy":
        reaches_teacher = first.d_teacher is not None and bool(first.d_teacher.any())
    agree = [case for case in cases if case.verdict == "agrees"]
    failed = [i for i, case in enumerate(cases) if case.verdict not in ("agrees", "cannot_tell")]
    told = cases[0].verdict == "agrees" or len({case.shape[0] for case in agree}) > 1
    if not failed and not told:
        return LossReport(False, cases[0].message, (), tuple(cases), reaches_teacher), 0
    if not failed:
        message = (
            f"agrees with the distillation loss of {contract}: on {len(agree)} inputs of {framework}"
        )
        if untold := len(cases) - len(agree):
            message += f", of {untold} more nothing can be told"
        if first.half is not None and HALVES.get(dtype) != first.half:
            message += f"; a part of it is given in {first.half}, within whose rounding it is"
        same_here = set.intersection(*(set(case.fits) for case in agree))
        if same_here:
            message += f"; here that is the same as {', '.join(sorted(same_here))}"
        if reaches_teacher:
            message += "; a gradient also reaches the teacher: give it logits that carry none"
        return LossReport(True, message, (), tuple(cases), reaches_teacher), 0
    # What most inputs show was done, and fits where the loss agrees; of these the input that could be
    # least else shows it best.
    shown = [cases[i] for i in failed]
    votes = {}
    for made in (case.mistakes for case in shown if case.mistakes):
        excluded = any(set(made) - {*case.fits, *case.not_shown} for case in agree)
        if not excluded or any(case.verdict == "fault" and case.mistakes == made for case in shown):
            votes[made] = sum(set(made) <= {*case.fits, *case.mistakes} for case in shown)
    unnamed = sum(not case.mistakes for case in shown)
    made = max(votes, key=lambda made: votes[made], default=())
    if unnamed > votes.get(made, 0):
        made = ()
    witness = min(
        (i for i in failed if made in ((), cases[i].mistakes)), key=lambda i: len(cases[i].fits)
    )
    message = cases[witness].message
    if not made and cases[witness].mistakes:
        where = cases[witness].difference or "no known one explains what every input shows"
        message = f"none of the known mistakes: {where}"
    if failed[0] > 0:
        where = f"on {cases[witness].name}"
        if cases[0].verdict == "agrees":
            where = f"agrees on {cases[0].name}, but {where}"
        message = f"{where}: {message}"
    return LossReport(False, message, made, tuple(cases), reaches_teacher), witness
