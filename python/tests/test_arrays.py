"""Arrays of every library, dtype and order give the same net; what cannot be one is named."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import limbeck
from limbeck import DistilledClassifier, LimbeckClassifier

RNG = np.random.default_rng(27)
X = RNG.integers(-8, 9, (60, 3)).astype(np.float64) / 4  # exact in every float type
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)


def fit(x, y=Y, **keywords):
    return LimbeckClassifier(4, epochs=3, random_state=0, **keywords).fit(x, y)


SHA = fit(X).model_.sha256


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


WAYS = {
    "f32": lambda x: x.astype(np.float32),
    "f16": lambda x: x.astype(np.float16),
    "longdouble": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f8"),
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "read-only": read_only,
    "list": lambda x: x.tolist(),
    "tuple of arrays": tuple,
    "objects": lambda x: x.astype(object),
    "masked, nothing masked": np.ma.masked_array,
    "memoryview": memoryview,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_numbers_in_any_form_give_the_same_net(way):
    model = fit(WAYS[way](X))
    assert model.model_.sha256 == SHA
    assert (model.predict(WAYS[way](X)) == fit(X).predict(X)).all()


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", ">i4", "uint64"])
def test_whole_numbers_of_any_dtype(dtype):
    whole = np.abs(X * 4).astype("int64") % 2 if dtype == "bool" else np.abs(X * 4).astype("int64")
    assert fit(whole.astype(dtype)).model_.sha256 == fit(whole.astype(float)).model_.sha256


@pytest.mark.parametrize("y", [
    Y.astype("uint8"), Y.astype(">i2"), Y.astype(float), Y.astype(bool), Y.tolist(), Y.astype(object),
    np.array(["no", "yes"])[Y], np.array(["no", "yes"], object)[Y], Y * 7 - 3, np.array([b"a", b"b"])[Y],
], ids=str)
def test_labels_of_any_dtype(y):
    model = fit(X, y)
    assert model.model_.sha256 == SHA
    assert (model.classes_ == np.unique(np.asarray(y))).all()
    assert set(model.predict(X)) <= set(np.asarray(y)) and 0 < model.score(X, y) <= 1


def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = fit(frame, pd.Series(Y).map({0: "no", 1: "yes"}))
    assert model.model_.sha256 == SHA
    assert list(model.feature_names_in_) == model.model_.feature_names == ["a", "b", "c"]
    assert list(model.classes_) == model.model_.class_names == ["no", "yes"]
    text = pd.Series(np.array(["no", "yes"])[Y])
    for y in [text.astype("category"), text.astype("string"), text.to_frame(),
              pd.Series(Y, dtype="Int64"), pd.Series(Y, index=range(100, 160)), pd.Index(Y)]:
        assert fit(frame, y).model_.sha256 == SHA
    mixed = frame.astype({"a": "Float64", "b": "float32"})
    assert fit(mixed).model_.sha256 == SHA
    with pytest.raises(ValueError, match="X contains NaN: .* row 4, column 1 .'b'"):
        fit(mixed.assign(b=frame.b.where(frame.index != 4)))
    with pytest.raises(ValueError, match="X contains NaN: .* row 4, column 0 .'a'"):
        fit(mixed.assign(a=mixed.a.where(frame.index != 4)))
    with pytest.raises(ValueError, match="column 'b' has the dtype category.*get_dummies"):
        fit(frame.assign(b=pd.Categorical(["u", "v"] * 30)))
    with pytest.raises(ValueError, match="column 'b' has the dtype .*to_numeric"):
        fit(frame.assign(b=["1.5", "2"] * 30))
    with pytest.raises(ValueError, match="column 'b' has the dtype datetime64"):
        fit(frame.assign(b=pd.date_range("2026-01-01", periods=60)))
    with pytest.raises(ValueError, match="y: found .* at row 2"):
        fit(frame, text.where(text.index != 2))
    with pytest.raises(TypeError, match="string names"):
        fit(frame.rename(columns={"a": 0}))
    # As in xgboost's issue 2334: columns in another order are never taken in that order.
    with pytest.raises(ValueError, match="same order"):
        model.predict(frame[["c", "b", "a"]])
    with pytest.raises(ValueError, match="unseen at fit time:\n- d\n"):
        model.predict(frame.rename(columns={"b": "d"}))


def test_polars():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]})
    model = fit(frame, pl.Series(np.array(["no", "yes"])[Y].tolist()))
    assert model.model_.sha256 == SHA
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="X contains NaN"):
        fit(pl.DataFrame({"a": [None, *X[1:, 0]], "b": X[:, 1], "c": X[:, 2]}))
    with pytest.raises(ValueError, match="column 'a' has the dtype"):
        fit(pl.DataFrame({"a": ["x"] * 60, "b": X[:, 1], "c": X[:, 2]}))


def test_torch():
    torch = pytest.importorskip("torch")
    x = torch.tensor(X)
    for given in [x, x.float().requires_grad_(), x.half(), x.bfloat16(), x.T.contiguous().T,
                  torch.nn.Parameter(x), x.to_sparse()]:
        assert fit(given, torch.tensor(Y)).model_.sha256 == SHA
    assert limbeck.train(x, torch.tensor(Y), layers=[3, 2], epochs=1).layers == [3, 2]


def test_jax():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("no JAX")
    # In a process of its own: check_loss, tested elsewhere, tries every framework that is imported.
    code = """
        import sys; sys.path.insert(0, sys.argv[1])
        import jax.numpy as jnp
        from test_arrays import SHA, X, Y, fit
        for dtype in ["float32", "bfloat16", "float16"]:
            assert fit(jnp.asarray(X, dtype), jnp.asarray(Y)).model_.sha256 == SHA
    """
    folder = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), folder], check=True, timeout=120)


def test_dlpack_alone():
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **keywords):
            return self.array.__dlpack__(**keywords)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    assert limbeck.train(Foreign(X), Y, layers=[3, 2], epochs=1).layers == [3, 2]


def changed(place, value):
    x = X.copy()
    x[place] = value
    return x


def sparse():
    return pytest.importorskip("scipy.sparse").csr_matrix(X)


FAULTS = [
    (lambda: changed((3, 2), np.nan), Y, ValueError, "X contains NaN: .* row 3, column 2"),
    (lambda: changed((3, 2), -np.inf), Y, ValueError, "X contains infinity: .* row 3, column 2"),
    (lambda: changed((3, 2), 1e39), Y, ValueError, "1e.39 at row 3, column 2.*float32"),
    (lambda: X[:, 0], Y, ValueError, r"X: found shape \(60,\).*Reshape your data"),
    (lambda: X.reshape(60, 3, 1), Y, ValueError, r"X: found shape \(60, 3, 1\).*len\(X\), -1"),
    (lambda: 3.0, Y, ValueError, r"X: found shape \(\)"),
    (lambda: X[:0], Y[:0], ValueError, "0 sample"),
    (lambda: X[:, :0], Y, ValueError, "0 feature"),
    (lambda: [], [], ValueError, "X: found shape"),
    (lambda: [[1, 2], [3]], [0, 1], ValueError, "X: expected rows of equal length"),
    (lambda: X + 1j, Y, ValueError, "Complex data not supported: X"),
    (lambda: X.astype(str), Y, ValueError, "X: found the dtype <U.*astype"),
    (lambda: X.astype("M8[s]"), Y, ValueError, "X: found the dtype datetime64"),
    (lambda: np.where(X > 1.9, "red", X.astype(object)), Y, TypeError, "X: found str 'red' at row"),
    (lambda: np.ma.masked_greater(X, 1), Y, ValueError, "X: found a masked value at row"),
    (sparse, Y, TypeError, r"X: found a sparse matrix.*X.toarray\(\)"),
    (lambda: None, Y, TypeError, "X: found .*NoneType"),
    (lambda: "a table", Y, TypeError, "X: found .*str"),
    (lambda: {"a": [1]}, Y, TypeError, "X: found .*dict"),
    (lambda: (row for row in X), Y, TypeError, r"X: found .*generator.*list\(X\)"),
    (lambda: X, Y[1:], ValueError, "y: found 59 labels, expected 60"),
    (lambda: X, X[:, 0], ValueError, "Unknown label type: continuous.*classifier"),
    (lambda: X, Y + 0.5, ValueError, "y: found 0.5 at row|y: found 1.5 at row"),
    (lambda: X, np.where(Y == 1, np.nan, 0), ValueError, "y: found nan at row"),
    (lambda: X, np.eye(2)[Y], ValueError, r"y: found shape \(60, 2\).*argmax"),
    (lambda: X, Y * 0, ValueError, "1 class, 0, expected at least 2"),
    (lambda: X, None, ValueError, "requires y to be passed"),
    (lambda: X, [None, *Y[1:]], ValueError, "y: found None at row 0"),
    (lambda: X, np.array(["a", *Y[1:]], object), ValueError, "y: found labels of the types int.*, str"),
    (lambda: X, np.array([{}, *Y[1:]], object), ValueError, "y: found labels of the types"),
]


@pytest.mark.parametrize("x,y,exception,message", FAULTS, ids=[f[3][:30] for f in FAULTS])
def test_what_cannot_be_learnt_from_is_named(x, y, exception, message):
    with pytest.raises(exception, match=message):
        fit(x(), y)


def test_features_and_names_of_the_low_level_functions():
    model = limbeck.train(X.tolist(), Y.tolist(), layers=[3, 4, 2], epochs=2, standardize=True,
                          class_names=["no", "yes"], feature_names=["a", "b", "c"])
    assert model.class_names == ["no", "yes"] and model.feature_names == ["a", "b", "c"]
    mean, scale = model.standardizer
    assert np.allclose(mean, X.mean(axis=0), atol=1e-6) and np.allclose(scale, 1 / X.std(axis=0))
    assert limbeck.train(X, Y, layers=[3, 2], epochs=1, standardize=False).standardizer is None
    p = model.predict_proba(X, temperature=2)
    z = model.forward(X).astype(float) / 2
    assert np.allclose(p, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), rtol=1e-12)
    with pytest.raises(ValueError, match="images: found 2 features, expected 3"):
        model.predict(X[:, :2])
    with pytest.raises(ValueError, match="images contains NaN: .* row 0, column 1"):
        model.predict(changed((0, 1), np.nan))
    with pytest.raises(ValueError, match="class_names: found 3 names, expected 2"):
        limbeck.train(X, Y, layers=[3, 2], class_names=["a", "b", "c"])
    with pytest.raises(ValueError, match="temperature: found 0"):
        model.predict_proba(X, temperature=0)
    for value, exception in [(60, ValueError), (1.5, ValueError), (-1, ValueError), ("a", TypeError),
                             (True, TypeError), (0.0, ValueError)]:
        with pytest.raises(exception, match="validation: found"):
            limbeck.train(X, Y, layers=[3, 2], validation=value)
    with pytest.raises(ValueError, match="early_stopping needs examples"):
        limbeck.train(X, Y, layers=[3, 2], early_stopping=3)


def test_validation_is_drawn_or_given_and_stops_early():
    keywords = dict(layers=[3, 8, 2], epochs=60, batch_size=8, learning_rate=0.2)
    told, noise = [], RNG.integers(0, 2, 60)  # which nothing can learn
    limbeck.train(X, noise, validation=0.25, early_stopping=4, on_epoch=told.append, **keywords)
    losses = [epoch["validation_loss"] for epoch in told]
    assert len(told) < 60 and len(told) == int(np.argmin(losses)) + 1 + 4
    assert {epoch["validation_examples"] for epoch in told} == {15}
    given = []
    limbeck.train(X, Y, validation=(X[:7], Y[:7]), on_epoch=given.append, **keywords)
    assert given[0]["validation_examples"] == 7
    unwatched = []
    plain = limbeck.train(X, Y, on_epoch=unwatched.append, **keywords)
    assert unwatched[0]["validation_loss"] is None
    watched = limbeck.train(X, Y, validation=(X[:7], Y[:7]), **keywords)
    assert watched.sha256 == plain.sha256
    # The teacher's rows follow the examples that are left.
    logits = np.stack([-X[:, 0], X[:, 0]], axis=1) * 4
    student = limbeck.distill(X, logits, Y, validation=20, temperature=1, hard_weight=0, **keywords)
    assert ((student.forward(X) * [-1, 1]).sum(axis=1) * X[:, 0] >= 0).mean() > 0.9


def test_models_of_parameters():
    import copy
    import pickle

    model = fit(X).model_
    made = limbeck.Model(model.parameters(), standardizer=model.standardizer)
    assert (made.forward(X) == model.forward(X)).all()
    for copied in [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]:
        assert copied.sha256 == model.sha256 and (copied.forward(X) == model.forward(X)).all()
    w, b = np.ones((2, 3), np.float32), np.zeros(2, np.float32)
    for parameters, message in [([], "no layer"), ([(w, b[:1])], r"a bias \[1\] of layer 0"),
                                ([(w, b), (w, b)], r"of layer 1, expected \[outputs, 2\]"),
                                ([(w * np.nan, b)], "not finite")]:
        with pytest.raises(ValueError, match=message):
            limbeck.Model(parameters)
    with pytest.raises(ValueError, match="activation: found 'gelu'"):
        limbeck.Model([(w, b)], activation="gelu")
    with pytest.raises(ValueError, match="standardizer: found 2 values, expected 3"):
        limbeck.Model([(w, b)], standardizer=(b, b))


def test_students_take_teachers_answers_of_any_kind():
    logits = np.stack([-X[:, 0] - X[:, 1], X[:, 0] + X[:, 1]], axis=1) * 3
    student = DistilledClassifier(hidden_layer_sizes=4, epochs=3, random_state=0)
    sha = student.fit(X, Y, teacher_logits=logits).model_.sha256
    for given in [logits.tolist(), logits.astype(">f4").astype(float), np.asfortranarray(logits)]:
        assert student.fit(X, Y, teacher_logits=given).model_.sha256 == sha
