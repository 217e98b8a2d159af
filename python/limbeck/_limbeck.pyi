"""The compiled half of the package; `limbeck` has all of it.

z are the student's logits, v the teacher's, y the labels, T the temperature, n the examples.
Arrays may have any strides. A wrong dtype is a TypeError, a wrong shape or value a ValueError. Model,
train and distill take arrays of any numeric dtype and of any library: of NumPy, pandas, polars, torch,
JAX, or lists.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

__version__: str

Floats = npt.NDArray[np.float32]
"""Logits, [n, classes]."""
Labels = npt.NDArray[np.integer[Any]]
"""Whole numbers of any dtype, [n]."""
Inputs = npt.ArrayLike
"""Images, uint8 [n, pixels] or [n, height, width], or features, any other numbers [n, values]; of any
library."""
Schedule = Literal["constant", "exponential", "step", "linear", "cosine", "hinton2012"]
Optimizer = Literal["sgd", "nesterov", "adam", "adamw", "hinton2012"]
Precision = Literal["f32", "bf16"]
Activation = Literal["relu", "tanh"]

class Epoch(TypedDict):
    """What on_epoch is told."""

    epoch: int
    """From 1."""
    loss: float
    """Mean loss over the epoch."""
    reducible_loss: float
    """The same without the entropy of the soft targets, which no student can lower."""
    train_errors: int | None
    """Examples misclassified when they were seen; None without labels."""
    validation_loss: float | None
    """Mean negative log-likelihood of the validation labels after the epoch; None without them."""
    validation_errors: int | None
    """Validation examples misclassified then."""
    validation_examples: int | None
    """How many there are."""
    learning_rate: float
    """Of the last step."""
    seconds: float
    """Since the start."""

class Mistake(TypedDict):
    """A mistake that check knows."""

    id: str
    says: str
    """What the code does."""
    formula: str
    """What it computes so."""
    fix: str
    """The corrected line of PyTorch."""

class Checked(TypedDict):
    """The answer of check and check_case: what `limbeck check --json` prints."""

    verdict: Literal["agrees", "variant", "unknown", "not_finite", "cannot_tell"]
    """'agrees' only where loss and gradient are right; 'variant' for those of known mistakes,
    'unknown' for others, 'cannot_tell' where others would agree as well."""
    variant: str | None
    """The mistake's id, with the verdict 'variant'; the first of mistakes."""
    mistakes: list[str]
    """Those that were made at once."""
    fits: list[str]
    """All known mistakes that fit within the tolerance."""
    untold: Literal["loss"] | None
    """Where the verdict is of d_logits alone: what nothing can be told of."""
    max_relative_error: float | None
    """The largest difference, divided by the largest right value; None where it is not finite."""
    max_ulp_error: float | None
    """The largest difference in units in the last place; None where it is not finite."""
    not_shown: list[str]
    """Mistakes that a case of this shape does not show."""
    difference: str | None
    """Where the results differ from the right ones, with the verdicts 'variant' and 'unknown'."""
    message: str

def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """softmax(z / T) over the classes, [n, classes]."""

def log_softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """log softmax(z / T) = (z - m)/T - log sum exp((z - m)/T) with m = max z, [n, classes]."""

def distillation(
    logits: Floats,
    teacher_logits: Floats | None = None,
    labels: Labels | None = None,
    *,
    temperature: float = 20.0,
    soft_weight: float = 1.0,
    hard_weight: float = 0.05,
) -> tuple[float, Floats]:
    """The distillation loss, averaged over the batch, and its gradient.

    loss = mean(soft_weight T^2 CE(softmax(v/T), softmax(z/T)) + hard_weight CE(y, softmax(z)))
    d_logits = (soft_weight T (softmax(z/T) - softmax(v/T)) + hard_weight (softmax(z) - y)) / n

    A term whose targets are None must have weight 0. T = inf is logit_matching.
    """

def cross_entropy(logits: Floats, labels: Labels) -> tuple[float, Floats]:
    """loss = mean(-log softmax(z)_y); d_logits = (softmax(z) - y) / n."""

