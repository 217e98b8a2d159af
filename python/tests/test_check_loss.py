"""check_loss, on losses as people write them: right ones in several forms, and mistakes."""

import os
import sys
import warnings

import numpy as np
import pytest

import limbeck
from limbeck.testing import assert_distillation_loss

T, SOFT, HARD = 4.0, 0.7, 0.3
CONTRACT = dict(temperature=T, soft_weight=SOFT, hard_weight=HARD)


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def soft(z, v, factor=T * T, t=T):
    p, q = log_softmax(v / t), log_softmax(z / t)
    return factor * (np.exp(p) * (p - q)).sum(axis=-1)


def hard(z, y):
    return -np.take_along_axis(log_softmax(z), y[..., None], axis=-1)[..., 0]


def right(z, v, y):
    return SOFT * soft(z, v).mean() + HARD * hard(z, y).mean()


def gradient(z, v, y):
    p, q = np.exp(log_softmax(v / T)), np.exp(log_softmax(z / T))
    onehot = np.eye(z.shape[1])[y]
    return (SOFT * T * (q - p) + HARD * (np.exp(log_softmax(z)) - onehot)) / len(z)


def test_a_right_loss_of_numpy_is_ok():
    report = limbeck.check_loss(right, **CONTRACT)
    assert report.ok and report.mistakes == (), report.details()
    assert str(report).startswith("agrees") and report.teacher_gradient is None
    assert {case.verdict for case in report.cases} == {"agrees"}
    # The gradient may be the function's own, and is then verified at f64 and on every input.
    assert limbeck.check_loss(lambda *x: (right(*x), gradient(*x)), **CONTRACT).ok


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_results_of_numpy_in_half_precision(dtype):
    half = np.float16 if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16

    def rounded(z, v, y):
        return half(right(z, v, y)), gradient(z, v, y).astype(half)

    report = limbeck.check_loss(rounded, **CONTRACT)
    assert report.ok, report.details()
    twice = limbeck.check_loss(lambda *x: tuple(2 * part for part in rounded(*x)), **CONTRACT)
    assert not twice.ok and "raises" not in twice.mistakes, twice.details()


def test_bfloat16_is_rounded_to_the_nearest():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    from limbeck._probes import representable

    x = np.random.default_rng(0).normal(size=10_000) * 1e3
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0, -65504.0])
    for values in (x, ties):
        # Through f32, as torch.tensor(x, dtype=torch.float32).bfloat16() rounds.
        expected = values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)
        assert np.array_equal(representable(values, "bfloat16"), expected)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 4.0, 20.0, 1000.0])
def test_temperatures(temperature):
    def loss(z, v, y):
        return soft(z, v, temperature**2, temperature).mean()

    report = limbeck.check_loss(loss, temperature=temperature)
    assert report.ok, report.details()


def test_divergences():
    def mixed(z, v, y):
        p, q = np.exp(log_softmax(v / T)), np.exp(log_softmax(z / T))
        m = 0.3 * p + 0.7 * q
        each = 0.3 * (p * np.log(p / m)).sum(-1) + 0.7 * (q * np.log(q / m)).sum(-1)
        return T * T * each.mean()

    # The probabilities' ratio is 0/0 where both underflow; the mixture is right elsewhere.
    report = limbeck.check_loss(mixed, temperature=T, divergence="js", beta=0.3)
    assert "on extreme logits" in str(report) and report.cases[0].verdict == "agrees"
    assert not report.ok and report.cases[6].verdict == "not_finite", report.details()
    assert not limbeck.check_loss(mixed, temperature=T, divergence="js").ok
    reverse = lambda z, v, y: soft(v, z).mean()
    assert limbeck.check_loss(reverse, temperature=T, divergence="reverse").ok
    assert not limbeck.check_loss(reverse, temperature=T).ok
    matching = lambda z, v, y: 0.5 * ((z - v - (z - v).mean(-1, keepdims=True)) ** 2).mean()
    assert limbeck.check_loss(matching, temperature=np.inf).ok


def test_two_mistakes_at_once_are_both_named():
    report = limbeck.check_loss(lambda z, v, y: soft(z, v, 1.0).mean() / z.shape[1], temperature=T)
    assert set(report.mistakes) == {"t_squared_missing", "kl_mean"}, report.details()


