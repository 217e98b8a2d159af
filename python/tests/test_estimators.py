"""The classifiers: scikit-learn's own checks, their promises, and how wrappers elsewhere failed."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest

import limbeck
from limbeck import DistilledClassifier, LimbeckClassifier

RNG = np.random.default_rng(5)
X = RNG.normal(size=(300, 4)) * [1, 10, 100, 1] + [0, 5, 1000, 0]
Y = np.array(["blue", "green", "red"])[(X[:, 0] > -0.5).astype(int) + (X[:, 1] > 5 + X[:, 0])]


@pytest.fixture(scope="module")
def model():
    return LimbeckClassifier(random_state=0).fit(X, Y)


def test_scikit_learns_checks():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    for estimator in [LimbeckClassifier(), DistilledClassifier(),
                      LimbeckClassifier(8, early_stopping=3, optimizer="sgd")]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checks.check_estimator(estimator)


def test_what_a_fit_leaves(model):
    assert list(model.classes_) == ["blue", "green", "red"] and model.n_features_in_ == 4
    assert model.n_iter_ == len(model.loss_curve_) == model.best_epoch_
    assert model.loss_curve_[-1] < model.loss_curve_[0] and not model.interrupted_
    p, z = model.predict_proba(X), model.decision_function(X)
    assert p.dtype == np.float64 and np.allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert (model.predict(X) == model.classes_[p.argmax(axis=1)]).all()
    assert (p.argmax(axis=1) == z.argmax(axis=1)).all()
    assert np.allclose(np.log(p), model.predict_log_proba(X))
    assert model.score(X, Y) == (model.predict(X) == Y).mean() > 0.95
    assert model.model_.standardizer is not None
    two = LimbeckClassifier(random_state=0).fit(X, Y == "red")
    assert two.decision_function(X).shape == (300,)
    assert ((two.decision_function(X) > 0) == two.predict(X)).all()
    assert np.allclose(two.decision_function(X), np.log(np.divide(*two.predict_proba(X).T[::-1])))


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(model):
    shas = {LimbeckClassifier(random_state=0, threads=n).fit(X, Y).model_.sha256 for n in (1, 3)}
    assert shas == {model.model_.sha256}
    assert LimbeckClassifier(random_state=1).fit(X, Y).model_.sha256 not in shas
    free = [LimbeckClassifier(epochs=2).fit(X, Y).model_.sha256 for _ in range(2)]
    assert free[0] != free[1]


def test_early_stopping_keeps_the_best_epoch():
    model = LimbeckClassifier(random_state=0, early_stopping=5, learning_rate=0.05).fit(X, Y)
    best = int(np.argmin(model.validation_loss_curve_)) + 1
    assert model.best_epoch_ == best and model.n_iter_ == best + 5
    assert len(model.validation_scores_) == model.n_iter_ and max(model.validation_scores_) <= 1
    watched = LimbeckClassifier(random_state=0, validation_fraction=0.2, epochs=7).fit(X, Y)
    assert watched.n_iter_ == watched.best_epoch_ == len(watched.validation_loss_curve_) == 7


@pytest.mark.parametrize("settings,exception,message", [
    (dict(epochs=0), ValueError, "epochs must be 1 to"),
    (dict(batch_size=-1), ValueError, "batch_size|-1"),
    (dict(learning_rate=-1), ValueError, "learning_rate must be > 0"),
    (dict(optimizer="lion"), ValueError, "lion"),
    (dict(schedule="zigzag"), ValueError, "zigzag"),
    (dict(activation="gelu"), ValueError, "gelu"),
    (dict(hidden_layer_sizes=(4, 0)), ValueError, "hidden_layer_sizes: found"),
    (dict(dropout=[0.1]), ValueError, "dropout must be 2 values"),
    (dict(validation_fraction=1.0), ValueError, "validation: found 1"),
    (dict(random_state=-1), ValueError, "random_state: found -1"),
    (dict(random_state="x"), ValueError, "random_state: found 'x'"),
    (dict(standardize="perhaps"), ValueError, "standardize"),
    (dict(threads=0), ValueError, "threads: found 0"),
    (dict(learning_rate=1e30), FloatingPointError, "diverged"),
])
def test_faulty_settings_are_named_at_fit(settings, exception, message):
    with pytest.raises(exception, match=message):
        LimbeckClassifier(**settings).fit(X, Y)


@pytest.mark.parametrize("y", [
    Y, Y == "red", (Y == "red").astype(int), (Y == "red") * 5 - 2, (Y == "red") * 1.0 + 0.0,
], ids=["text", "bool", "from 0", "others", "floats"])
def test_files_and_pickles_keep_classes_and_answers(y, tmp_path):
    model = LimbeckClassifier(random_state=0, epochs=5).fit(X, y)
    model.save(tmp_path / "m.safetensors")
    for again in [LimbeckClassifier.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(model))]:
        assert again.classes_.dtype.kind == np.asarray(y).dtype.kind or again.classes_.dtype == object
        assert (again.predict(X) == model.predict(X)).all()
        assert (again.predict_proba(X) == model.predict_proba(X)).all()
    with pytest.raises(OSError):
        LimbeckClassifier.load(tmp_path / "nowhere")
    for ask in ["save", "to_onnx", "predict"]:
        with pytest.raises(ValueError, match="not fitted"):
            getattr(LimbeckClassifier(), ask)(tmp_path / "none")


def test_onnx_gives_the_same_probabilities(model, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = LimbeckClassifier(random_state=0).fit(X, Y)
    path = tmp_path / "m.onnx"
    model.to_onnx(path)
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    metadata = {property.key: property.value for property in graph.metadata_props}
    assert json.loads(metadata["class_names"]) == ["blue", "green", "red"]
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in [1, 7, 300]:
        z = session.run(["logits"], {"inputs": X[:n].astype(np.float32)})[0].astype(np.float64)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        assert np.abs(p - model.predict_proba(X[:n])).max() < 1e-5


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np, limbeck
x = np.random.default_rng(0).normal(size=(4000, 50)); y = (x[:, 0] > 0).astype(int)
model = limbeck.{estimator}(hidden_layer_sizes=64, epochs=100000, batch_size=32, random_state=0{more})
at = []
def interrupt():
    time.sleep(1.5); at.append(time.monotonic()); os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    model.fit(x, y{fit})
except KeyboardInterrupt:
    took = time.monotonic() - at[0]
    assert took < 1, took
    assert model.interrupted_ and 0 < model.n_iter_ < 100000 and len(model.loss_curve_) == model.n_iter_
    assert model.score(x, y) > 0.9
    print("kept", model.n_iter_, "epochs", took)
"""


