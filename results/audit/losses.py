"""The losses of the audit: what each is said to be, what was read in its source, how it is called.

A package's loss is imported. That of a tutorial or a repository is written here anew from its
published formula.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402


@dataclass(frozen=True)
class Entry:
    """A loss, what it should be, and what was read in its source."""

    name: str
    project: str
    """A package, whose installed version is said, or a repository."""
    function: str
    source: str
    """A commit's address for a formula; empty for a package."""
    does: str
    """Direction, reduction, T², weights, in words."""
    differs: str
    """How that differs from the paper's loss."""
    build: Callable[[float], Callable[..., Any]]
    """From T to fn(student_logits, teacher_logits, labels)."""
    contract: dict[str, Any] = field(default_factory=dict)
    """The keywords of check_loss besides temperature."""
    temperature: float = 4.0


ENTRIES: list[Entry] = []


def entry(
    name: str,
    project: str,
    function: str,
    *,
    source: str = "",
    does: str,
    differs: str = "",
    temperature: float = 4.0,
    **contract: Any,
) -> Callable[[Any], Any]:
    def register(build: Callable[[float], Callable[..., Any]]) -> Any:
        ENTRIES.append(
            Entry(name, project, function, source, does, differs, build, contract, temperature)
        )
        return build

    return register


def identity(*_: Any, **__: Any) -> Any:
    return lambda thing: thing


REGISTRY = types.SimpleNamespace(register_module=identity)


def module_alone(package: str, path: str, **stand_ins: dict[str, Any]) -> types.ModuleType:
    """One file of an installed package, without what its __init__ imports.

    stand_ins: for modules that the file imports from its package, dots written as two underscores,
    what it takes from them. The file's own package is `alone`.
    """
    file = next(p for p in importlib.metadata.files(package) or () if str(p) == path)
    spec = importlib.util.spec_from_file_location(f"alone.{Path(path).stem}", file.locate())
    module = importlib.util.module_from_spec(spec)
    modules = {name.replace("__", "."): names for name, names in stand_ins.items()}
    parents = {name[:i] for name in ("alone.", *modules) for i, c in enumerate(name) if c == "."}
    before = dict(sys.modules)
    for name in sorted(parents | set(modules)):
        stand_in = types.ModuleType(name)
        stand_in.__path__ = []
        vars(stand_in).update(modules.get(name, {}))
        sys.modules[name] = stand_in
    try:
        spec.loader.exec_module(module)
    finally:
        for name in parents | set(modules):
            sys.modules.pop(name, None)
            if name in before:
                sys.modules[name] = before[name]
    return module


# Packages.


