"""Softmax and losses against closed forms in float64 and, where it is installed, PyTorch."""

import numpy as np
import pytest

import limbeck

RNG = np.random.default_rng(15)
N, CLASSES = 37, 11
Z = RNG.normal(0, 4, (N, CLASSES)).astype(np.float32)
V = RNG.normal(0, 4, (N, CLASSES)).astype(np.float32)
Y = RNG.integers(0, CLASSES, N)
EPS = 2.0**-24


def log_softmax(z, t):
    z = z.astype(np.float64) / t
    z -= z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def tolerance(t):
    # Relative to a sum of terms of at most 1: an exponent is off by 4 roundings of |z|/T, a power
    # and its sum by one for each class, and a dozen for the rest.
    largest = max(np.abs(Z).max(), np.abs(V).max())
    return EPS * (CLASSES + 12 + 8 * largest / t)


@pytest.mark.parametrize("t", [0.5, 1.0, 4.0, 20.0])
def test_softmax(t):
    expected = log_softmax(Z, t)
    assert np.abs(limbeck.softmax(Z, t) - np.exp(expected)).max() < tolerance(t)
    error = np.abs(limbeck.log_softmax(Z, temperature=t) - expected)
    assert (error < tolerance(t) * np.maximum(1, np.abs(expected))).all()
    assert limbeck.softmax(Z, t).dtype == np.float32


def closed_form(t, soft, hard):
    log_q, log_p, log_h = log_softmax(Z, t), log_softmax(V, t), log_softmax(Z, 1)
    onehot = np.eye(CLASSES)[Y]
    losses = -soft * t * t * (np.exp(log_p) * log_q).sum(1) - hard * (onehot * log_h).sum(1)
    d = soft * t * (np.exp(log_q) - np.exp(log_p)) + hard * (np.exp(log_h) - onehot)
    return losses.mean(), d / N


@pytest.mark.parametrize("t", [1.0, 2.0, 20.0])
@pytest.mark.parametrize("soft,hard", [(1.0, 0.0), (0.7, 0.3), (0.0, 1.0)])
def test_distillation(t, soft, hard):
    loss, d = limbeck.distillation(Z, V, Y, temperature=t, soft_weight=soft, hard_weight=hard)
    expected, d_expected = closed_form(t, soft, hard)
    # The exponents, whose errors the losses are made of, are below 8 · 4 · 2.
    assert abs(loss - expected) < tolerance(t) * (1 + 64 / t) * (soft * t * t + hard * 64)
    bound = 2 * (soft * t * tolerance(t) + hard * tolerance(1)) / N
    assert np.abs(d - d_expected).max() < bound
    # The bound tells a factor T² in the gradient from T, and a loss without T².
    if t > 1 and soft > 0:
        assert np.abs(d * t - d_expected).max() > 100 * bound


def test_cross_entropy_and_logit_matching():
    loss, d = limbeck.cross_entropy(Z, Y)
    same, d_same = limbeck.distillation(Z, None, Y, soft_weight=0, hard_weight=1)
    assert loss == same and (d == d_same).all()
    loss, d = limbeck.logit_matching(Z, V)
    # What they should be, test_check.py verifies.
    same, d_same = limbeck.distillation(Z, V, temperature=np.inf, hard_weight=0)
    assert loss == same and (d == d_same).all()


