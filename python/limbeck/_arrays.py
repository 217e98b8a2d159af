"""Arrays of any library as NumPy's, and what cannot be one refused with the way to mend it.

No library but NumPy is imported here: torch, pandas, polars, SciPy and JAX are known by what their
objects can do.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def plain(value: Any, name: str) -> Array:
    """`value` as a NumPy array of its own dtype; bfloat16, which NumPy lacks, becomes float32."""
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(
            f"{name}: found a sparse matrix of shape {value.shape}, expected a dense array: "
            f"{name}.toarray()"
        )
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        row = np.argwhere(np.ma.getmaskarray(value))[0]
        raise ValueError(f"{name}: found a masked value at {at(row)}: fill or drop it first")
    if is_torch(value):
        value = value.detach().cpu()
        if value.is_sparse or "bfloat16" in str(value.dtype):
            value = (value.to_dense() if value.is_sparse else value).float()
        return np.asarray(value.resolve_conj().numpy())
    if is_frame(value):
        return frame(value, name)
    if isinstance(value, (str, bytes, dict, set)) or value is None:
        raise TypeError(f"{name}: found {type(value)}, expected an array")
    if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
        return np.asarray(np.from_dlpack(value))
    if hasattr(value, "__next__"):
        raise TypeError(f"{name}: found {type(value)}, expected an array: list({name})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getattr(np, "VisibleDeprecationWarning", UserWarning))
            array = np.asarray(value)
    except ValueError as ragged:
        raise ValueError(f"{name}: expected rows of equal length ({ragged})") from None
    if str(array.dtype) == "bfloat16":  # JAX's
        return array.astype(np.float32)
    return array


def is_torch(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "detach")


def is_frame(value: Any) -> bool:
    """Of pandas or polars."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy") and hasattr(value, "shape")


def frame(value: Any, name: str) -> Array:
    """The numbers of a data frame, whose columns may be of pandas' nullable types."""
    columns = []
    for place, label in enumerate(value.columns):
        column = value.iloc[:, place] if hasattr(value, "iloc") else value[label]
        array = column.to_numpy()
        if array.dtype.kind == "O":
            # Nullable numbers with gaps, or numbers among others: with what is missing as nan.
            try:
                array = np.array([np.nan if missing(x) else number(x) for x in array])
            except (TypeError, ValueError):
                raise ValueError(unfit_column(name, label, column.dtype)) from None
        elif array.dtype.kind not in "biuf":
            if array.dtype.kind == "c":
                raise ValueError(f"Complex data not supported: {name} has it in column {label!r}")
            raise ValueError(unfit_column(name, label, column.dtype))
        columns.append(array)
    return np.stack(columns, axis=1) if columns else np.empty(value.shape)


def unfit_column(name: str, label: Any, dtype: Any) -> str:
    return (
        f"{name}: column {label!r} has the dtype {dtype}, expected numbers: leave it out, make it "
        f"numbers by pandas.to_numeric, or encode its categories by pandas.get_dummies({name})"
    )


def missing(value: Any) -> bool:
    """None, pandas.NA, NaT and nan."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def number(value: Any) -> float:
    """A number, not a text that reads as one."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"argument must be a real number, not a string: {value!r}")
    return float(value)


def matrix(value: Any, name: str, columns: npt.ArrayLike | None = None) -> Floats:
    """Finite numbers [n, values] as float32, row by row. `columns` are named in errors."""
    array = plain(value, name)
    if array.ndim != 2:
        hint = {
            0: "",
            1: f". Reshape your data: {name}.reshape(-1, 1) for one feature, "
            f"{name}.reshape(1, -1) for one example",
        }.get(array.ndim, f": {name}.reshape(len({name}), -1)")
        found = f"shape {array.shape}"
        raise ValueError(f"{name}: found {found}, expected [examples, values]{hint}")
    for side, what in enumerate(["sample", "feature"]):
        if array.shape[side] == 0:
            raise ValueError(
                f"{name}: found 0 {what}(s) (shape={array.shape}) while a minimum of 1 is required."
            )
    if array.dtype.kind == "O":
        array = numbers(array, name)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} is {array.dtype}")
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: found the dtype {array.dtype}, expected numbers: {name}.astype(float), or "
            "encode categories as numbers"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        found = array[row, column]
        label = "" if columns is None else f" ({np.asarray(columns)[column]!r})"
        where = f"at row {row}, column {column}{label}"
        if np.isfinite(found):
            raise ValueError(f"{name}: found {found} {where}, which is infinity in float32")
        what = "NaN" if np.isnan(found) else "infinity"
        raise ValueError(
            f"{name} contains {what}: found {found} {where}, expected finite numbers; "
            "sklearn.impute.SimpleImputer fills gaps"
        )
    return values


