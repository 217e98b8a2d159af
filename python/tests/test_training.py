"""Models, training and distillation: against NumPy, the program's promises, and each other."""

import threading
import time
import warnings

import numpy as np
import pytest

import limbeck

RNG = np.random.default_rng(1503)


def blobs(n):
    """Images [n, 6, 7] of three classes, each a bright corner in noise."""
    labels = RNG.integers(0, 3, n)
    images = RNG.integers(0, 120, (n, 6, 7), dtype=np.uint8)
    for image, label in zip(images, labels):
        image[(label % 2) * 3 :, (label // 2) * 4 :][:3, :3] += 100
    return images, labels


IMAGES, LABELS = blobs(300)
TEST_IMAGES, TEST_LABELS = blobs(200)
SETTINGS = dict(layers=[42, 30, 3], epochs=12, batch_size=32, learning_rate=0.05)


@pytest.fixture(scope="module")
def teacher():
    return limbeck.train(IMAGES, LABELS, **SETTINGS)


def forward(model, images):
    """The net in float64, by its definition."""
    scale, shift = model.input_scale
    y = images.reshape(len(images), -1) * float(scale) + float(shift)
    layers = model.parameters()
    for i, (weight, bias) in enumerate(layers):
        y = y @ weight.T.astype(np.float64) + bias
        if i + 1 < len(layers):
            y = np.maximum(y, 0)
    return y


def test_a_trained_net_has_learnt_and_is_what_it_says(teacher):
    assert teacher.layers == [42, 30, 3]
    assert [w.shape for w, _ in teacher.parameters()] == [(30, 42), (3, 30)]
    logits, exact = teacher.forward(TEST_IMAGES), forward(teacher, TEST_IMAGES)
    # K·ε·|A||B| of the two layers, K = 42 and 30, with the largest row sum of |W| for the second.
    sizes = [np.abs(w).sum(axis=1).max() + np.abs(b).max() for w, b in teacher.parameters()]
    assert np.abs(logits - exact).max() < 2.0**-24 * (44 + 32) * sizes[0] * sizes[1]
    classes = teacher.predict(TEST_IMAGES)
    assert classes.dtype == np.int64 and (classes == logits.argmax(axis=1)).all()
    assert (classes != TEST_LABELS).mean() < 0.05
    flat = teacher.forward(TEST_IMAGES.reshape(200, 42))
    assert (flat == logits).all()


def test_weights_are_a_function_of_data_and_settings(teacher):
    again = [limbeck.train(IMAGES, LABELS, threads=n, **SETTINGS) for n in (1, 3)]
    assert {model.sha256 for model in again} == {teacher.sha256}
    for change in [dict(seed=1), dict(jitter=1), dict(dropout=[0.1, 0.5]), dict(max_norm=0.5),
                   dict(optimizer="nesterov"), dict(schedule="linear"), dict(average=0.9),
                   dict(optimizer="adamw"), dict(activation="tanh"), dict(precision="bf16")]:
        assert limbeck.train(IMAGES, LABELS, **SETTINGS, **change).sha256 != teacher.sha256


def test_names_of_yesterday_give_the_same_bits():
    old = limbeck.train(IMAGES, LABELS, **SETTINGS, schedule="hinton2012", shards=2)
    new = limbeck.train(IMAGES, LABELS, **SETTINGS, schedule="exponential",
                        optimizer="hinton2012", microbatches=2)
    assert old.sha256 == new.sha256


def test_models_are_saved_and_loaded(teacher, tmp_path):
    path = tmp_path / "teacher.safetensors"
    assert teacher.save(path) == teacher.sha256
    loaded = limbeck.Model.load(str(path))
    assert loaded.sha256 == teacher.sha256
    assert (loaded.forward(TEST_IMAGES) == teacher.forward(TEST_IMAGES)).all()
    with pytest.raises(OSError, match="nowhere"):
        limbeck.Model.load(tmp_path / "nowhere")
    with pytest.raises(OSError, match="no/such"):
        teacher.save(tmp_path / "no/such/folder")
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="teacher.safetensors"):
        limbeck.Model.load(path)


def test_students_learn_from_logits_models_and_ensembles(teacher):
    settings = dict(SETTINGS, layers=[42, 8, 3], learning_rate=0.02, temperature=4.0)
    unlabelled = dict(settings, hard_weight=0)
    student = limbeck.distill(IMAGES, teacher, **unlabelled)
    assert (student.predict(TEST_IMAGES) == teacher.predict(TEST_IMAGES)).mean() > 0.9
    by_logits = limbeck.distill(IMAGES, teacher.forward(IMAGES), **unlabelled)
    assert by_logits.sha256 == student.sha256
    other = limbeck.train(IMAGES, LABELS, seed=1, **SETTINGS)
    ensemble = limbeck.distill(IMAGES, [teacher, other], **unlabelled)
    labelled = limbeck.distill(IMAGES, teacher, LABELS, **settings)
    assert len({m.sha256 for m in (student, ensemble, labelled)}) == 3
    # A student whose loss is that of labels alone is a net trained on labels.
    hard = dict(soft_weight=0, hard_weight=1)
    assert limbeck.distill(IMAGES, teacher, LABELS, **SETTINGS, **hard).sha256 == teacher.sha256


def test_epochs_are_told_and_exceptions_end_the_training():
    epochs = []
    limbeck.train(IMAGES, LABELS, on_epoch=epochs.append, **SETTINGS)
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 13))
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert epochs[-1]["train_errors"] < epochs[0]["train_errors"]

    def stop(epoch):
        if epoch["epoch"] == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough") as stopped:
        limbeck.train(IMAGES, LABELS, on_epoch=stop, **SETTINGS)
    # What was trained so far goes with it.
    assert stopped.value.model.layers == limbeck.train(IMAGES, LABELS, **SETTINGS).layers


