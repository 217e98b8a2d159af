"""Classifiers in the manner of scikit-learn, which they need not: with it they are its estimators."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from limbeck import _arrays
from limbeck._arrays import Array, Floats
from limbeck._limbeck import Model, distill, train
from limbeck._sklearn import BaseEstimator, ClassifierMixin, NotFittedError
from limbeck._teachers import Targets, is_fitted, targets_of, targets_of_arrays

if TYPE_CHECKING:
    from limbeck._limbeck import Epoch

Auto = Literal["auto"]


class _Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What both classifiers share: all but what they learn from."""

    # What a fit leaves.
    model_: Model
    classes_: Array
    n_features_in_: int
    feature_names_in_: Array
    n_iter_: int
    best_epoch_: int
    interrupted_: bool
    loss_curve_: list[float]
    validation_loss_curve_: list[float]
    validation_scores_: list[float]

    def __init__(
        self,
        hidden_layer_sizes: Auto | int | Sequence[int] = "auto",
        *,
        activation: str = "relu",
        dropout: float | Sequence[float] | None = None,
        epochs: Auto | int = "auto",
        batch_size: Auto | int = "auto",
        learning_rate: Auto | float = "auto",
        schedule: str = "cosine",
        optimizer: str = "adam",
        weight_decay: Auto | float = "auto",
        standardize: Auto | Literal["mean"] | bool = "auto",
        validation_fraction: float | None = None,
        early_stopping: bool | int = False,
        random_state: Any = None,
        threads: int | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.random_state = random_state
        self.threads = threads

    def _hidden(self, classes: int) -> tuple[int, ...]:
        """The widths of "auto"."""
        raise NotImplementedError

    def _settings(self, x: Floats, classes: int) -> dict[str, Any]:
        """The keywords of train and distill."""
        hidden = self.hidden_layer_sizes
        if isinstance(hidden, str):
            hidden = self._hidden(classes)
        widths = [int(hidden)] if isinstance(hidden, (int, np.integer)) else [int(h) for h in hidden]
        if any(width < 1 for width in widths):
            raise ValueError(f"hidden_layer_sizes: found {hidden}, expected numbers above 0")
        # A narrow net needs more and larger steps, and they cost less.
        narrow = min(4.0, max(1.0, math.sqrt(256 / min(widths, default=256))))
        dropout = self.dropout
        if isinstance(dropout, (int, float)):
            dropout = [0.0, *([float(dropout)] * len(widths))]
        patience = 10 if self.early_stopping is True else self.early_stopping
        share = self.validation_fraction
        if patience and share is None:
            share = 0.1
        trained_on = len(x) if share is None else max(1, len(x) - round(share * len(x)))
        batch = self.batch_size
        if isinstance(batch, str):
            batch = auto_batch_size(trained_on)
        epochs = self.epochs
        if isinstance(epochs, str):
            epochs = auto_epochs(trained_on, batch, narrow)
        rate = self.learning_rate
        if isinstance(rate, str):
            rate = 0.002 * math.sqrt(narrow) if self.optimizer in ("adam", "adamw") else 0.05
        decay = self.weight_decay
        if isinstance(decay, str):
            decay = auto_weight_decay(trained_on)
        seed = seed_of(self.random_state)
        layers = [x.shape[1], *widths, classes]
        return {
            "layers": layers,
            "activation": self.activation,
            "dropout": dropout,
            "epochs": epochs,
            "batch_size": batch,
            "learning_rate": rate,
            "schedule": self.schedule,
            "optimizer": self.optimizer,
            "weight_decay": decay,
            "standardize": self.standardize,
            "validation": share,
            "early_stopping": patience or None,
            "seed": seed,
            "split_seed": seed,
            "threads": self._threads(batch * sum(a * b for a, b in pairwise(layers))),
        }

    def _threads(self, work: int) -> int | None:
        """One for little work, in multiply-adds: a second one would be waited for."""
        return 1 if self.threads is None and work < LITTLE_WORK else self.threads

    def _fit(
        self,
        X: Any,
        x: Floats,
        codes: Array | None,
        classes: Array,
        logits: Floats | None = None,
        **loss: float,
    ) -> None:
        """Trains, and keeps what came of it, also of a training that Ctrl-C ended."""
        names = _arrays.feature_names(X)
        history: list[Epoch] = []
        settings = self._settings(x, len(classes))
        settings |= {"on_epoch": history.append, "class_names": class_names(classes)}
        settings["class_texts"] = classes.dtype.kind not in "biuf"
        settings["feature_names"] = None if names is None else list(names)
        try:
            if logits is None:
                model = train(x, codes, **settings)  # type: ignore[arg-type]
            else:
                model = distill(x, logits, codes, **settings, **loss)  # type: ignore[arg-type]
        except KeyboardInterrupt as interrupt:
            so_far = getattr(interrupt, "model", None)
            if so_far is not None:
                self._keep(so_far, classes, names, history, interrupted=True)
            raise
        self._keep(model, classes, names, history, interrupted=False)

    def _keep(
        self,
        model: Model,
        classes: Array,
        names: Array | None,
        history: list[Epoch],
        interrupted: bool,
    ) -> None:
        self.model_, self.classes_ = model, classes
        self.n_features_in_ = model.layers[0]
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.interrupted_, self.n_iter_ = interrupted, len(history)
        self.loss_curve_ = [epoch["loss"] for epoch in history]
        losses = [epoch["validation_loss"] for epoch in history]
        self.validation_loss_curve_ = [loss for loss in losses if loss is not None]
        self.validation_scores_ = [
            1 - epoch["validation_errors"] / epoch["validation_examples"]
            for epoch in history
            if epoch["validation_errors"] is not None and epoch["validation_examples"]
        ]
        self.best_epoch_ = self.n_iter_
        if self.early_stopping and self.validation_loss_curve_:
            self.best_epoch_ = int(np.argmin(self.validation_loss_curve_)) + 1

    def _training_examples(self, X: Any) -> Floats:
        x = _arrays.matrix(X, "X", _arrays.feature_names(X))
        coarse = _arrays.coarse_column(X, x)
        if coarse is not None:
            warnings.warn(
                f"X: column {coarse} differs by less than float32, in which nets are computed, "
                "resolves: subtract its mean first, as by sklearn's StandardScaler",
                UserWarning,
                stacklevel=4,
            )
        return x

    def _examples(self, X: Any) -> Floats:
        """Those to answer for, whose columns must be those of the fit."""
        self._expect_fitted()
        names, known = _arrays.feature_names(X), getattr(self, "feature_names_in_", None)
        who = type(self).__name__
        if names is not None and known is None:
            warnings.warn(f"X has feature names, but {who} was fitted without feature names",
                          UserWarning, stacklevel=3)
        if names is None and known is not None:
            warnings.warn(f"X does not have valid feature names, but {who} was fitted with feature "
                          "names", UserWarning, stacklevel=3)
        if names is not None and known is not None and list(names) != list(known):
            raise ValueError(different_names(list(names), list(known)))
        x = _arrays.matrix(X, "X", names)
        if x.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {x.shape[1]} features, but {who} is expecting {self.n_features_in_} "
                f"features as input (found shape {x.shape})"
            )
        return x

    def _threads_for(self, x: Floats) -> int | None:
        return self._threads(len(x) * sum(a * b for a, b in pairwise(self.model_.layers)))

    def _logits(self, X: Any) -> Floats:
        x = self._examples(X)
        return self.model_.forward(x, threads=self._threads_for(x))

    def predict(self, X: Any) -> Array:
        """The class of each row of X, [n]."""
        x = self._examples(X)
        codes = self.model_.predict(x, threads=self._threads_for(x))
        return self.classes_[codes]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """The probability of each class in the order of classes_, [n, classes]."""
        x = self._examples(X)
        return self.model_.predict_proba(x, threads=self._threads_for(x))

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """The logarithm of predict_proba, also where that is 0 in float64."""
        z = self._logits(X).astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
        return z

    def decision_function(self, X: Any) -> Floats:
        """The logits, [n, classes]; of two classes log(p1 / p0), [n], as scikit-learn has it."""
        z = self._logits(X)
        return z if z.shape[1] > 2 else z[:, 1] - z[:, 0]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of the rows of X whose class is y."""
        right = self.predict(X) == _arrays.labels(y, len(X))
        return float(np.average(right, weights=sample_weight))

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the model file, which load, limbeck.Model.load and `limbeck predict` read."""
        self._expect_fitted()
        self.model_.save(path)

    def to_onnx(self, path: str | PathLike[str]) -> None:
        """Writes an ONNX graph from `inputs` [batch, features], X in float32, to `logits`.

        Standardisation is part of it; the metadata has class_names and feature_names in JSON.
        """
        self._expect_fitted()
        self.model_.to_onnx(path)

    def _expect_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet: call fit(X, y) first"
            )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Any:
        """A fitted classifier from a model file, of save or of `limbeck train`.

        classes_ are the names in the file; whole numbers, decimals and booleans become such again, and
        texts stay texts.
        """
        model = Model.load(path)
        self = cls(hidden_layer_sizes=tuple(model.layers[1:-1]), activation=model.activation)
        names = model.feature_names
        self._keep(model, classes_of(model), None if names is None else np.array(names, object), [],
                   interrupted=False)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