def test_every_mistake_has_its_correction():
    known = {mistake["id"]: mistake for mistake in limbeck.mistakes()}
    assert all(
        mistake["says"] and mistake["formula"] and mistake["fix"] for mistake in known.values()
    )
    report = limbeck.check_loss(WRONG["kl_mean"], **CONTRACT)
    assert known["kl_mean"]["fix"] in str(report)


def test_reductions_shapes_and_masks():
    def total(z, v, y):
        return SOFT * soft(z, v).sum() + HARD * hard(z, y).sum()

    def per_token(z, v, y, mask):
        each = SOFT * soft(z, v) + HARD * hard(z, y)
        return (each * mask).sum() / mask.sum()

    def ignoring(z, v, y):
        return per_token(z, v, np.maximum(y, 0), y != -100)

    ok = lambda fn, **more: limbeck.check_loss(fn, **CONTRACT, **more).ok
    assert ok(total, reduction="sum") and not ok(right, reduction="sum") and not ok(total)
    assert ok(right, length=5) and ok(right, classes=3)
    assert ok(per_token, mask=True) and ok(per_token, mask=True, length=5)
    assert ok(ignoring, ignore_index=-100) and ok(ignoring, ignore_index=-100, length=5)

    def padding_in_the_divisor(z, v, y, mask):
        return ((SOFT * soft(z, v) + HARD * hard(z, y)) * mask).mean()

    assert not ok(padding_in_the_divisor, mask=True)

    def mean_of_means(z, v, y, mask):
        each = (SOFT * soft(z, v) + HARD * hard(z, y)) * mask
        return (each.sum(axis=1) / mask.sum(axis=1)).mean()

    for length in (2, 3, 5, 8):
        report = limbeck.check_loss(mean_of_means, mask=True, length=length, **CONTRACT)
        assert report.mistakes == ("mean_of_means",), report
    report = limbeck.check_loss(lambda z, v, y, mask: right(z, v, y), mask=True, **CONTRACT)
    assert not report.ok and "padding_counted" in report.mistakes, report


def slipped(z, v, y):
    return right(z, v, y), 1.01 * gradient(z, v, y)