def test_the_first_exception_is_told():
    # Steps of more than 50 ms: signals are looked for after each.
    def slow(epoch):
        time.sleep(0.1)
        raise TimeoutError("first")

    with pytest.raises(TimeoutError, match="first"):
        limbeck.train(IMAGES, LABELS, on_epoch=slow, **SETTINGS)


def test_other_threads_run_meanwhile():
    counted, done = 0, threading.Event()

    def work():
        limbeck.train(IMAGES, LABELS, **dict(SETTINGS, epochs=100))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        counted += 1
    thread.join()
    assert counted > 1


FAULTS = [
    (dict(learning_rat=0.1), TypeError, "unknown keyword `learning_rat`.*learning_rate"),
    (dict(temperature=2.0), TypeError, "belong to distill"),
    (dict(epochs=0), ValueError, "epochs must be 1 to 1000000; found 0"),
    (dict(epochs="many"), ValueError, "many"),
    (dict(epochs=True), TypeError, "epochs: found .*bool"),
    (dict(dropout=[0.1]), ValueError, "dropout must be 2 values"),
    (dict(layers=[41, 3]), ValueError, "starting with 42"),
    (dict(layers=[42]), ValueError, "at least 2 sizes"),
    (dict(layers=[]), ValueError, "at least 2 sizes"),
    (dict(layers=[42, 2]), ValueError, "labels: found 2 at index [0-9]+, expected 0 to 1"),
    (dict(schedule="random"), ValueError, "random"),
    (dict(jitter=6), ValueError, "jitter: found 6 pixels for images of 6 x 7"),
    (dict(jitter=14), ValueError, "0 to 13"),
    (dict(threads=0), ValueError, "threads: found 0"),
    (dict(learning_rate=1e30), FloatingPointError, "diverged"),
]


@pytest.mark.parametrize("change,exception,message", FAULTS)
def test_faulty_settings_are_named(change, exception, message):
    with pytest.raises(exception, match=message):
        limbeck.train(IMAGES, LABELS, **dict(SETTINGS, **change))


def test_faulty_arrays_are_named(teacher):
    for images in [IMAGES.astype(np.float32), IMAGES[0, 0], IMAGES[:0], None]:
        with pytest.raises((TypeError, ValueError), match="images: found"):
            limbeck.train(images, LABELS, **SETTINGS)
    with pytest.raises(ValueError, match="labels: found 299, expected 300"):
        limbeck.train(IMAGES, LABELS[1:], **SETTINGS)
    with pytest.raises(ValueError, match="found 35 pixels, expected 42"):
        teacher.forward(TEST_IMAGES[:, :5])
    logits = teacher.forward(IMAGES)
    with pytest.raises(ValueError, match=r"teacher: found shape \[299, 3\], expected \[300, 3\]"):
        limbeck.distill(IMAGES, logits[1:], LABELS, **SETTINGS)
    with pytest.raises(TypeError, match="teacher: found .*list"):
        limbeck.distill(IMAGES, [], LABELS, **SETTINGS)
    with pytest.raises(ValueError, match="set it to 0"):
        limbeck.distill(IMAGES, logits, **SETTINGS)
    with pytest.raises(ValueError, match="expected 4 classes"):
        limbeck.distill(IMAGES, teacher, LABELS, **dict(SETTINGS, layers=[42, 4]))


def test_what_is_most_likely_not_meant_is_warned_of():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    y = (x[:, 0] > 0).astype(int)
    keywords = dict(layers=[2, 4, 2], epochs=1, batch_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limbeck.train(x, y, **keywords)
    with pytest.warns(UserWarning, match="beta2 = 0.5 plays no part: optimizer = \"sgd\""):
        limbeck.train(x, y, beta2=0.5, **keywords)
    far = x.copy()
    far[7, 1] = 1e12
    with pytest.warns(UserWarning, match=r'"1" \(so far off: 1, up to 1e12\)'):
        limbeck.train(far, y, **keywords)
    teacher = 5.0 * (y[:, None] == [0, 1])
    with pytest.warns(UserWarning, match="the teacher hardly takes part"):
        limbeck.distill(x, teacher, y, temperature=1e-30, **keywords)
    with pytest.warns(UserWarning, match="agree with 0 of 60 labels, and with 60 if"):
        limbeck.distill(x, teacher[:, ::-1], y, **keywords)
    with pytest.raises(ValueError, match="teacher: found percentages: each row sums to 100"):
        limbeck.distill(x, 100.0 * (y[:, None] == [0, 1]), y, **keywords)
    with pytest.warns(UserWarning, match="logits reach 1e30"):
        limbeck.distill(x, np.where(teacher > 0, 1e30, 0.5), y, **keywords)
    with pytest.raises(ValueError, match="found \"two\", expected a whole number"):
        limbeck.train(x, y, **(keywords | dict(epochs="two")))