def numbers(array: Array, name: str) -> Array:
    """The numbers in an array of Python objects."""
    values = np.empty(array.shape)
    for place, value in np.ndenumerate(array):
        try:
            values[place] = np.nan if missing(value) else number(value)
        except (TypeError, ValueError) as fault:
            raise (TypeError if isinstance(fault, TypeError) else ValueError)(
                f"{name}: found {type(value).__name__} {value!r:.40} at {at(place)}, expected "
                f"numbers; encode categories as numbers, as by sklearn's OneHotEncoder: {fault}"
            ) from None
    return values


def at(place: Any) -> str:
    return ", ".join(f"{axis} {int(i)}" for axis, i in zip(("row", "column"), place))


def coarse_column(value: Any, values: Floats) -> int | None:
    """A column whose values differ by so little that float32 takes them for a few; None if none."""
    array = np.asarray(value) if isinstance(value, np.ndarray) else None
    if array is None or array.dtype.kind not in "iuf" or array.dtype.itemsize < 4:
        return None
    with np.errstate(all="ignore"):
        spread = array.std(axis=0, dtype=np.float64)
        step = np.abs(values).max(axis=0).astype(np.float64) * 2.0**-24
    coarse = np.flatnonzero((spread > 0) & (step > spread / 64))
    return int(coarse[0]) if len(coarse) else None


def feature_names(value: Any) -> Array | None:
    """The names of a data frame's columns, where they are texts."""
    if not is_frame(value):
        return None
    names = list(value.columns)
    texts = [isinstance(name, str) for name in names]
    if any(texts) and not all(texts):
        raise TypeError(
            "Feature names are only supported if all input features have string names: "
            "X.columns = X.columns.astype(str)"
        )
    return np.array(names, dtype=object) if names and all(texts) else None


def labels(value: Any, examples: int) -> Array:
    """Labels [n], of integers, whole floats, booleans or texts."""
    if is_frame(value) and value.shape[1] == 1:
        value = value.iloc[:, 0] if hasattr(value, "iloc") else value[value.columns[0]]
    array = np.asarray(value.to_numpy()) if hasattr(value, "to_numpy") else plain(value, "y")
    if array.ndim == 2 and array.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected: y.ravel()",
            conversion_warning(),
            stacklevel=4,
        )
        array = array[:, 0]
    if array.ndim != 1:
        hint = ": y.argmax(axis=1) of one-hot labels" if array.ndim == 2 else ""
        raise ValueError(f"y: found shape {array.shape}, expected [examples]{hint}")
    if len(array) != examples:
        raise ValueError(f"y: found {len(array)} labels, expected {examples}, as many as X has rows")
    if array.dtype.kind == "O":
        gaps = [i for i, label in enumerate(array) if missing(label)]
        if gaps:
            raise ValueError(f"y: found {array[gaps[0]]} at row {gaps[0]}, expected a label (NaN)")
        kinds = {str if isinstance(label, str) else type(label) for label in array}
        if kinds == {str} or kinds == {bool}:
            return array if kinds == {str} else array.astype(bool)
        try:
            array = np.array([number(label) for label in array])
        except (TypeError, ValueError):
            found = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise ValueError(f"y: found labels of the types {found}, expected texts or whole "
                             "numbers (Unknown label type: unknown)") from None
        if all(kind is not bool and issubclass(kind, (int, np.integer)) for kind in kinds):
            return array.astype(np.int64)
    if array.dtype.kind == "c":
        raise ValueError("Complex data not supported: y is complex (Unknown label type)")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array)))
            raise ValueError(f"y: found {array[row]} at row {row}, expected a label (NaN or infinity)")
        whole = array == np.floor(array)
        if not whole.all():
            row = int(np.argmin(whole))
            raise ValueError(
                f"Unknown label type: continuous. y: found {array[row]} at row {row}, expected "
                "classes: texts or whole numbers. This is a classifier; a regression's y can be cut "
                "in classes by numpy.digitize(y, numpy.quantile(y, [0.25, 0.5, 0.75]))"
            )
    elif array.dtype.kind not in "biuUST":
        raise ValueError(f"y: found the dtype {array.dtype}, expected texts or whole numbers")
    return array


def conversion_warning() -> type[Warning]:
    """scikit-learn's DataConversionWarning, where it is installed."""
    try:
        from sklearn.exceptions import DataConversionWarning
    except ImportError:
        return UserWarning
    return DataConversionWarning  # type: ignore[no-any-return]