class LimbeckClassifier(_Classifier):
    """A multilayer perceptron for classification.

    Parameters with their defaults:

    hidden_layer_sizes ("auto"): units of each hidden layer, a number or several; "auto" is (256,).
    activation ("relu"): or "tanh".
    dropout (None): probability of dropping a hidden unit; or a list, the inputs' first.
    epochs ("auto"): passes over the data; "auto" makes 2,500 steps, 20 to 400 passes; of nets
        narrower than 256 up to four times as many, sqrt(256 / width).
    batch_size ("auto"): examples of a step; "auto" is n / 32, a power of two from 16 to 128.
    learning_rate ("auto"): at the start; "auto" is 0.002 for adam and adamw, for narrower nets
        up to twice as much, else 0.05.
    schedule ("cosine"): how it falls, of "constant", "linear", "cosine", "exponential", "step".
    optimizer ("adam"): or "adamw", "sgd", "nesterov".
    weight_decay ("auto"): coefficient of the L2 penalty; "auto" is 3 / n, at most 0.03.
    standardize ("auto"): features to mean 0 and variance 1, unless they are already; True, False;
        "mean": to mean 0 alone.
    validation_fraction (None): share that is not trained on but watched, drawn by class; 0.1 with
        early_stopping.
    early_stopping (False): epochs without a lower validation loss after which to stop and keep the
        best epoch's model; True is 10.
    random_state (None): a number makes fits repeatable, to the bit and for any number of threads.
    threads (None): as many as the machine has, one for a small net; no bit depends on it.

    After fit: classes_, n_features_in_, feature_names_in_ (of a data frame), n_iter_ (epochs),
    best_epoch_, loss_curve_, validation_loss_curve_, validation_scores_, model_ (a limbeck.Model) and
    interrupted_: Ctrl-C ends a fit at once with KeyboardInterrupt, and what was trained so far is kept.

    >>> import numpy as np
    >>> from limbeck import LimbeckClassifier
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = np.where(X[:, 0] > X[:, 1], "right", "left")
    >>> model = LimbeckClassifier(random_state=0).fit(X, y)
    >>> [str(name) for name in model.predict([[1.0, -1.0], [-1.0, 1.0]])]
    ['right', 'left']
    >>> model.predict_proba([[1.0, -1.0]]).shape
    (1, 2)
    """

    def _hidden(self, classes: int) -> tuple[int, ...]:
        return (256,)

    def fit(self, X: Any, y: Any) -> LimbeckClassifier:
        """Trains on examples X [n, features] and their classes y [n]; returns itself.

        X: numbers of any dtype, of NumPy, pandas, polars, torch, JAX or lists; y: whole numbers,
        booleans or texts.
        """
        x = self._training_examples(X)
        classes, codes = encoded(y, len(x), type(self).__name__)
        self._fit(X, x, codes, classes)
        return self


