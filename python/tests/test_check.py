"""The check, on mistakes made here in NumPy as a user would make them."""

import numpy as np
import pytest

import limbeck

RNG = np.random.default_rng(7)
N, CLASSES, T = 8, 6, 4.0
Z, V = RNG.normal(0, 3, (2, N, CLASSES))
Y = RNG.integers(0, CLASSES, N)


def softmax(z, t=1.0):
    e = np.exp((z - z.max(axis=1, keepdims=True)) / t)
    return e / e.sum(axis=1, keepdims=True)


P, Q = softmax(V, T), softmax(Z, T)
KL = (P * np.log(P / Q)).sum(axis=1)


def test_the_right_formula_agrees():
    d = T * (Q - P) / N
    for loss in (T * T * KL.mean(), -(T * T) * (P * np.log(Q)).sum(axis=1).mean()):
        answer = limbeck.check(Z, V, temperature=T, loss=loss, d_logits=d)
        assert answer["verdict"] == "agrees" and answer["variant"] is None, answer
        assert 0 <= answer["max_relative_error"] < 1e-12
    onehot = np.eye(CLASSES)[Y]
    d = 0.7 * d + 0.3 * (softmax(Z) - onehot) / N
    answer = limbeck.check(
        Z, V, Y, temperature=T, soft_weight=0.7, hard_weight=0.3, d_logits=d
    )
    assert answer["verdict"] == "agrees", answer


MISTAKES = {
    "t_squared_missing": dict(loss=KL.mean(), d_logits=(Q - P) / T / N),
    "t_instead_of_t_squared": dict(loss=T * KL.mean(), d_logits=(Q - P) / N),
    "kl_mean": dict(loss=T * T * KL.mean() / CLASSES, d_logits=T * (Q - P) / N / CLASSES),
    "kl_sum": dict(loss=T * T * KL.sum(), d_logits=T * (Q - P)),
    "teacher_not_tempered": dict(d_logits=T * (Q - softmax(V)) / N),
    "hard_instead_of_soft": dict(d_logits=T * (Q - np.eye(CLASSES)[V.argmax(axis=1)]) / N),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake):
    for dtype in (np.float64, np.float32):
        given = {name: dtype(value) for name, value in MISTAKES[mistake].items()}
        answer = limbeck.check(Z.astype(dtype), V.astype(dtype), temperature=T, **given)
        assert (answer["verdict"], answer["variant"]) == ("variant", mistake), answer
        assert answer["variant"] in answer["fits"] and mistake in answer["message"]


def test_an_unknown_mistake_is_none_of_them():
    answer = limbeck.check(Z, V, temperature=T, d_logits=1.01 * T * (Q - P) / N)
    assert answer["verdict"] == "unknown" and answer["variant"] is None
    # The precision is what the arrays say: half a unit of float32 is an error in float64.
    slightly = T * (Q - P).astype(np.float32) / N
    assert limbeck.check(Z, V, temperature=T, d_logits=slightly)["verdict"] == "agrees"
    widened = slightly.astype(np.float64)
    assert limbeck.check(Z, V, temperature=T, d_logits=widened)["verdict"] == "unknown"


def test_the_librarys_own_losses_agree():
    z, v = Z.astype(np.float32), V.astype(np.float32)
    loss, d = limbeck.distillation(z, v, Y, temperature=T, soft_weight=0.7, hard_weight=0.3)
    given = dict(loss=np.float32(loss), d_logits=d)
    weights = dict(soft_weight=0.7, hard_weight=0.3)
    assert limbeck.check(z, v, Y, temperature=T, **weights, **given)["verdict"] == "agrees"
    loss, d = limbeck.logit_matching(z, v)
    answer = limbeck.check(z, v, temperature=np.inf, loss=np.float32(loss), d_logits=d)
    assert answer["verdict"] == "agrees", answer


FAULTS = [
    (dict(loss=1.0), ValueError, "temperature"),
    (dict(temperature=T), ValueError, "loss and d_logits"),
    (dict(temperature=0.0, loss=1.0), ValueError, "temperature: found 0"),
    (dict(temperature=T, loss="high"), TypeError, "loss: found .*str"),
    (dict(temperature=T, loss=1.0, reduction="batchmean"), ValueError, "'mean' or 'sum'"),
    (dict(temperature=T, d_logits=Z[1:]), ValueError, "d_logits: found shape"),
    (dict(temperature=T, d_logits=Z.astype(int)), TypeError, "d_logits: found int64"),
    (dict(temperature=T, loss=1.0, labels=Y - CLASSES, hard_weight=1), ValueError, "labels"),
    (dict(temperature=T, loss=1.0, hard_weight=1.0), ValueError, "labels: found none"),
]


@pytest.mark.parametrize("given,exception,message", FAULTS)
def test_faults_are_named(given, exception, message):
    with pytest.raises(exception, match=message):
        limbeck.check(Z, V, **given)
