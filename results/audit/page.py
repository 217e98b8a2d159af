"""The audit's page, from its verdicts."""

from __future__ import annotations

from typing import Any

HEAD = """# What public distillation losses compute

`limbeck.check_loss` was run over {count} distillation losses that people install or copy, each against the loss of
[Hinton, Vinyals & Dean 2015](https://arxiv.org/abs/1503.02531),

    mean over the batch of  soft_weight·T²·KL(softmax(v/T) ‖ softmax(z/T)) + hard_weight·CE(y, softmax(z)),

z the student's logits, v the teacher's; of sequences the mean is over tokens. {agree} of {count} agree in value and
gradient on every input. A loss that does not may be meant so: the last column says how it differs. Whoever takes
hyperparameters from one of them takes its scale with them: without T² at T = 4 the soft term weighs 16 times less, and
with the mean over 100 classes 100 times less.

{date}, limbeck {limbeck}, Python {python}, PyTorch {torch}, {machine}. Made by

    python results/audit/audit.py

with the packages of the first table installed beside `./python`, `torch` and `jax`; those whose dependencies do not fit
each other by `pip install --no-deps`, since a loss needs few of them. The verdict on each input is in
[`verdicts.json`](verdicts.json), the case that shows it in [`cases`](cases): `limbeck check results/audit/cases/NAME.safetensors`.
"""

FOUND = """## Worth a maintainer's look

What follows is not what the function's documentation says, or would surprise its user. Each case file has the logits, the
loss and the gradient that came out.

- **Keras {keras}, `keras.distillation.LogitsDistillation()`** applies no softmax with its default `loss="kl_divergence"`.
  The string becomes the function `keras.losses.kl_divergence`, and `compute_loss` applies softmax and T² where
  `isinstance(loss_fn, keras.losses.KLDivergence)`, which a function is not. So logits over T, clipped to [10⁻⁷, 1], stand
  for probabilities, and where a logit is negative or above T its gradient is 0. For a teacher's [2, 1, −1] and a student's
  [−1, 1, 2] at T = 1 the loss is 16.1 in place of 2.01; for a student's [20, 10, −10] it is 0 in place of 2.45.
  `loss=keras.losses.KLDivergence()` gives the loss that is described. The same lines stand in the repository at
  [3422977](https://github.com/keras-team/keras/blob/3422977a5e38fb2f7709aaa9a08e47f0c43d0f60/keras/src/distillation/distillation_loss.py#L359),
  August 2026. [case](cases/keras-default.safetensors)
- **The same class with `loss=CategoricalCrossentropy(from_logits=True)`**, an example of its documentation, takes the
  teacher's logits over T for probabilities: they can be negative, and the loss then has no lower bound; it is −1001 for
  a teacher's [0, 0, −2] and a student's [0, 0, −500] at T = 1.
  `keras.ops.softmax(teacher_logits)` as the target would give the cross-entropy.
  [case](cases/keras-crossentropy.safetensors)
- **nvidia-modelopt {modelopt}, `LogitsDistillationLoss`** defaults to `reduction="mean"`, with which `F.kl_div` divides by
  the classes too: for a vocabulary of 32,000 the loss is 32,000 times smaller than the one it names.
  `reduction="batchmean"` agrees. [case](cases/modelopt-default.safetensors)
- **KD_Lib {kd_lib}, `VanillaKD`** defaults to the squared difference of probabilities, and hands its `loss_fn` two softmaxes, the
  teacher's first: no reduction of `nn.KLDivLoss` makes of these the paper's loss.
  [default](cases/kd-lib-vanilla.safetensors), [with KLDivLoss](cases/kd-lib-vanilla-kldiv.safetensors)
- **torchdistill {torchdistill}, `KDLoss`** leaves T² out where `alpha` is 0, and with its documented default `alpha=None` it raises a
  TypeError (`1 - alpha`) unless `beta` is given. [case](cases/torchdistill-soft-only.safetensors)
- **lmfast {lmfast}, `DistillationLoss`** on [B, L, C]: `reduction="batchmean"` divides by B, so that the soft term grows with L beside
  a hard term that does not, and padding takes part in it. [case](cases/lmfast.safetensors)
- **BMCook 0.1.2** sums the cross-entropy of logits [B, L, C] over dimension 1, the tokens, and averages over the classes.
  [case](cases/bmcook.safetensors)
- **PyTorch's tutorial** writes KL as `soft_targets * (soft_targets.log() - soft_prob)`. Where a teacher is so sure that a
  probability underflows, gaps above 104·T in f32, the loss is NaN though its gradient is finite.
  `F.kl_div(soft_prob, soft_targets, reduction="batchmean")` has the same value elsewhere and no such place, nor had
  `-soft_targets * soft_prob`, which stood there before [a0e5e66](https://github.com/pytorch/tutorials/commit/a0e5e66a55e3a7dc523d73d5952f56b97c75f843).
  [case](cases/pytorch-tutorial.safetensors)
"""

TABLE = """
| loss | what it computes | verdict | how it differs from the paper's |
|---|---|---|---|
"""


def verdict(row: dict[str, Any]) -> str:
    """A link to the case with the verdict in a few words."""
    if row["ok"]:
        text = "agrees"
    else:
        text = " + ".join(f"`{mistake}`" for mistake in row["mistakes"][:1]) or "differs"
        if row["message"].startswith("agrees on "):
            names = [
                name
                for name, verdict in row["inputs"].items()
                if verdict not in ("agrees", "cannot_tell")
            ]
            text = f"agrees, but not on {' and '.join(names)}"
    return f"[{text}]({row['case']})" if row["case"] else text


def line(row: dict[str, Any]) -> str:
    name = (
        f"[{row['project']}]({row['source']})"
        if row["source"]
        else f"{row['project']} {row['version']}"
    )
    contract = row["contract"]
    temperature = f"; T = {contract['temperature']:g}" if contract["temperature"] != 4 else ""
    return f"| {name}: {row['function']}{temperature} | {row['does']} | {verdict(row)} | {row['differs']} |\n"


def page(found: dict[str, Any]) -> str:
    """README.md."""
    rows = found["losses"].values()
    agree = sum(row["ok"] for row in rows)
    text = HEAD.format(count=len(rows), agree=agree, **found["about"])
    versions = {row["project"].replace("-", "_"): row["version"] for row in rows}
    versions["modelopt"] = versions.get("nvidia_modelopt", "")
    text += "\n" + FOUND.format(**versions)
    text += "\n## Packages\n\nRun by import, at T = 4 where nothing else is said; of KD_Lib, "
    text += "mmrazor, mmdet, torchtune, avalanche, darklight and llm-distil the file of the loss alone, since what "
    text += "else they import does not install together.\n" + TABLE
    text += "".join(line(row) for row in rows if row["how"] == "import")
    text += (
        "\n## Tutorials and repositories\n\nWritten anew from the published formula, which the link shows as it was read; "
        "their own code was not run.\n" + TABLE
    )
    return text + "".join(line(row) for row in rows if row["how"] == "formula")