class DistilledClassifier(_Classifier):
    """A small multilayer perceptron that learns from a teacher's probabilities and from labels.

    Its loss is soft_weight T² CE(softmax(v / T), softmax(z / T)) + hard_weight CE(y, softmax(z)) for
    the teacher's logits v, its own z and the temperature T.

    teacher (None): who is asked about X: a fitted classifier (its predict_proba, or decision_function
        where it has none), a torch module or another function from X to logits; a classifier that is
        not fitted, of which a clone is fitted on (X, y) first, kept as teacher_; None, which is
        LimbeckClassifier(256). fit takes its answers in its place: teacher_logits or teacher_probs.
        clone, and so cross_val_score, forgets a fit: the teacher is trained anew on each fold; wrap it
        in sklearn.frozen.FrozenEstimator to keep it.
    temperature (2.0): T; inf matches logits.
    soft_weight (1.0), hard_weight ("auto"): "auto" is 0.5, and 0 without labels.
    hidden_layer_sizes ("auto"): "auto" is (16,), or as many units as classes.

    The other parameters, and what fit leaves, are those of LimbeckClassifier.

    >>> import numpy as np
    >>> from limbeck import DistilledClassifier, LimbeckClassifier
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> teacher = LimbeckClassifier(256, random_state=0).fit(X, X[:, 0] > X[:, 1])
    >>> student = DistilledClassifier(teacher, hidden_layer_sizes=8, random_state=0).fit(X)
    >>> student.predict([[1.0, -1.0], [-1.0, 1.0]])
    array([ True, False])
    """

    def __init__(
        self,
        teacher: Any = None,
        *,
        temperature: float = 2.0,
        soft_weight: float = 1.0,
        hard_weight: Auto | float = "auto",
        hidden_layer_sizes: Auto | int | Sequence[int] = "auto",
        activation: str = "relu",
        dropout: float | Sequence[float] | None = None,
        epochs: Auto | int = "auto",
        batch_size: Auto | int = "auto",
        learning_rate: Auto | float = "auto",
        schedule: str = "cosine",
        optimizer: str = "adam",
        weight_decay: Auto | float = "auto",
        standardize: Auto | Literal["mean"] | bool = "auto",
        validation_fraction: float | None = None,
        early_stopping: bool | int = False,
        random_state: Any = None,
        threads: int | None = None,
    ) -> None:
        self.teacher = teacher
        self.temperature = temperature
        self.soft_weight = soft_weight
        self.hard_weight = hard_weight
        super().__init__(
            hidden_layer_sizes,
            activation=activation,
            dropout=dropout,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule=schedule,
            optimizer=optimizer,
            weight_decay=weight_decay,
            standardize=standardize,
            validation_fraction=validation_fraction,
            early_stopping=early_stopping,
            random_state=random_state,
            threads=threads,
        )

    def _hidden(self, classes: int) -> tuple[int, ...]:
        return (max(16, classes),)

    def fit(
        self, X: Any, y: Any = None, *, teacher_logits: Any = None, teacher_probs: Any = None
    ) -> DistilledClassifier:
        """Trains on examples X [n, features], what the teacher says of them and, where they are
        given, their classes y [n]; returns itself.

        teacher_logits or teacher_probs: the answers of a teacher, [n, classes], in the order of the
        sorted classes of y.
        """
        x = self._training_examples(X)
        codes, labels, classes = None, None, None
        if y is not None:
            classes, codes = encoded(y, len(x), type(self).__name__)
            labels = classes[codes]
        if teacher_logits is not None or teacher_probs is not None:
            targets = targets_of_arrays(teacher_logits, teacher_probs, len(x))
        else:
            targets = targets_of(self._taught(X, y), X, x)
        classes, codes = joined(targets, labels, codes, classes)
        hard = self.hard_weight
        if isinstance(hard, str):
            hard = 0.0 if codes is None else 0.5
        if codes is None and hard > 0:
            raise ValueError(
                f"hard_weight: found {hard} without labels (y is None), expected 0 or 'auto'"
            )
        if codes is None and (self.early_stopping or self.validation_fraction):
            raise ValueError(
                "early_stopping, validation_fraction: found without labels (y is None), which they "
                "compare with; expected False, None"
            )
        self._fit(X, x, codes, classes, targets.logits, temperature=self.temperature,
                  soft_weight=self.soft_weight, hard_weight=hard)
        return self

    def _taught(self, X: Any, y: Any) -> Any:
        """The teacher, fitted where it is not."""
        teacher = self.teacher
        if teacher is None:
            teacher = LimbeckClassifier(256, random_state=self.random_state, threads=self.threads)
        elif not (hasattr(teacher, "fit") and hasattr(teacher, "get_params")) or is_fitted(teacher):
            self.teacher_ = teacher
            return teacher
        if y is None:
            raise ValueError(
                "requires y to be passed, but the target y is None: the teacher is not fitted, and "
                "is trained on X and y first"
            )
        self.teacher_ = copy.deepcopy(teacher).fit(X, y)
        return self.teacher_


