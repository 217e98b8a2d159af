"""Writes tests/golden/pytorch-f64.safetensors and -f32.safetensors: PyTorch's losses, gradients and
trained parameters for the task of task.py, and for the training of views.py.

    python tests/golden/pytorch_golden.py      # needs torch, numpy, safetensors
"""

import platform

import numpy as np
import task as golden
import torch
import torch.nn.functional as F
import views


def forward(net, x, masks):
    for i, layer in enumerate(net):
        if masks:
            x = x * masks[i]
        x = layer(x)
        if i + 1 < len(net):
            x = F.relu(x)
    return x


def losses(z, v, y, temperature, soft_weight, hard_weight):
    """The loss with cross-entropy, and with KL."""
    centred = lambda x: x - x.mean(dim=1, keepdim=True)
    if temperature == np.inf:
        soft = [F.mse_loss(centred(z), centred(v)) / 2] * 2
    else:
        p = F.softmax(v / temperature, dim=1)
        kl = F.kl_div(F.log_softmax(z / temperature, dim=1), p, reduction="batchmean")
        soft = [temperature**2 * term for term in (F.cross_entropy(z / temperature, p), kl)]
    hard = F.cross_entropy(z, y)
    return [soft_weight * term + hard_weight * hard for term in soft]


def flat(tensors):
    """W0 [inputs, outputs], b0, W1, ... as one array."""
    return np.concatenate([t.detach().t().flatten().numpy() for t in tensors])


def net_of(arrays, name, widths, dtype):
    """Layers with the weights and biases of arrays[name...]."""
    net = [torch.nn.Linear(a, b, dtype=dtype) for a, b in zip(widths, widths[1:])]
    with torch.no_grad():
        for i, layer in enumerate(net):
            layer.weight.copy_(torch.tensor(arrays[f"{name}layers.{i}.weight"]))
            layer.bias.copy_(torch.tensor(arrays[f"{name}layers.{i}.bias"]))
    return net


def optimizer_of(net, rate, momentum, nesterov, decay):
    groups = [
        {"params": [layer.weight for layer in net], "weight_decay": decay},
        {"params": [layer.bias for layer in net]},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov)


def params_of(net):
    return [p for layer in net for p in (layer.weight, layer.bias)]


def run_views(dtype):
    """A training in which student and teacher see other pixels in every step."""
    arrays = views.task()
    student = net_of(arrays, "student.", views.STUDENT, dtype)
    teacher = net_of(arrays, "teacher.", views.TEACHER, dtype)
    *loss, rate, momentum, nesterov, decay = views.CASE
    optimizer = optimizer_of(student, rate, momentum, nesterov, decay)
    losses_of_steps, params = [], []
    for pixels, labels in views.batches(arrays):
        pixels = torch.tensor(pixels, dtype=dtype)
        optimizer.zero_grad()
        with torch.no_grad():
            v = forward(teacher, pixels / 128 - 1, [])
        value, _ = losses(forward(student, pixels / 256 - 0.5, []), v, torch.tensor(labels), *loss)
        value.backward()
        optimizer.step()
        losses_of_steps.append(value.detach())
        params.append(flat(params_of(student)))
    return {"views.loss": losses_of_steps, "views.params": params}


def run(dtype):
    arrays = golden.task()
    real = lambda x: torch.tensor(x, dtype=dtype)
    x, v, y = real(golden.inputs(arrays)), real(arrays["teacher"]), torch.tensor(arrays["labels"])
    results = {}
    for name, case in golden.CASES.items():
        *loss, rate, momentum, nesterov, decay, dropout = case
        net = net_of(arrays, "", golden.WIDTHS, dtype)
        masks = [real(arrays[f"mask.{i}"]) for i in range(len(net))] if dropout else []
        params = params_of(net)
        optimizer = optimizer_of(net, rate, momentum, nesterov, decay)
        for step in range(1, max(golden.CHECKPOINTS) + 1):
            optimizer.zero_grad()
            z = forward(net, x, masks)
            z.retain_grad()
            value, reducible = losses(z, v, y, *loss)
            value.backward()
            if step == 1:
                results[f"{name}.logits"], results[f"{name}.d_logits"] = z.detach(), z.grad
                results[f"{name}.loss"] = [value.detach()]
                results[f"{name}.reducible_loss"] = [reducible.detach()]
                results[f"{name}.grads"] = flat([p.grad for p in params])
            optimizer.step()
            if step in golden.CHECKPOINTS:
                results[f"{name}.params.{step}"] = flat(params)

    # What PyTorch itself warns of: reduction='mean' divides by the classes too.
    z = results["soft.logits"].clone().requires_grad_()
    log_q, p = F.log_softmax(z / 20, dim=1), F.softmax(v / 20, dim=1)
    loss = 20**2 * F.kl_div(log_q, p, reduction="mean")
    loss.backward()
    results["kl_mean.loss"], results["kl_mean.d_logits"] = [loss.detach()], z.grad

    many, labels = golden.many()
    z, y = real(many).requires_grad_(), torch.tensor(labels)
    loss = F.cross_entropy(z, y)
    loss.backward()
    results["many.loss"] = [loss.detach()]
    results["many.d_logits"] = z.grad[:, ::101]
    results["many.d_label"] = z.grad[range(5), y]
    results |= run_views(dtype)
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    versions["python"] = platform.python_version()
    golden.save("pytorch", str(dtype).removeprefix("torch."), arrays, results, versions)


run(torch.float64)
run(torch.float32)