def test_a_term_of_weight_0_is_left_out_and_a_class_is_excluded_by_a_low_logit():
    expected = limbeck.cross_entropy(Z, Y)
    loss, d = limbeck.distillation(Z, V * np.float32("nan"), Y, soft_weight=0, hard_weight=1)
    assert loss == expected[0] and (d == expected[1]).all()
    with_and_without = []
    for columns, low in [(11, -1e4), (10, None)]:
        z, v = Z[:, :columns].copy(), V[:, :columns].copy()
        if low is not None:
            z[:, 10] = v[:, 10] = low
        loss, d = limbeck.distillation(z, v, temperature=4, hard_weight=0)
        with_and_without.append((loss, d[:, :10]))
    (loss, d), (expected, d_expected) = with_and_without
    assert abs(loss - expected) < 1e-5 * expected and np.abs(d - d_expected).max() < 1e-7


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    t, soft, hard = 4.0, 0.9, 0.1
    z = torch.tensor(Z.astype(np.float64), requires_grad=True)
    p = torch.softmax(torch.tensor(V.astype(np.float64)) / t, 1)
    log_q = torch.log_softmax(z / t, 1)
    kl = torch.nn.functional.kl_div(log_q, p, reduction="batchmean")
    entropy = -(p * p.log()).sum(1).mean()
    ce = torch.nn.functional.cross_entropy(z, torch.tensor(Y))
    total = soft * t * t * (kl + entropy) + hard * ce
    total.backward()
    loss, d = limbeck.distillation(Z, V, Y, temperature=t, soft_weight=soft, hard_weight=hard)
    assert abs(loss - total.item()) < tolerance(t) * (1 + 64 / t) * (soft * t * t + hard * 64)
    bound = 2 * (soft * t * tolerance(t) + hard * tolerance(1)) / N
    assert np.abs(d - z.grad.numpy()).max() < bound


def test_strides_and_label_types_do_not_matter():
    expected = limbeck.distillation(Z, V, Y)
    for z, y in [(np.asfortranarray(Z), Y.astype(np.uint8)), (Z[::-1][::-1], Y.astype(np.int32))]:
        loss, d = limbeck.distillation(z, V, y)
        assert loss == expected[0] and (d == expected[1]).all()


ONE_EXCLUDED = V.copy()
ONE_EXCLUDED[2, 3] = -np.inf
FAULTS = [
    (lambda: limbeck.softmax([[1.0]]), TypeError, "logits: found .*list.*, expected a NumPy array"),
    (lambda: limbeck.softmax(Z.astype(np.float64)), TypeError, "found float64 of shape"),
    (lambda: limbeck.softmax(Z[0]), ValueError, r"of shape \[11\], expected float32"),
    (lambda: limbeck.softmax(Z[:0]), ValueError, r"\[0, 11\]"),
    (lambda: limbeck.softmax(Z, 0.0), ValueError, "temperature: found 0"),
    (lambda: limbeck.softmax(Z, float("nan")), ValueError, "temperature: found NaN"),
    (lambda: limbeck.softmax(Z, 1e-60), ValueError, "in float32"),
    (lambda: limbeck.softmax(Z, 1e-39), ValueError, "temperature: found 1e-39"),
    (lambda: limbeck.distillation(Z, V, Y, temperature=1e-39), ValueError, "a number above 0"),
    (lambda: limbeck.distillation(Z, V - np.inf, Y), ValueError, "found -inf at row 0.*such as -1e4"),
    (lambda: limbeck.distillation(Z, ONE_EXCLUDED, Y), ValueError, "found -inf at row 2, column 3"),
    (lambda: limbeck.distillation(Z), ValueError, "soft_weight is 1 without teacher_logits"),
    (lambda: limbeck.distillation(Z, V), ValueError, "hard_weight is 0.05 without labels"),
    (lambda: limbeck.distillation(Z, V, Y, soft_weight=-1), ValueError, "soft_weight: found -1"),
    (lambda: limbeck.distillation(Z, V[:3], Y), ValueError, r"found shape \[3, 11\]"),
    (lambda: limbeck.cross_entropy(Z, Y[1:]), ValueError, "labels: found 36, expected 37"),
    (lambda: limbeck.cross_entropy(Z, Y + 20), ValueError, "at index 0, expected 0 to 10"),
    (lambda: limbeck.cross_entropy(Z, Y - 11), ValueError, "at index 0"),
    (lambda: limbeck.cross_entropy(Z, Y * 1.0), TypeError, "labels: found float64"),
    (lambda: limbeck.cross_entropy(Z, Y[:, None]), ValueError, r"\[37, 1\]"),
]


@pytest.mark.parametrize("call,exception,message", FAULTS)
def test_faults_are_named(call, exception, message):
    with pytest.raises(exception, match=message):
        call()
