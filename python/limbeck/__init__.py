"""Knowledge distillation: exact losses, training with the same bits everywhere, and a checker that
names mistakes.

`LimbeckClassifier` and `DistilledClassifier` are classifiers as scikit-learn has them, `train` and
`distill` what they are made of. `print(limbeck.check_loss(my_loss, temperature=4.0))` says whether a loss of PyTorch, JAX or NumPy is
that of distillation; `limbeck.testing` has the same for pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from limbeck._check_loss import JudgedInput, LossReport, check_loss
from limbeck._limbeck import (
    Model,
    __version__,
    check,
    check_case,
    cross_entropy,
    distill,
    distillation,
    log_softmax,
    logit_matching,
    mistakes,
    softmax,
    train,
)

if TYPE_CHECKING:
    from limbeck._estimators import DistilledClassifier, LimbeckClassifier

__all__ = [
    "DistilledClassifier",
    "JudgedInput",
    "LimbeckClassifier",
    "LossReport",
    "Model",
    "__version__",
    "check",
    "check_case",
    "check_loss",
    "cross_entropy",
    "distill",
    "distillation",
    "log_softmax",
    "logit_matching",
    "mistakes",
    "softmax",
    "train",
]


def __getattr__(name: str) -> Any:
    """The classifiers when they are asked for: they import scikit-learn, where it is installed."""
    if name in ("DistilledClassifier", "LimbeckClassifier"):
        from limbeck import _estimators

        return getattr(_estimators, name)
    raise AttributeError(f"module 'limbeck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