@entry(
    "torchdistill",
    "torchdistill",
    "`losses.mid_level.KDLoss(alpha=0.3)`",
    does="KL(v‖z), batchmean, T²; α hard, 1 − α soft",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    from torchdistill.losses.mid_level import KDLoss

    loss = KDLoss("m", "output", "m", "output", temperature=t, alpha=0.3)
    return lambda z, v, y: loss({"m": {"output": z}}, {"m": {"output": v}}, y)


@entry(
    "torchdistill-soft-only",
    "torchdistill",
    "`losses.mid_level.KDLoss(alpha=0.0)`",
    does="KL(v‖z), batchmean, without T²",
    differs="T² is applied with a hard term only: at `alpha=0.0` the soft term is T² times smaller than with "
    "`alpha` just above 0. The documented default `alpha=None` raises a TypeError unless `beta` is given.",
)
def _(t):
    from torchdistill.losses.mid_level import KDLoss

    loss = KDLoss("m", "output", "m", "output", temperature=t, alpha=0.0)
    return lambda z, v, y: loss({"m": {"output": z}}, {"m": {"output": v}}, y)


@entry(
    "textbrewer-ce",
    "textbrewer",
    "`losses.kd_ce_loss`",
    does="CE(v, z), mean over all rows, without T²",
    differs="No T², nor in the distillers that call it: `kd_loss_weight` has to grow with T².",
)
def _(t):
    from textbrewer.losses import kd_ce_loss

    return lambda z, v, y: kd_ce_loss(z, v, t)


@entry(
    "textbrewer-mse",
    "textbrewer",
    "`losses.kd_mse_loss`",
    does="mean squared difference of z/T and v/T",
    differs="Matching of logits, not centred and 2/T² times the paper's limit.",
    classes=11,
)
def _(t):
    from textbrewer.losses import kd_mse_loss

    return lambda z, v, y: kd_mse_loss(z, v, t)


@entry(
    "trl-gkd-forward",
    "trl",
    "`experimental.gkd.GKDTrainer.generalized_jsd_loss(beta=0)`",
    does="KL(v‖z), mean over tokens that are not −100, without T²",
    differs="No T², as in the paper on GKD that it follows; agrees at T = 1.",
    length=5,
    ignore_index=-100,
)
def _(t):
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    return lambda z, v, y: GKDTrainer.generalized_jsd_loss(z, v, y, beta=0, temperature=t)


@entry(
    "trl-gkd-forward-t1",
    "trl",
    "the same",
    does="KL(v‖z), mean over tokens",
    temperature=1.0,
    length=5,
    ignore_index=-100,
)
def _(t):
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    return lambda z, v, y: GKDTrainer.generalized_jsd_loss(z, v, y, beta=0, temperature=t)


@entry(
    "trl-gkd-jsd",
    "trl",
    "`experimental.gkd.GKDTrainer.generalized_jsd_loss()` as it defaults",
    does="Jensen–Shannon, β = 0.5, mean over tokens that are not −100, without T²",
    differs="Another divergence, and meant: run against that of the paper on GKD, which has no T² either.",
    divergence="js",
    length=5,
    ignore_index=-100,
)
def _(t):
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    return lambda z, v, y: GKDTrainer.generalized_jsd_loss(z, v, y, temperature=t)


def kd_lib(path: str, name: str, t: float, loss_fn: Any) -> Callable[..., Any]:
    module = module_alone(
        "kd-lib", f"KD_Lib/KD/{path}.py", KD_Lib__KD__common={"BaseClass": object}
    )
    self = types.SimpleNamespace(temp=t, distil_weight=0.7, loss_fn=loss_fn, gen=1)
    return lambda z, v, y: getattr(module, name).calculate_kd_loss(self, z, v, y)


@entry(
    "kd-lib-vanilla",
    "kd-lib",
    "`KD.VanillaKD.calculate_kd_loss` as it defaults",
    does="T² times the mean squared difference of softmax(z/T) and softmax(v/T)",
    differs="`loss_fn` defaults to `nn.MSELoss()` on probabilities, with a gradient that vanishes with them; "
    "the class says that it is the original implementation of the paper.",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    return kd_lib("vision/vanilla/vanilla_kd", "VanillaKD", t, torch.nn.MSELoss())


@entry(
    "kd-lib-vanilla-kldiv",
    "kd-lib",
    "`KD.VanillaKD(loss_fn=nn.KLDivLoss(reduction='batchmean'))`",
    does="kl_div(softmax(v/T), softmax(z/T)), T²",
    differs="The function that KL needs cannot be given: probabilities of the teacher are passed where "
    "log-probabilities of the student are due.",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    return kd_lib(
        "vision/vanilla/vanilla_kd", "VanillaKD", t, torch.nn.KLDivLoss(reduction="batchmean")
    )


@entry(
    "kd-lib-noisy",
    "kd-lib",
    "`KD.MessyCollab.calculate_kd_loss`, `KD.SoftRandom` as they default",
    does="KL(v‖z), divided by batch × classes, T²",
    differs="`nn.KLDivLoss()` averages over classes too.",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    return kd_lib("vision/noisy/messy_collab", "MessyCollab", t, torch.nn.KLDivLoss())


@entry(
    "kd-lib-bann",
    "kd-lib",
    "`KD.BANN.calculate_kd_loss`, generations after the first",
    does="KL(v‖z), divided by batch × classes, T²",
    differs="`nn.KLDivLoss()` averages over classes too.",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    return kd_lib("vision/BANN/BANN", "BANN", t, None)


@entry(
    "keras-default",
    "keras",
    "`distillation.LogitsDistillation(temperature)` as it defaults",
    does="KL formula on z/T and v/T themselves, clipped to [10⁻⁷, 1]",
    differs="No softmax is applied: see above.",
)
def _(t):
    from keras.distillation import LogitsDistillation

    loss = LogitsDistillation(temperature=t)
    return lambda z, v, y: loss.compute_loss(v, z)


@entry(
    "keras-crossentropy",
    "keras",
    "`distillation.LogitsDistillation(loss=CategoricalCrossentropy(from_logits=True))`",
    does="−Σ v/T · log softmax(z/T)",
    differs="The teacher's logits are taken for probabilities: see above. It is an example of the class's "
    "documentation.",
)
def _(t):
    import keras
    from keras.distillation import LogitsDistillation

    loss = LogitsDistillation(
        temperature=t, loss=keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    return lambda z, v, y: loss.compute_loss(v, z)


@entry(
    "keras-instance",
    "keras",
    "`distillation.LogitsDistillation(loss=keras.losses.KLDivergence())`",
    does="KL(v‖z), mean over the batch, T²",
    differs="Probabilities below 10⁻⁷ are clipped and carry no gradient, so that a confident student that is "
    "wrong is not corrected.",
)
def _(t):
    import keras
    from keras.distillation import LogitsDistillation

    loss = LogitsDistillation(temperature=t, loss=keras.losses.KLDivergence())
    return lambda z, v, y: loss.compute_loss(v, z)


@entry(
    "modelopt-default",
    "nvidia-modelopt",
    "`torch.distill.losses.LogitsDistillationLoss(temperature)` as it defaults",
    does="KL(v‖z), divided by batch × classes, T²",
    differs="`reduction` defaults to `'mean'`, which averages over classes too; the class names the paper, and "
    "`MFTLoss` beside it defaults to `'batchmean'`.",
)
def _(t):
    from modelopt.torch.distill.losses import LogitsDistillationLoss

    loss = LogitsDistillationLoss(temperature=t)
    return lambda z, v, y: loss(z, v)


@entry(
    "modelopt-batchmean",
    "nvidia-modelopt",
    "`torch.distill.losses.LogitsDistillationLoss(reduction='batchmean')`",
    does="KL(v‖z), batchmean, T²; the teacher is detached",
)
def _(t):
    from modelopt.torch.distill.losses import LogitsDistillationLoss

    loss = LogitsDistillationLoss(temperature=t, reduction="batchmean")
    return lambda z, v, y: loss(z, v)


@entry(
    "mmrazor",
    "mmrazor",
    "`models.losses.KLDivergence(tau)`",
    does="KL(v‖z), batchmean, T²; the teacher is detached",
)
def _(t):
    module = module_alone(
        "mmrazor", "mmrazor/models/losses/kl_divergence.py", mmrazor__registry={"MODELS": REGISTRY}
    )
    loss = module.KLDivergence(tau=t)
    return lambda z, v, y: loss(z, v)


@entry(
    "mmdet",
    "mmdet",
    "`models.losses.kd_loss.knowledge_distillation_kl_div_loss`, then its mean",
    does="KL(v‖z), divided by batch × classes, T²; the teacher is detached",
    differs="`.mean(1)` averages over classes; asked in HikariTJU/LD#74, which copies it.",
)
def _(t):
    module = module_alone(
        "mmdet",
        "mmdet/models/losses/kd_loss.py",
        mmdet__registry={"MODELS": REGISTRY},
        alone__utils={"weighted_loss": lambda f: f},
    )
    return lambda z, v, y: module.knowledge_distillation_kl_div_loss(z, v, t).mean()


@entry(
    "torchtune",
    "torchtune",
    "`modules.loss.ForwardKLLoss`",
    temperature=1.0,
    does="CE(v, z) at T = 1, mean over tokens that are not −100",
    length=5,
    ignore_index=-100,
)
def _(t):
    module = module_alone("torchtune", "torchtune/modules/loss/kd_losses.py")
    loss = module.ForwardKLLoss()
    return lambda z, v, y: loss(z.flatten(0, 1), v.flatten(0, 1), y)


@entry(
    "liger",
    "liger-kernel",
    "`chunked_loss.LigerFusedLinearJSDFunction(beta=0)`, weights of the identity",
    does="KL(v‖z), mean over tokens that are not −100, without T²",
    differs="No T² with `temperature`: `weight_soft_loss` has to grow with T².",
    soft_weight=0.7,
    hard_weight=0.3,
    ignore_index=-100,
)
def _(t):
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDFunction

    def loss(z, v, y):
        eye = torch.eye(z.shape[1])
        out = LigerFusedLinearJSDFunction.apply(
            z, eye, v, eye, y, None, None, 0.3, 0.7, 0.0, -100, t, False
        )
        return out[0] if isinstance(out, tuple) else out

    return loss


@entry(
    "ms-swift",
    "ms-swift",
    "`rlhf_trainers.gkd_loss.jsd_loss(beta=0)` / tokens",
    does="KL(v‖z) of logits that the caller divides by T, without T²",
    differs="No T², as in the paper on GKD that it follows.",
)
def _(t):
    from swift.rlhf_trainers.gkd_loss import jsd_loss

    return lambda z, v, y: jsd_loss(z / t, v / t, 0) / len(z)


@entry(
    "avalanche-lwf",
    "avalanche-lib",
    "`training.regularization.LearningWithoutForgetting._distillation_loss`",
    does="KL(v‖z), batchmean, without T²",
    differs="No T², as in Learning without Forgetting, whose temperature is 2.",
)
def _(t):
    module = module_alone(
        "avalanche-lib",
        "avalanche/training/regularization.py",
        avalanche__models={"MultiTaskModule": object, "avalanche_forward": None},
        avalanche___annotations={"deprecated": identity},
    )
    self = module.LearningWithoutForgetting(temperature=t)
    return lambda z, v, y: self._distillation_loss(z, v, range(z.shape[1]))


@entry("fasterai", "fasterai", "`distill.losses.SoftTarget`", does="KL(v‖z), batchmean, T²")
def _(t):
    from fasterai.distill.losses import SoftTarget

    return lambda z, v, y: SoftTarget(z, v, T=t)


@entry(
    "rictr",
    "rictr",
    "`strategies.logit.SoftTarget(alpha=0.3)`",
    does="KL(v‖z), batchmean, T²; α hard, 1 − α soft",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    from rictr.strategies.logit import SoftTarget

    loss = SoftTarget(temperature=t, alpha=0.3)
    return lambda z, v, y: loss(
        student_outputs={"logits": z}, teacher_outputs={"logits": v}, targets={"labels": y}
    )


@entry(
    "silverspoon",
    "silverspoon-kd",
    "`losses.kl.kl_divergence_loss`",
    does="KL(v‖z), mean over tokens, T²",
    length=5,
)
def _(t):
    from silverspoon_kd.losses.kl import kl_divergence_loss

    loss = kl_divergence_loss(temperature=t)
    return lambda z, v, y: loss(z, v)


@entry(
    "zynthe-lm",
    "zynthe",
    "`core.distillers.causal_lm.distillation.CausalLMDistillationEngine(shift_labels=False)`",
    does="KL(v‖z), mean over tokens that are not −100, T²; α soft, 1 − α hard; logits are clipped to ±80",
    differs="Logits beyond `logit_clip`, ±80 by default, carry no gradient.",
    soft_weight=0.7,
    hard_weight=0.3,
    length=5,
    ignore_index=-100,
)
def _(t):
    from zynthe.core.distillers.causal_lm import distillation

    # shift_labels moves tokens and logits against each other, which the caller's labels here are not.
    config = distillation.DistillationConfig(temperature=t, alpha=0.7, shift_labels=False)
    engine = distillation.CausalLMDistillationEngine(config)
    return lambda z, v, y: (
        engine.compute_total_loss(student_outputs=z, teacher_outputs=v, labels=y).total
    )


@entry("peftml", "peftml", "`distillation.losses.hinton_kd_loss`", does="KL(v‖z), batchmean, T²")
def _(t):
    from peftml.distillation.losses import hinton_kd_loss

    return lambda z, v, y: hinton_kd_loss(z, v, t)


@entry(
    "distil-trainer",
    "distil-trainer",
    "`distillation.losses.DistillationLosses.kl_divergence_loss`",
    does="KL(v‖z), batchmean, T²",
)
def _(t):
    from distil_trainer.distillation.losses import DistillationLosses

    return lambda z, v, y: DistillationLosses.kl_divergence_loss(z, v, t)


@entry(
    "darklight",
    "darklight",
    "`losses.losses.SoftLabelsDistillationLoss(lamda=0.7)`",
    does="KL(v‖z), batchmean, T²; hard term with label smoothing 0.1",
    differs="Label smoothing is fixed at 0.1 in the hard term, and the soft term takes log(softmax), which is −∞ "
    "where softmax underflows.",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    module = module_alone("darklight", "darklight/losses/losses.py")
    return module.SoftLabelsDistillationLoss(temp=t, lamda=0.7)


@entry(
    "llm-distil",
    "llm-distil",
    "`losses.sequence_kl_divergence`",
    does="KL(v‖z), mean over tokens of a sequence, then over sequences, T²",
    differs="10⁻⁹ is added to each of the teacher's probabilities, which then sum to 1 + 10⁻⁹·C.",
    length=5,
)
def _(t):
    module = module_alone("llm-distil", "llm_distil/losses.py")
    return lambda z, v, y: module.sequence_kl_divergence(z, v, temperature=t)


@entry(
    "lmfast",
    "lmfast",
    "`distillation.teacher_student.DistillationLoss` on [B, L, C]",
    does="KL(v‖z), batchmean over [B, L, C], T²; padding counts in the soft term",
    differs="batchmean divides by B alone, so that the soft term is a sum over L tokens beside a hard term that is "
    "a mean; labels of −100 leave the hard term only.",
    soft_weight=0.7,
    hard_weight=0.3,
    length=5,
)
def _(t):
    from lmfast.distillation import teacher_student

    cls = teacher_student.DistillationLoss
    loss = cls(temperature=t, alpha=0.7)
    return lambda z, v, y: loss(z, v, y)["loss"]


@entry(
    "sentence-transformers",
    "sentence-transformers",
    "`losses.DistillKLDivLoss(temperature)`, scores as logits",
    does="KL(v‖z) of scores over candidates, batchmean, T²; the teacher is detached",
    classes=11,
)
def _(t):
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

    loss = DistillKLDivLoss(
        torch.nn.Identity(), similarity_fct=lambda query, score: score, temperature=t
    )
    return lambda z, v, y: loss.compute_loss_from_embeddings([z, *z.unbind(1)], v)


# Tutorials and repositories, from their published formulas.

GITHUB = "https://github.com/"


@entry(
    "pytorch-tutorial",
    "PyTorch's tutorial on distillation",
    "`train_knowledge_distillation`",
    source=GITHUB + "pytorch/tutorials/blob/c53e7d4efc0e39e455c531d21ec7db28ba220214/"
    "beginner_source/knowledge_distillation_tutorial.py",
    does="KL(v‖z) as Σ p·(ln p − ln q) by hand, mean over the batch, T²; weights 0.25 soft, 0.75 hard",
    differs="`soft_targets.log()` is −∞ where the teacher's probability underflows, at gaps above 104·T in f32, and 0·∞ makes "
    "the loss NaN; `F.kl_div` and `log_softmax` have no such place.",
    temperature=2.0,
    soft_weight=0.25,
    hard_weight=0.75,
)
def _(t):
    def loss(z, v, y):
        p, log_q = F.softmax(v / t, -1), F.log_softmax(z / t, -1)
        return 0.25 * t**2 * (p * (p.log() - log_q)).sum() / len(z) + 0.75 * F.cross_entropy(z, y)

    return loss


@entry(
    "transformers-guide",
    "Transformers' guide to distillation of vision models",
    "`ImageDistilTrainer.compute_loss`",
    source=GITHUB + "huggingface/transformers/blob/77c2fe6546ddb8e0c2d7a717ffe7238e547938c6/"
    "docs/source/en/tasks/knowledge_distillation_for_image_classification.md",
    does="KL(v‖z), batchmean, T²; λ soft, 1 − λ hard",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    def loss(z, v, y):
        kl = torch.nn.KLDivLoss(reduction="batchmean")(
            F.log_softmax(z / t, -1), F.softmax(v / t, -1)
        )
        return 0.7 * t**2 * kl + 0.3 * F.cross_entropy(z, y)

    return loss


@entry(
    "distilbert",
    "huggingface/transformers-research-projects",
    "`distillation/distiller.py: Distiller.step`",
    source=GITHUB
    + "huggingface/transformers-research-projects/blob/fccd0cdab03c1407bb7def05e1b48528fc817078/"
    "distillation/distiller.py",
    does="KL(v‖z), batchmean over the tokens that the mask selects, T²",
    length=5,
    mask=True,
)
def _(t):
    def loss(z, v, y, mask):
        kl = F.kl_div(
            F.log_softmax(z[mask] / t, -1), F.softmax(v[mask] / t, -1), reduction="batchmean"
        )
        return t**2 * kl

    return loss


@entry(
    "keras-example",
    "Keras' example of distillation",
    "`Distiller.train_step`",
    source=GITHUB + "keras-team/keras-io/blob/501fb4cbe62e5b5c434393f512a452ef833640a1/"
    "examples/vision/knowledge_distillation.py",
    does="keras.losses.KLDivergence of the two softmaxes, mean over the batch, T²; α hard, 1 − α soft",
    differs="Probabilities below 10⁻⁷ are clipped and carry no gradient.",
    soft_weight=0.9,
    hard_weight=0.1,
)
def _(t):
    import keras

    def loss(z, v, y):
        kl = keras.losses.KLDivergence()(
            keras.ops.softmax(v / t, axis=1), keras.ops.softmax(z / t, axis=1)
        )
        hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, z)
        return 0.1 * hard + 0.9 * t**2 * kl

    return loss


@entry(
    "repdistiller",
    "HobbitLong/RepDistiller",
    "`distiller_zoo/KD.py: DistillKL`",
    source=GITHUB
    + "HobbitLong/RepDistiller/blob/b84f547c5db6a35318d4671d7d5c4de74c822403/distiller_zoo/KD.py",
    does="KL(v‖z), mean over the batch, T²",
)
def _(t):
    return lambda z, v, y: (
        t**2 * F.kl_div(F.log_softmax(z / t, 1), F.softmax(v / t, 1), reduction="sum") / len(z)
    )


@entry(
    "mdistiller",
    "megvii-research/mdistiller",
    "`mdistiller/distillers/KD.py: kd_loss`",
    source=GITHUB
    + "megvii-research/mdistiller/blob/a08d46f10d6102bd6e3f258ca5ac880b020ea259/mdistiller/distillers/KD.py",
    does="KL(v‖z), mean over the batch, T²",
)
def _(t):
    return lambda z, v, y: (
        t**2
        * F.kl_div(F.log_softmax(z / t, 1), F.softmax(v / t, 1), reduction="none").sum(1).mean()
    )


@entry(
    "kd-zoo",
    "AberHu/Knowledge-Distillation-Zoo",
    "`kd_losses/st.py: SoftTarget`",
    source=GITHUB
    + "AberHu/Knowledge-Distillation-Zoo/blob/65470c846c1300d555815da26999cbe2b51fc815/kd_losses/st.py",
    does="KL(v‖z), batchmean, T²",
)
def _(t):
    return lambda z, v, y: (
        F.kl_div(F.log_softmax(z / t, 1), F.softmax(v / t, 1), reduction="batchmean") * t * t
    )


@entry(
    "haitongli",
    "haitongli/knowledge-distillation-pytorch (earlier peterliht's)",
    "`model/net.py: loss_fn_kd`",
    source=GITHUB
    + "haitongli/knowledge-distillation-pytorch/blob/9937528f0be0efa979c745174fbcbe9621cea8b7/model/net.py",
    does="KL(v‖z), divided by batch × classes, T²; α soft, 1 − α hard",
    differs="`nn.KLDivLoss()` averages over classes too: asked in its issues #2 and #48. DeiT and many others copy the line.",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    return lambda z, v, y: (
        0.7 * t**2 * torch.nn.KLDivLoss()(F.log_softmax(z / t, 1), F.softmax(v / t, 1))
        + 0.3 * F.cross_entropy(z, y)
    )


@entry(
    "deit",
    "facebookresearch/deit",
    "`losses.py: DistillationLoss('soft')`",
    source=GITHUB + "facebookresearch/deit/blob/7e160fe43f0252d17191b71cbb5826254114ea5b/losses.py",
    does="KL(v‖z), divided by batch × classes, T²; α soft, 1 − α hard",
    differs="Its comment says that the division by classes is meant, and issue #61 that batchmean gave no better results. "
    "α thus counts C times less than the paper's weight.",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    return lambda z, v, y: (
        0.7
        * t**2
        * F.kl_div(
            F.log_softmax(z / t, 1), F.log_softmax(v / t, 1), reduction="sum", log_target=True
        )
        / z.numel()
        + 0.3 * F.cross_entropy(z, y)
    )


@entry(
    "teacher-free-kd",
    "yuanli2333/Teacher-free-Knowledge-Distillation",
    "`my_loss_function.py: loss_kd`",
    source=GITHUB
    + "yuanli2333/Teacher-free-Knowledge-Distillation/blob/d000ab378a409535a5f5f645b473e05e27529a02/"
    "my_loss_function.py",
    does="KL(v‖z), divided by batch × classes, T²; α soft, 1 − α hard",
    differs="`nn.KLDivLoss()` averages over classes too: asked in its issues #5 and #41. Its hyperparameters are chosen "
    "with it.",
    soft_weight=0.7,
    hard_weight=0.3,
)
def _(t):
    return lambda z, v, y: (
        0.7 * t**2 * torch.nn.KLDivLoss()(F.log_softmax(z / t, 1), F.softmax(v / t, 1))
        + 0.3 * F.cross_entropy(z, y)
    )


@entry(
    "intel-distiller",
    "IntelLabs/distiller",
    "`distiller/knowledge_distillation.py: KnowledgeDistillationPolicy`",
    source=GITHUB
    + "IntelLabs/distiller/blob/06faf4caaa1cb092b0db2c56707c50da721cbf6e/distiller/knowledge_distillation.py",
    does="KL(v‖z), mean over the batch, without T²; weights 0.5 and 0.5",
    differs="No T²: `kd_distill_wt` has to grow with T².",
    soft_weight=0.5,
    hard_weight=0.5,
)
def _(t):
    return lambda z, v, y: (
        0.5
        * F.kl_div(F.log_softmax(z / t, 1), F.softmax(v.detach() / t, 1), reduction="sum")
        / len(z)
        + 0.5 * F.cross_entropy(z, y)
    )


@entry(
    "distillkit-2024",
    "arcee-ai/DistillKit, 2024",
    "`distil_logits.py: LogitsTrainer.distillation_loss`",
    source=GITHUB
    + "arcee-ai/DistillKit/blob/09fbb0ca43720259c504817cf8f13b57f5ce00cd/distil_logits.py",
    does="KL(v‖z), sum / (batch × max_length), T²; padding counts",
    differs="Padding has a soft loss, and stands in the divisor. The version of 2026 (next row) no longer does so.",
    soft_weight=0.5,
    hard_weight=0.5,
    length=5,
    ignore_index=-100,
)
def _(t):
    def loss(z, v, y):
        kl = F.kl_div(F.log_softmax(z / t, -1), F.softmax(v / t, -1), reduction="batchmean")
        return 0.5 * t**2 * kl / z.shape[1] + 0.5 * F.cross_entropy(
            z.flatten(0, 1), y.flatten(), ignore_index=-100
        )

    return loss


@entry(
    "distillkit-2026",
    "arcee-ai/DistillKit, 2026",
    "`distillkit/lossfuncs/kl.py: KLDLoss`, dense",
    source=GITHUB
    + "arcee-ai/DistillKit/blob/a61c2e7d25c2e990d45832e12bd8542bdee9c810/distillkit/lossfuncs/kl.py",
    does="KL(v‖z), mean over the tokens of the mask, T²",
    length=5,
    mask=True,
)
def _(t):
    def loss(z, v, y, mask):
        kl = F.kl_div(
            F.log_softmax(z / t, -1), F.log_softmax(v / t, -1), reduction="none", log_target=True
        )
        return t**2 * (kl.sum(-1) * mask.float()).sum() / mask.float().sum()

    return loss


@entry(
    "minillm",
    "microsoft/LMOps",
    "`minillm/finetune.py: get_distil_loss`",
    temperature=1.0,
    source=GITHUB
    + "microsoft/LMOps/blob/18707df29fd05d8cb28cecf165b50a9ba5445c11/minillm/finetune.py",
    does="CE(v, z) at T = 1, mean over tokens that are not −100",
    length=5,
    ignore_index=-100,
)
def _(t):
    def loss(z, v, y):
        each = -(F.softmax(v, -1) * F.log_softmax(z, -1)).sum(-1)
        return (each * (y != -100)).sum() / (y != -100).sum()

    return loss


@entry(
    "big-vision",
    "google-research/big_vision",
    "`evaluators/proj/distill/distance.py: dist('kl', t)`, in JAX",
    source=GITHUB + "google-research/big_vision/blob/0127fb6b337ee2a27bf4e54dea79cff176527356/"
    "big_vision/evaluators/proj/distill/distance.py",
    does="KL(v‖z), mean over the batch, T²",
    framework="jax",
)
def _(t):
    import jax

    def loss(z, v, y):
        p, log_p, log_q = (
            jax.nn.softmax(v / t),
            jax.nn.log_softmax(v / t),
            jax.nn.log_softmax(z / t),
        )
        return t**2 * (p * (log_p - log_q)).sum(-1).mean()

    return loss


@entry(
    "bmcook",
    "bmcook (OpenBMB/BMCook)",
    "`bmcook.distilling`, its cross-entropy of logits [B, L, C]",
    source="https://pypi.org/project/bmcook/0.1.2/",
    does="CE(v, z), summed over dimension 1, mean over the others, without T²",
    differs="For logits [B, L, C] dimension 1 are the tokens: the sum goes over L and the mean over B and C. No T².",
    length=5,
)
def _(t):
    return lambda z, v, y: -(F.softmax(v / t, -1) * F.log_softmax(z / t, -1)).sum(1).mean()


@entry(
    "mpdistil",
    "mpdistil 0.1.0",
    "`trainer.py`, the soft loss of classification",
    source="https://pypi.org/project/mpdistil/0.1.0/",
    does="T² times the mean squared difference of softmax(z/T) and softmax(v/T)",
    differs="Squared differences of probabilities in place of a cross-entropy.",
)
def _(t):
    return lambda z, v, y: t**2 * F.mse_loss(F.softmax(v / t, -1), F.softmax(z / t, -1))