def logit_matching(logits: Floats, teacher_logits: Floats) -> tuple[float, Floats]:
    """The limit of the soft loss for large T: with d = z - v less its mean over the classes,
    loss = mean(sum(d^2) / 2 classes); d_logits = d / (classes n)."""

class Model:
    """A multilayer perceptron; made by load, train or distill, or of its parameters.

    It can be pickled and copied.
    """

    def __new__(
        cls,
        parameters: Sequence[tuple[Floats, Floats]],
        *,
        activation: Activation = "relu",
        input_scale: tuple[float, float] = (1.0, 0.0),
        standardizer: tuple[Floats, Floats] | None = None,
        class_names: Sequence[str] | None = None,
        class_texts: bool = False,
        feature_names: Sequence[str] | None = None,
        dataset: str = "",
        data: dict[str, str] | None = None,
    ) -> Model:
        """The net of these layers, each a weight [outputs, inputs] and a bias [outputs], as PyTorch's
        Linear has them.

        An input is value * scale + shift of input_scale or, with a standardizer (mean, scale),
        (value - mean) * scale. dataset and data, SHA-256 by file, say what it was trained on;
        class_texts, that the names of the classes are texts also where they read as numbers.

        >>> import limbeck, numpy as np
        >>> layer = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
        >>> limbeck.Model([layer]).predict([[1.0, 3.0]])
        array([1])
        """

    @staticmethod
    def load(path: str | PathLike[str]) -> Model:
        """Reads a model file: safetensors, written by save or by `limbeck train`."""

    def save(self, path: str | PathLike[str]) -> str:
        """Writes the model file, atomically; returns the SHA-256 of the parameters."""

    def to_onnx(self, path: str | PathLike[str]) -> None:
        """Writes an ONNX graph from `inputs` [batch, values], float32 as forward takes them, to `logits`
        [batch, classes]; class_names and feature_names are in its metadata, as JSON arrays."""

    @property
    def layers(self) -> list[int]:
        """Inputs, units of each hidden layer, classes."""

    @property
    def activation(self) -> Activation:
        """That of the hidden layers."""

    @property
    def sha256(self) -> str:
        """Of the parameters: equal for equal models, whatever trained them."""

    @property
    def input_scale(self) -> tuple[float, float]:
        """(scale, shift): an input is value * scale + shift, where there is no standardizer."""

    @property
    def standardizer(self) -> tuple[Floats, Floats] | None:
        """(mean, scale) of each feature: an input is (value - mean) * scale."""

    @property
    def class_names(self) -> list[str] | None:
        """In the order of the logits; None where classes are the numbers from 0."""

    @property
    def class_texts(self) -> bool:
        """Whether these are texts although each reads as a number or a truth."""

    @property
    def feature_names(self) -> list[str] | None:
        """In the order of the inputs, where they are known."""

    def parameters(self) -> list[tuple[Floats, Floats]]:
        """Weight [outputs, inputs] and bias [outputs] of each layer, as PyTorch's Linear."""

    def forward(self, images: Inputs, *, threads: int | None = None) -> Floats:
        """The logits, [n, classes], without dropout."""

    def predict_proba(
        self, images: Inputs, *, temperature: float = 1.0, threads: int | None = None
    ) -> npt.NDArray[np.float64]:
        """softmax(logits / temperature), computed in float64, [n, classes]."""

    def predict(self, images: Inputs, *, threads: int | None = None) -> npt.NDArray[np.int64]:
        """The class of the largest logit, [n]."""