WRONG = {
    "t_squared_missing": lambda z, v, y: SOFT * soft(z, v, 1.0).mean() + HARD * hard(z, y).mean(),
    "t_instead_of_t_squared": lambda z, v, y: (
        SOFT * soft(z, v, T).mean() + HARD * hard(z, y).mean()
    ),
    "kl_mean": lambda z, v, y: SOFT * soft(z, v).mean() / z.shape[1] + HARD * hard(z, y).mean(),
    "reverse_kl": lambda z, v, y: SOFT * soft(v, z).mean() + HARD * hard(z, y).mean(),
    "weights_swapped": lambda z, v, y: HARD * soft(z, v).mean() + SOFT * hard(z, y).mean(),
    "constant": lambda z, v, y: 1.0,
    "not_reduced": lambda z, v, y: SOFT * soft(z, v) + HARD * hard(z, y),
    "not_deterministic": lambda z, v, y: right(z, v, y) + np.random.default_rng().random(),
    "raises": lambda z, v, y: z @ v,
    "not_a_number": lambda z, v, y: "low",
    "wrong_gradient_shape": lambda z, v, y: (right(z, v, y), gradient(z, v, y)[0]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_named(mistake, monkeypatch):
    for framework in ("torch", "jax"):  # tried first where another test has imported it
        monkeypatch.delitem(sys.modules, framework, raising=False)
    report = limbeck.check_loss(WRONG[mistake], **CONTRACT)
    assert not report.ok and report.mistakes[:1] == (mistake,), report.details()
    assert str(report).startswith(f"{mistake}: ")


NEVER = {
    "zero": lambda z, v, y: 0.0 * right(z, v, y),
    "negated": lambda z, v, y: -right(z, v, y),
    "doubled": lambda z, v, y: 2 * right(z, v, y),
    "a thousandth more": lambda z, v, y: 1.001 * right(z, v, y),
    "NaN": lambda z, v, y: np.nan * right(z, v, y),
    "infinite": lambda z, v, y: right(z, v, y) + np.inf,
    "None": lambda z, v, y: None,
    "the gradient alone is wrong": slipped,
    "the gradient is zero": lambda z, v, y: (right(z, v, y), np.zeros_like(z)),
    "the gradient is NaN": lambda z, v, y: (right(z, v, y), np.full_like(z, np.nan)),
    "no teacher": lambda z, v, y: hard(z, y).mean(),
    "no labels": lambda z, v, y: soft(z, v).mean(),
    "wrong for two classes": lambda z, v, y: right(z, v, y) * (1 + (z.shape[1] == 2)),
    "wrong for one example": lambda z, v, y: right(z, v, y) * (1 + (len(z) == 1)),
    "wrong where the teacher agrees": lambda z, v, y: right(z, v, y) + np.array_equal(z, v),
    "wrong where logits are large": lambda z, v, y: right(z.clip(-20, 20), v, y),
    "no maximum subtracted": lambda z, v, y: (
        -(
            SOFT
            * T
            * T
            * (
                np.exp(v / T)
                / np.exp(v / T).sum(-1, keepdims=True)
                * np.log(np.exp(z / T) / np.exp(z / T).sum(-1, keepdims=True))
            ).sum(-1)
            + HARD * np.log(np.exp(z) / np.exp(z).sum(-1, keepdims=True))[np.arange(len(y)), y]
        ).mean()
    ),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_wrong_loss_is_never_ok(name):
    report = limbeck.check_loss(NEVER[name], **CONTRACT)
    assert not report.ok and len(str(report)) > 20, report


def softened(change, t):
    """Loss and gradient against the teacher's probabilities as `change` leaves them."""

    def loss(z, v, y):
        p, log_q = change(np.exp(log_softmax(v / t))), log_softmax(z / t)
        p = p / p.sum(axis=-1, keepdims=True)
        return -t * t * (p * log_q).sum(axis=-1).mean(), t * (np.exp(log_q) - p) / len(z)

    return loss


def nucleus(p):
    falling = np.sort(p, axis=-1)[..., ::-1]
    kept = (falling.cumsum(axis=-1) - falling < 0.99).sum(axis=-1, keepdims=True)
    return np.where(p >= np.take_along_axis(falling, kept - 1, axis=-1), p, 0)


@pytest.mark.parametrize("t", [1.0, 4.0, 20.0])
def test_a_teacher_without_its_small_probabilities_is_seen(t):
    top = lambda k: lambda p: np.where(p >= np.sort(p, axis=-1)[..., -min(k, p.shape[-1]), None], p, 0)
    for seed in range(4):
        assert limbeck.check_loss(softened(lambda p: p, t), temperature=t, seed=seed).ok
        for change in (nucleus, top(20), top(100), lambda p: np.where(p < 1e-4, 0, p)):
            report = limbeck.check_loss(softened(change, t), temperature=t, seed=seed)
            assert not report.ok and report.mistakes == (), report.details()


def test_a_name_is_given_only_where_no_input_excludes_it():
    # Right but for logits beyond 100, which alone would be T² missing, a sum, and more.
    clamped = lambda z, v, y: soft(z.clip(-100, 100), v, 100.0, 10.0).mean()
    report = limbeck.check_loss(clamped, temperature=10)
    assert not report.ok and report.mistakes == (), report.details()
    assert "none of the known mistakes: " in str(report)


def test_many_classes_take_no_square_of_them():
    assert limbeck.check_loss(softened(lambda p: p, T), temperature=T, classes=50_000).ok


def test_arguments_that_are_changed_are_named():
    def loss(z, v, y):
        v /= T
        return right(z, T * v, y)

    report = limbeck.check_loss(loss, **CONTRACT)
    assert report.mistakes == ("changes_its_input",) and "teacher_logits" in str(report), report


def test_the_saved_case_shows_the_verdict(tmp_path):
    path = tmp_path / "case.safetensors"
    report = limbeck.check_loss(WRONG["kl_mean"], **CONTRACT, save=path)
    assert limbeck.check_case(path)["message"] == str(report)
    assert limbeck.check_case(path)["verdict"] == "variant"
    limbeck.check_loss(right, **CONTRACT, save=path)
    assert limbeck.check_case(path)["verdict"] == "agrees"
    from safetensors.numpy import load_file

    tensors = load_file(path)
    assert tensors["student_logits"].shape == tensors["d_logits"].shape
    loss = right(tensors["student_logits"], tensors["teacher_logits"], tensors["labels"])
    assert tensors["loss"][0] == loss
    with pytest.raises(OSError):
        limbeck.check_case(tmp_path / "none.safetensors")
    path.write_bytes(b"no case")
    with pytest.raises(ValueError):
        limbeck.check_case(path)


def test_faults_of_the_keywords_are_errors():
    for keywords in (
        dict(temperature=0.0),
        dict(temperature=float("nan")),
        dict(temperature=T, framework="tensorflow"),
        dict(temperature=T, dtype="int32"),
        dict(temperature=T, classes=1),
        dict(temperature=T, length=0),
        dict(temperature=T, soft_weight=-1.0),
        dict(temperature=T, reduction="batchmean"),
    ):
        with pytest.raises(ValueError):
            limbeck.check_loss(right, **keywords)


def test_the_assertion_is_readable():
    assert_distillation_loss(right, **CONTRACT)
    with pytest.raises(AssertionError) as failure:
        assert_distillation_loss(WRONG["kl_mean"], **CONTRACT)
    text = str(failure.value)
    assert text.startswith("kl_mean: ") and "two classes, [7, 2]: variant" in text, text
    assert "save=" in text


class TestTorch:
    """The same for PyTorch, where it is installed."""

    @pytest.fixture(autouse=True)
    def torch(self):
        if "torch" in os.environ.get("LIMBECK_REQUIRE", "").split(","):
            import torch
        else:
            torch = pytest.importorskip("torch")
        return torch

    @pytest.fixture
    def loss(self, torch):
        """The loss as PyTorch's users write it, with what may go wrong as keywords."""
        F = torch.nn.functional

        def build(factor=T * T, reduction="batchmean"):
            def loss(z, v, y):
                log_q, p = F.log_softmax(z / T, -1), F.softmax(v / T, -1)
                kl = F.kl_div(log_q, p, reduction=reduction)
                return SOFT * factor * kl + HARD * F.cross_entropy(z, y)

            return loss

        return build

    def test_a_right_loss_is_ok(self, loss):
        report = limbeck.check_loss(loss(), **CONTRACT)
        assert report.ok and report.teacher_gradient, report.details()
        assert "reaches the teacher" in str(report)
        report = limbeck.check_loss(lambda z, v, y: loss()(z, v.detach(), y), **CONTRACT)
        assert report.ok and report.teacher_gradient is False
        assert limbeck.check_loss(loss(), **CONTRACT, dtype="float64").ok

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, torch, loss, dtype):
        half = getattr(torch, dtype)
        wrong = loss(reduction="mean")
        for fn, more in (
            (lambda build: build, dict(dtype=dtype)),
            (lambda build: lambda z, v, y: build(z.to(half), v.to(half), y), {}),
        ):
            report = limbeck.check_loss(fn(loss()), **CONTRACT, **more)
            assert report.ok, report.details()
            assert limbeck.check_loss(fn(wrong), **CONTRACT, **more).mistakes == ("kl_mean",)

    def test_mistakes_are_named(self, torch, loss):
        for mistake, fn in (
            ("kl_mean", loss(reduction="mean")),
            ("t_squared_missing", loss(factor=1.0)),
            ("constant", lambda z, v, y: z.new_ones(())),
            ("detached", lambda z, v, y: loss()(z.detach(), v.detach(), y)),
            ("student_detached", lambda z, v, y: loss()(z.detach(), v, y)),
            ("not_a_tensor", lambda z, v, y: loss()(z, v, y).item()),
            ("not_a_tensor", lambda z, v, y: (loss()(z, v, y), 0)),
            ("not_a_tensor", lambda z, v, y: None),
            ("not_reduced", lambda z, v, y: loss()(z, v, y) * z.new_ones(len(z))),
            ("not_deterministic", lambda z, v, y: loss()(z + torch.rand_like(z), v, y)),
            ("changes_its_input", lambda z, v, y: loss()(z, v.mul_(2), y)),
            ("raises", lambda z, v, y: z @ v),
        ):
            report = limbeck.check_loss(fn, **CONTRACT)
            assert not report.ok and report.mistakes[:1] == (mistake,), report.details()

    def test_a_teacher_without_a_gradient_is_taken_as_such(self, torch, loss):
        for fn in (
            lambda z, v, y: loss()(z, v.requires_grad_(False), y),
            lambda z, v, y: loss()(z, torch.from_numpy(v.numpy()), y),
        ):
            report = limbeck.check_loss(fn, **CONTRACT)
            assert report.ok and report.teacher_gradient is False, report.details()

    def test_bfloat16_of_every_seed(self, torch, loss):
        for seed in range(8):
            report = limbeck.check_loss(loss(), **CONTRACT, dtype="bfloat16", seed=seed)
            assert report.ok, report.details()
            kl = lambda z, v, y: 400 * torch.nn.functional.kl_div(
                torch.log_softmax(z / 20, -1), torch.log_softmax(v / 20, -1), reduction="batchmean", log_target=True
            )
            report = limbeck.check_loss(kl, temperature=20, dtype="bfloat16", seed=seed)
            assert report.ok and "more nothing can be told" in str(report), report.details()
        # A batch that is written down is no mean.
        wrong = lambda z, v, y: kl(z, v, y) * len(z) / 7
        assert not limbeck.check_loss(wrong, temperature=20, dtype="bfloat16").ok
        rounded = limbeck.check_loss(lambda *x: loss()(*x).bfloat16(), **CONTRACT)
        assert rounded.ok and "given in bf16" in str(rounded)

    def test_dropout_is_not_deterministic(self, torch, loss):
        dropout = torch.nn.Dropout(0.1)
        report = limbeck.check_loss(lambda z, v, y: loss()(dropout(z), v, y), **CONTRACT)
        assert report.mistakes == ("not_deterministic",) and "eval()" in str(report)
        dropout.eval()
        assert limbeck.check_loss(lambda z, v, y: loss()(dropout(z), v, y), **CONTRACT).ok

    def test_nan_on_extreme_logits_is_a_fault(self, torch):
        def unstable(z, v, y):
            p, q = torch.softmax(v / T, -1), torch.softmax(z / T, -1)
            return T * T * (p * (p / q).log()).sum(-1).mean()

        report = limbeck.check_loss(unstable, temperature=T)
        assert not report.ok and "on extreme logits" in str(report), report

    def test_a_loss_of_numpy_is_found_to_be_one(self, torch):
        assert limbeck.check_loss(right, **CONTRACT).ok
        assert limbeck.check_loss(right, **CONTRACT, framework="numpy").ok
        report = limbeck.check_loss(right, **CONTRACT, framework="torch")
        assert report.mistakes == ("raises",), report

    def test_tokens(self, torch):
        F = torch.nn.functional

        def loss(z, v, y):
            log_q, p = F.log_softmax(z / T, -1), F.softmax(v / T, -1)
            kl = F.kl_div(log_q, p, reduction="none").sum(-1)
            counted = y != -100
            ce = F.cross_entropy(z.transpose(1, 2), y, reduction="none")
            return ((SOFT * T * T * kl + HARD * ce) * counted).sum() / counted.sum()

        assert limbeck.check_loss(loss, **CONTRACT, length=5, ignore_index=-100).ok

        def batchmean(z, v, y):
            return (
                T
                * T
                * F.kl_div(F.log_softmax(z / T, -1), F.softmax(v / T, -1), reduction="batchmean")
            )

        report = limbeck.check_loss(batchmean, temperature=T, length=5)
        assert report.mistakes == ("seq_batchmean",), report

    def test_warnings_of_the_loss_are_no_errors(self, loss):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            limbeck.check_loss(loss(reduction="mean"), **CONTRACT)


def test_jax():
    jax = pytest.importorskip("jax")

    def loss(z, v, y):
        p, q = jax.nn.log_softmax(v / T), jax.nn.log_softmax(z / T)
        kl = (jax.numpy.exp(p) * (p - q)).sum(-1)
        ce = -jax.numpy.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1)[:, 0]
        return (SOFT * T * T * kl + HARD * ce).mean()

    for fn in (loss, jax.jit(loss)):
        report = limbeck.check_loss(fn, **CONTRACT)
        assert report.ok and report.teacher_gradient, report.details()
    for dtype in ("float16", "bfloat16"):
        assert limbeck.check_loss(loss, **CONTRACT, dtype=dtype).ok
        wrong = limbeck.check_loss(lambda *x: loss(*x) / 11, **CONTRACT, dtype=dtype)
        assert not wrong.ok and "raises" not in wrong.mistakes, wrong.details()
    stopped = lambda z, v, y: loss(jax.lax.stop_gradient(z), jax.lax.stop_gradient(v), y)
    assert limbeck.check_loss(stopped, **CONTRACT).mistakes == ("detached",)
    assert not limbeck.check_loss(lambda z, v, y: loss(z, v, y) / 11, **CONTRACT).ok