LITTLE_WORK = 1 << 22


def auto_batch_size(n: int) -> int:
    """n / 32, to the power of two below, from 16 to 128; never more than n."""
    return min(n, max(16, min(128, 1 << int(math.log2(max(n / 32, 1))))))


def auto_epochs(n: int, batch: int, narrow: float) -> int:
    """As many as make 2,500 steps, from 20 to 400, times `narrow`."""
    return round(narrow * max(20, min(400, 2500 / math.ceil(n / batch))))


def auto_weight_decay(n: int) -> float:
    """3 / n: what one prior says of the weights, against a loss that is a mean over n examples."""
    return min(0.03, 3 / n)


def seed_of(random_state: Any) -> int:
    """A seed of 31 bits from what scikit-learn calls a random state."""
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state: found {random_state}, expected at least 0")
        return int(random_state)
    if random_state is None:
        return int(np.random.randint(2**31 - 1))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    raise ValueError(f"random_state: found {random_state!r}, expected a number or a generator")


def encoded(y: Any, examples: int, who: str) -> tuple[Array, Array]:
    """The sorted classes of y, at least two, and the number of each label's."""
    if y is None:
        raise ValueError(f"{who} requires y to be passed, but the target y is None")
    classes, codes = np.unique(_arrays.labels(y, examples), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y: found 1 class, {classes.tolist()[0]!r}, expected at least 2 classes to tell apart"
        )
    return classes, codes.reshape(-1).astype(np.int64)