@pytest.mark.parametrize("estimator,more,fit", [
    ("LimbeckClassifier", "", ""),
    ("LimbeckClassifier", ", early_stopping=100000, threads=2", ""),
    ("DistilledClassifier", "", ", teacher_logits=np.stack([-x[:, 0], x[:, 0]], axis=1) * 5"),
])
def test_ctrl_c_ends_a_fit_within_a_second_and_keeps_it(estimator, more, fit):
    code = INTERRUPTED.format(estimator=estimator, more=more, fit=fit)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("kept"), done


def test_ctrl_c_of_the_low_level_functions_gives_the_model():
    code = """
        import _thread, threading, limbeck, numpy as np
        x = np.random.default_rng(0).normal(size=(4000, 50)); y = (x[:, 0] > 0).astype(int)
        threading.Timer(1, _thread.interrupt_main).start()
        try:
            limbeck.train(x, y, layers=[50, 2], epochs=1000000)
        except KeyboardInterrupt as interrupt:
            print((interrupt.model.predict(x) == y).mean() > 0.9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True,
                          timeout=120)
    assert done.stdout == "True\n", done


def test_the_gil_is_free_while_training():
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    begun = time.monotonic()
    LimbeckClassifier(256, epochs=150, batch_size=32, random_state=0).fit(X, Y)
    took = time.monotonic() - begun
    stop.set()
    thread.join()
    during = [b - a for a, b in zip(ticks, ticks[1:]) if a > begun]
    assert max(during) < max(0.5 * took, 0.2)


def test_without_scikit_learn_the_classifiers_work_too():
    code = """
        import sys
        sys.modules["sklearn"] = None  # as if it were not installed
        import pickle, numpy as np, limbeck
        x = np.random.default_rng(0).normal(size=(200, 2)); y = np.where(x[:, 0] > 0, "a", "b")
        model = limbeck.LimbeckClassifier(random_state=0)
        assert model.get_params()["random_state"] == 0 and repr(model) == "LimbeckClassifier(random_state=0)"
        assert model.set_params(epochs=30).epochs == 30
        try:
            model.set_params(epoch=3)
        except ValueError as e:
            assert "epochs" in str(e)
        try:
            model.predict(x)
        except ValueError as e:
            assert "not fitted" in str(e)
        assert model.fit(x, y).score(x, y) > 0.9
        student = limbeck.DistilledClassifier(model, hidden_layer_sizes=4, random_state=0)
        assert student.get_params()["teacher__epochs"] == 30
        assert student.fit(x).score(x, y) > 0.9
        assert (pickle.loads(pickle.dumps(student)).predict(x) == student.predict(x)).all()
        print("works")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True,
                          timeout=120)
    assert done.stdout == "works\n", done