def train(
    images: Inputs,
    labels: npt.ArrayLike,
    *,
    on_epoch: Callable[[Epoch], object] | None = None,
    threads: int | None = None,
    validation: float | tuple[Inputs, npt.ArrayLike] | None = None,
    class_names: Sequence[str] | None = None,
    class_texts: bool = False,
    feature_names: Sequence[str] | None = None,
    seed: int = 0,
    jitter: int | None = None,
    standardize: bool | Literal["auto", "mean"] = "auto",
    split_seed: int = 0,
    layers: Sequence[int] = (784, 1200, 1200, 10),
    dropout: Sequence[float] | None = None,
    activation: Activation = "relu",
    init_scale: float = 1.0,
    epochs: int = 200,
    batch_size: int = 128,
    microbatches: int = 1,
    precision: Precision = "f32",
    learning_rate: float = 0.05,
    schedule: Schedule = "cosine",
    optimizer: Optimizer = "sgd",
    momentum: float = 0.9,
    average: float = 0.0,
    max_norm: float | None = None,
    early_stopping: int | None = None,
    weight_decay: float = 0.0,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    momentum_epochs: int = 500,
    decay: float = 0.998,
    step_epochs: int = 100,
    step_factor: float = 0.5,
) -> Model:
    """Trains a net on labels.

    The keywords from seed on are the keys of a configuration file. The weights are a function of
    the data and of these alone: threads changes no bit. on_epoch is called after each epoch; an
    exception in it ends the training. Ctrl-C ends it after the current step: the attribute `model` of
    the KeyboardInterrupt is the net as it was then. A loss that is no longer finite is a
    FloatingPointError.

    validation: so many examples, or a share of them below 1, drawn by class with split_seed, are not
    trained on but evaluated after each epoch; or a pair (images, labels) is. early_stopping: epochs
    without a lower validation loss after which training ends, with the net of the best epoch.
    standardize: features to mean 0 and variance 1; "auto" does unless they are so already; "mean":
    features, or pixels, to mean 0 alone. The net keeps what it was standardised with, and the names.
    """

def distill(
    images: Inputs,
    teacher: npt.ArrayLike | Model | Sequence[Model],
    labels: npt.ArrayLike | None = None,
    *,
    on_epoch: Callable[[Epoch], object] | None = None,
    threads: int | None = None,
    validation: float | tuple[Inputs, npt.ArrayLike] | None = None,
    class_names: Sequence[str] | None = None,
    class_texts: bool = False,
    feature_names: Sequence[str] | None = None,
    temperature: float = 20.0,
    soft_weight: float = 1.0,
    hard_weight: float = 0.05,
    seed: int = 0,
    jitter: int | None = None,
    standardize: bool | Literal["auto", "mean"] = "auto",
    split_seed: int = 0,
    layers: Sequence[int] = (784, 1200, 1200, 10),
    dropout: Sequence[float] | None = None,
    activation: Activation = "relu",
    init_scale: float = 1.0,
    epochs: int = 200,
    batch_size: int = 128,
    microbatches: int = 1,
    precision: Precision = "f32",
    learning_rate: float = 0.05,
    schedule: Schedule = "cosine",
    optimizer: Optimizer = "sgd",
    momentum: float = 0.9,
    average: float = 0.0,
    max_norm: float | None = None,
    early_stopping: int | None = None,
    weight_decay: float = 0.0,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    momentum_epochs: int = 500,
    decay: float = 0.998,
    step_epochs: int = 100,
    step_factor: float = 0.5,
) -> Model:
    """Trains a net on a teacher's soft targets and, where there are labels, on these.

    teacher: its logits for the images, a model, or several, whose mean distribution at T is the
    target. The loss is that of distillation; without labels hard_weight must be 0. Everything
    else is as for train.
    """

def check(
    logits: Floats | npt.NDArray[np.float64],
    teacher_logits: Floats | npt.NDArray[np.float64] | None = None,
    labels: Labels | None = None,
    *,
    temperature: float | None = None,
    soft_weight: float | None = None,
    hard_weight: float | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    loss: float | np.floating[Any] | None = None,
    d_logits: Floats | npt.NDArray[np.float64] | None = None,
) -> Checked:
    """Verifies a distillation loss and its gradient that other code computed, and names its mistake.

    At least one of loss and d_logits is compared with the formula of distillation, in f64; a weight
    left out is 1 where its targets are given, else 0. The tolerance is that of float32 where any
    array is float32, or loss a NumPy float32, else that of float64.
    """

def check_case(path: str | PathLike[str]) -> Checked:
    """The same from a case file, as `limbeck check` reads it: safetensors.

    A file that is no case is a ValueError that says why, one that cannot be read an OSError.
    """

def mistakes() -> list[Mistake]:
    """The mistakes that check and check_case know, as `limbeck check --list --json` prints them."""
