"""Knowledge distillation: exact losses, training with the same bits everywhere, and a checker that
names mistakes.

`print(limbeck.check_loss(my_loss, temperature=4.0))` says whether a loss of PyTorch, JAX or NumPy is
that of distillation; `limbeck.testing` has the same for pytest.
"""

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

__all__ = [
    "JudgedInput",
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