def test_import_does_not_import_scikit_learn():
    code = "import limbeck, sys; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done


def student(teacher, **keywords):
    return DistilledClassifier(teacher, hidden_layer_sizes=8, random_state=0, **keywords)


def agrees(student, teacher, share=0.93):
    return (student.predict(X) == teacher.predict(X)).mean() > share


def test_teachers_of_our_own(model):
    unlabelled = student(model).fit(X)
    assert list(unlabelled.classes_) == ["blue", "green", "red"] and agrees(unlabelled, model)
    assert agrees(student(model).fit(X, Y), model)
    assert agrees(student(unlabelled).fit(X), model)
    assert agrees(student(None).fit(X, Y), model)
    fresh = LimbeckClassifier(64, random_state=0)
    taught = student(fresh).fit(X, Y)
    assert not hasattr(fresh, "model_") and taught.teacher_.n_features_in_ == 4
    with pytest.raises(ValueError, match="requires y.*the teacher is not fitted"):
        student(LimbeckClassifier()).fit(X)
    # A teacher of more classes than the labels have.
    some = Y != "red"
    assert list(student(model).fit(X[some], Y[some]).classes_) == ["blue", "green", "red"]
    with pytest.raises(ValueError, match="'violet'.*the teacher does not know"):
        student(model).fit(X, np.where(Y == "red", "violet", Y))
    low = student(model.model_).fit(X)
    assert list(low.classes_) == [0, 1, 2]


def test_teachers_of_scikit_learn():
    pytest.importorskip("sklearn")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    forest = RandomForestClassifier(50, random_state=0).fit(X, Y)
    assert agrees(student(forest).fit(X), forest, 0.85)  # its zeros are no -inf
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    assert agrees(student(pipe, hard_weight=0).fit(X, Y), pipe.fit(X, Y))
    assert agrees(student(pipe).fit(X), pipe)
    search = GridSearchCV(pipe, {"logisticregression__C": [1, 10]}).fit(X, Y)
    assert agrees(student(search).fit(X), search)
    for labels in (Y, Y == "red"):
        svm = make_pipeline(StandardScaler(), LinearSVC()).fit(X, labels)
        assert agrees(student(svm, temperature=1).fit(X), svm, 0.85)


