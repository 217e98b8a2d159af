"""The losses against what PyTorch and JAX found in float64: tests/golden, made by its scripts."""

import json
import pathlib

import numpy as np
import pytest

import limbeck

FOLDER = pathlib.Path(__file__).parents[2] / "tests" / "golden"
# T, soft weight, hard weight, as in tests/golden/task.py.
CASES = {"hard": (1.0, 0.0, 1.0), "soft": (20.0, 1.0, 0.0), "mixed": (4.0, 0.75, 0.25)}
EPS = 2.0**-24


def golden(framework):
    """The arrays of a safetensors file: 8 bytes of header length, the header, the data."""
    data = (FOLDER / f"{framework}-float64.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    dtypes = {"F64": np.float64, "I64": np.int64, "U8": np.uint8}
    arrays = {}
    for name, tensor in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in tensor["data_offsets"])
            flat = np.frombuffer(data[begin:end], dtypes[tensor["dtype"]])
            arrays[name] = flat.reshape(tensor["shape"])
    return arrays


@pytest.fixture(params=["pytorch", "jax"])
def arrays(request):
    return golden(request.param)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients(arrays, case):
    t, soft, hard = CASES[case]
    z, v, y = arrays[f"{case}.logits"], arrays["teacher"], arrays["labels"]
    loss, d = limbeck.distillation(
        z.astype(np.float32), v.astype(np.float32), y,
        temperature=t, soft_weight=soft, hard_weight=hard,
    )
    batch, classes = z.shape
    largest = max(np.abs(z).max(), np.abs(v).max())
    # As in test_losses.py: 8 roundings of |z|/T, that of z to float32 among them, one for each
    # class, a dozen for the rest; soft losses carry T², gradients T, and an exponent is below
    # 2 · largest / T.
    error = {at: EPS * (classes + 12 + 8 * largest / at) for at in (t, 1.0)}
    allowed = soft * t * t * error[t] * (1 + 2 * largest / t)
    allowed += hard * error[1.0] * (1 + 2 * largest)
    assert abs(loss - arrays[f"{case}.loss"][0]) < allowed
    allowed = 2 * (soft * t * error[t] + hard * error[1.0]) / batch
    assert np.abs(d - arrays[f"{case}.d_logits"]).max() < allowed


@pytest.mark.parametrize("case", [*CASES, "logits"])
def test_check_agrees_with_the_frameworks(arrays, case):
    t, soft, hard = CASES.get(case, (np.inf, 1.0, 0.0))
    answer = limbeck.check(
        arrays[f"{case}.logits"], arrays["teacher"], arrays["labels"],
        temperature=t, soft_weight=soft, hard_weight=hard,
        loss=arrays[f"{case}.loss"][0], d_logits=arrays[f"{case}.d_logits"],
    )
    assert answer["verdict"] == "agrees", answer


def test_pytorchs_mean_is_named():
    arrays = golden("pytorch")
    answer = limbeck.check(
        arrays["soft.logits"], arrays["teacher"], temperature=20.0,
        loss=arrays["kl_mean.loss"][0], d_logits=arrays["kl_mean.d_logits"],
    )
    assert (answer["verdict"], answer["variant"]) == ("variant", "kl_mean"), answer
