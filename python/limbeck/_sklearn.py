"""The bases of a classifier: scikit-learn's, or as much of them as a classifier needs without it."""

from __future__ import annotations

import inspect
from typing import Any

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import NotFittedError
except ImportError:

    class NotFittedError(ValueError, AttributeError):  # type: ignore[no-redef]
        """A classifier was asked before fit."""

    class ClassifierMixin:  # type: ignore[no-redef]
        """Nothing is missing."""

    class BaseEstimator:  # type: ignore[no-redef]
        """Parameters by name."""

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            """The parameters and, where these have some of their own, those as name__theirs."""
            names = list(inspect.signature(type(self)).parameters)
            params = {name: getattr(self, name) for name in names}
            for name, value in list(params.items()):
                if deep and hasattr(value, "get_params") and not isinstance(value, type):
                    for key, inner in value.get_params().items():
                        params[f"{name}__{key}"] = inner
            return params

        def set_params(self, **params: Any) -> Any:
            """Changes parameters; returns itself."""
            known = self.get_params(deep=False)
            for key, value in params.items():
                name, _, rest = key.partition("__")
                if name not in known:
                    raise ValueError(f"{key}: found, expected one of {sorted(known)}")
                if rest:
                    getattr(self, name).set_params(**{rest: value})
                else:
                    setattr(self, name, value)
            return self

        def __repr__(self) -> str:
            defaults = inspect.signature(type(self)).parameters
            changed = {
                name: value
                for name, value in self.get_params(deep=False).items()
                if value is not defaults[name].default and value != defaults[name].default
            }
            return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"


__all__ = ["BaseEstimator", "ClassifierMixin", "NotFittedError"]
