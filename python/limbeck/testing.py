"""For pytest: a loss that is not that of distillation fails a test, and says why."""

from __future__ import annotations

from typing import Any

from limbeck._check_loss import check_loss
from limbeck._frameworks import Loss


def assert_distillation_loss(fn: Loss, **keywords: Any) -> None:
    """Raises AssertionError, with the mistake and what came out for each input, where
    check_loss(fn, **keywords) is not ok."""
    __tracebackhide__ = True
    report = check_loss(fn, **keywords)
    if not report.ok:
        raise AssertionError(
            f"{report.details()}\n\ncheck_loss(…, save='case.safetensors') writes the case for a bug report"
        )