def joined(
    targets: Targets, labels: Array | None, codes: Array | None, classes: Array | None
) -> tuple[Array, Array | None]:
    """The classes of teacher and labels together, and the number of each label's."""
    count = targets.logits.shape[1]
    if targets.classes is not None:
        if labels is None:
            return targets.classes, None
        place = {label: i for i, label in enumerate(targets.classes.tolist())}
        strange = sorted({repr(label) for label in labels.tolist() if label not in place})
        if strange:
            known = targets.classes.tolist()
            raise ValueError(
                f"y: found the classes [{', '.join(strange[:20])}], which the teacher does not know: it "
                f"has {known[:20]}"
            )
        return targets.classes, np.array([place[label] for label in labels.tolist()])
    if classes is None:
        return np.arange(count), None
    if len(classes) == count:
        return classes, codes
    numbers = classes.dtype.kind in "iu" and classes.min() >= 0 and classes.max() < count
    if not numbers or labels is None:
        raise ValueError(
            f"teacher: found logits of {count} classes, expected {len(classes)}, the classes of y: "
            f"{classes.tolist()[:20]}"
        )
    return np.arange(count), labels.astype(np.int64)


def class_names(classes: Array) -> list[str] | None:
    """What a model file calls the classes; nothing where they are the numbers from 0."""
    if classes.dtype.kind in "iu" and (classes == np.arange(len(classes))).all():
        return None
    return [str(name) for name in classes.tolist()]


def classes_of(model: Model) -> Array:
    """The classes from their names in a model file."""
    names = model.class_names
    if names is None:
        return np.arange(model.layers[-1])
    if model.class_texts:
        return np.array(names, dtype=object)
    if names == ["False", "True"]:
        return np.array([False, True])
    for kind in (int, float):
        try:
            if [str(kind(name)) for name in names] == names:
                return np.array([kind(name) for name in names])
        except ValueError:
            continue
    return np.array(names, dtype=object)


def different_names(found: list[str], known: list[str]) -> str:
    message = "The feature names should match those that were passed during fit.\n"
    strange = [name for name in found if name not in known]
    absent = [name for name in known if name not in found]
    if not strange and not absent:
        return message + (
            "Feature names must be in the same order as they were in fit.\n"
            "X[model.feature_names_in_] has that order.\n"
        )
    for title, names in [("Feature names unseen at fit time:\n", sorted(strange)),
                         ("Feature names seen at fit time, yet now missing:\n", sorted(absent))]:
        if names:
            message += title + "".join(f"- {name}\n" for name in names[:5])
            message += "- ...\n" if len(names) > 5 else ""
    return message