def test_teachers_of_torch():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)).double().train()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[-9.0, 0, 0, 0], [0, 0, 0, 0], [9.0, 0, 0, 0]]))
        net[0].bias.zero_()
    made = student(net, temperature=1.0).fit(X)
    said = net.eval()(torch.tensor(X)).argmax(1).numpy()
    assert (made.predict(X) == said).mean() > 0.93
    assert student(net.train()).fit(X) and net.training  # left as it was
    frozen = torch.nn.Sequential(*net, torch.nn.BatchNorm1d(3, affine=False)).double().train()
    frozen[-1].eval()
    assert student(frozen).fit(X) and frozen.training and not frozen[-1].training
    with pytest.raises(ValueError, match="teacher: found probabilities.*expected logits"):
        student(torch.nn.Sequential(net, torch.nn.Softmax(1))).fit(X)
    assert agrees(student(lambda x: torch.tensor(model_logits(x))).fit(X), made, -1)


def model_logits(x):
    x = np.asarray(x)
    return np.stack([-4 * x[:, 0] - 2, np.zeros(len(x)), x[:, 1] - 5], axis=1)


def test_answers_in_place_of_a_teacher(model):
    logits = model_logits(X)
    by_logits = student(None).fit(X, teacher_logits=logits)
    assert (by_logits.predict(X) == logits.argmax(axis=1)).mean() > 0.93
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    by_probs = student(None).fit(X, teacher_probs=p)
    assert (by_probs.predict(X) == by_logits.predict(X)).mean() > 0.95
    assert (student(model_logits).fit(X).predict(X) == by_logits.predict(X)).all()
    named = student(None).fit(X, Y, teacher_logits=model.decision_function(X))
    assert list(named.classes_) == ["blue", "green", "red"] and agrees(named, model)
    for keywords, message in [
        (dict(teacher_logits=p), "teacher_logits: found probabilities.*pass them as teacher_probs"),
        (dict(teacher_probs=logits), "teacher_probs: found rows that are no probabilities"),
        (dict(teacher_logits=logits[1:]), r"teacher_logits: found shape \(299, 3\)"),
        (dict(teacher_logits=logits, teacher_probs=p), "found both"),
        (dict(teacher_logits=logits * np.nan), "teacher_logits contains NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            student(None).fit(X, **keywords)
    with pytest.raises(ValueError, match="teacher: found logits of 2 classes, expected 3"):
        student(None).fit(X, Y, teacher_logits=logits[:, :2])
    with pytest.raises(ValueError, match="hard_weight: found 0.5 without labels"):
        student(None, hard_weight=0.5).fit(X, teacher_logits=logits)
    with pytest.raises(ValueError, match="without labels"):
        student(None, early_stopping=True).fit(X, teacher_logits=logits)
    with pytest.raises(TypeError, match="teacher: found .*str"):
        student("teacher.pt").fit(X)
    with pytest.warns(UserWarning, match="agree with .* more than chance would"):
        student(None).fit(X, Y, teacher_logits=RNG.permutation(model.decision_function(X)))


# How wrappers elsewhere failed.


def test_classes_that_do_not_count_from_0():
    """dmlc/xgboost issue 10078: classes had to be 0 to C - 1 without gaps."""
    y = np.where(Y == "red", 24, 6)
    assert set(LimbeckClassifier(epochs=3).fit(X, y).predict(X)) <= {6, 24}


def test_predict_leaves_no_trace(model):
    """dmlc/xgboost issue 1101: a prediction of named columns broke the later ones of unnamed ones."""
    pd = pytest.importorskip("pandas")
    before = model.predict_proba(X)
    with pytest.warns(UserWarning, match="fitted without feature names"):
        model.predict(pd.DataFrame(X, columns=list("abcd")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (model.predict_proba(X) == before).all()


def test_no_warning_of_names_where_there_were_none(model):
    """lightgbm-org/LightGBM pull request 7232: predict warned of names that the user never gave."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X)
        model.predict(X.tolist())
    assert not hasattr(model, "feature_names_in_")


def test_searches_pickle_and_run_in_processes():
    """keras-team/keras issue 16143: RandomizedSearchCV could not pickle the wrapper's locks."""
    selection = pytest.importorskip("sklearn.model_selection")
    search = selection.RandomizedSearchCV(
        LimbeckClassifier(epochs=3, random_state=0), {"hidden_layer_sizes": [4, (8, 8)]}, n_iter=2,
        n_jobs=2, cv=3,
    ).fit(X, Y)
    assert pickle.loads(pickle.dumps(search)).predict(X).shape == (300,)


def test_torch_labels_in_a_grid_search():
    """skorch-dev/skorch pull request 1076: a grid search failed where y was a tensor of torch; 518:
    float64 features and int32 labels did not fit the net."""
    torch = pytest.importorskip("torch")
    selection = pytest.importorskip("sklearn.model_selection")
    y = torch.tensor(np.unique(Y, return_inverse=True)[1], dtype=torch.int32)
    scores = selection.cross_val_score(LimbeckClassifier(epochs=3), torch.tensor(X), y, cv=3)
    assert np.isfinite(scores).all()


def test_it_is_a_classifier(model):
    """scikit-learn/scikit-learn issue 31555: is_classifier was False for wrappers, and so folds were
    not drawn by class."""
    base = pytest.importorskip("sklearn.base")
    assert base.is_classifier(model) and base.is_classifier(DistilledClassifier())
    assert base.is_classifier(base.clone(DistilledClassifier(model)))


def test_a_student_in_cross_validation_trains_its_teacher_on_each_fold(model):
    selection = pytest.importorskip("sklearn.model_selection")
    scores = selection.cross_val_score(student(model), X, Y, cv=3)
    assert scores.min() > 0.85
    logits = model.decision_function(X)
    scores = selection.cross_val_score(student(None), X, Y, cv=3, params={"teacher_logits": logits})
    assert scores.min() > 0.85  # rows of the fold


def test_features_that_float32_does_not_tell_apart_are_warned_of():
    x = X.copy()
    x[:, 2] = 1.7e9 + np.arange(300)
    with pytest.warns(UserWarning, match="X: column 2 differs by less than float32"):
        LimbeckClassifier(epochs=1).fit(x, Y)


def test_documented_examples():
    import doctest

    from limbeck import _estimators, _limbeck

    assert doctest.testmod(_estimators).failed == 0
    finder = doctest.DocTestFinder()
    tests = [test for function in (limbeck.train, limbeck.distill)
             for test in finder.find(function, globs={})]
    tests += finder.find(limbeck.Model, "Model", globs={})
    runner = doctest.DocTestRunner()
    assert sum(len(test.examples) for test in tests) == 12
    for test in tests:
        assert runner.run(test).failed == 0
    assert _limbeck.__version__ == limbeck.__version__


@pytest.mark.parametrize("names", [["2", "10", "1"], ["True", "False"], ["1.5", "2.5"], ["01", "1"], [3, 1, 2]])
def test_classes_come_back_as_what_they_were(names, tmp_path):
    y = np.array(names)[np.arange(60) % len(names)]
    x = np.random.default_rng(0).normal(size=(60, 3)) + 4 * (np.arange(60) % len(names))[:, None]
    fitted = LimbeckClassifier(8, epochs=5, random_state=0).fit(x, y)
    fitted.save(tmp_path / "model.safetensors")
    for back in (LimbeckClassifier.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(fitted))):
        assert back.classes_.tolist() == fitted.classes_.tolist()
        assert back.predict(x).tolist() == fitted.predict(x).tolist()
        assert back.model_.class_texts == (isinstance(names[0], str))


def test_a_teacher_with_classes_in_the_order_of_texts_is_seen():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 12, 240)
    x = rng.normal(size=(12, 8))[y] * 4 + rng.normal(size=(240, 8))
    logits = 9.0 * (np.unique(y.astype(str))[None, :] == y.astype(str)[:, None])
    with pytest.warns(UserWarning, match="columns are taken in the order"):
        DistilledClassifier(epochs=2, random_state=0).fit(x, y, teacher_logits=logits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DistilledClassifier(epochs=2, random_state=0).fit(x, y.astype(str), teacher_logits=logits)
