"""The training step of `limbeck bench step` in PyTorch: one JSON object."""

import sys
import time

import step

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    sys.exit(f"pytorch_step.py needs PyTorch ({error}): pip install torch")


def network(task, dropout=True):
    width = step.WIDTHS[task]
    drop = nn.Dropout if task == "teacher" and dropout else lambda _: nn.Identity()
    return nn.Sequential(
        drop(0.2),
        nn.Linear(784, width), nn.ReLU(), drop(0.5),
        nn.Linear(width, width), nn.ReLU(), drop(0.5),
        nn.Linear(width, step.CLASSES),
    )


def loss_of(logits, labels, teacher_logits):
    hard = F.cross_entropy(logits, labels)
    if teacher_logits is None:
        return hard
    log_probs = F.log_softmax(logits / step.TEMPERATURE, dim=1)
    soft_targets = F.softmax(teacher_logits / step.TEMPERATURE, dim=1)
    soft = -(soft_targets * log_probs).sum(dim=1).mean()
    return step.TEMPERATURE**2 * soft + step.HARD_WEIGHT * hard


def sgd(model, learning_rate, momentum):
    # The faster of PyTorch's updates on a CPU: one pass over each parameter.
    return torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum, fused=True)


def train_step(model, optimizer, inputs, labels, teacher_logits, bf16):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = model(inputs)
    loss = loss_of(logits.float(), labels, teacher_logits)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def step_seconds(task, batch, steps, bf16):
    """Seconds of each of `steps` steps, after some to warm up."""
    torch.manual_seed(0)
    images, labels, logits = (
        None if array is None else torch.from_numpy(array) for array in step.random_data(task)
    )
    model = network(task).train()
    optimizer = sgd(model, 1e-3, 0.9)
    ends, total = [], 0.0
    while len(ends) < step.WARM_UP + steps:
        for indices in torch.randperm(step.EXAMPLES).split(batch):
            inputs = images[indices].to(torch.float32).mul_(1 / 255)
            targets = None if logits is None else logits[indices]
            total += train_step(model, optimizer, inputs, labels[indices], targets, bf16)
            ends.append(time.perf_counter())
    if not total < float("inf"):
        sys.exit(f"the {task}'s loss is not finite")
    ends = ends[step.WARM_UP - 1:][:steps + 1]
    return [end - start for start, end in zip(ends, ends[1:])]


def case_losses(task, case, bf16):
    """The losses of the case's steps."""
    model = network(task, dropout=False)
    with torch.no_grad():
        linear = [layer for layer in model if isinstance(layer, nn.Linear)]
        for layer, weight, bias in zip(linear, case.weights, case.biases):
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
    optimizer = sgd(model, case.learning_rate, case.momentum)
    logits = None if case.teacher_logits is None else torch.from_numpy(case.teacher_logits)
    batch = (torch.from_numpy(case.inputs), torch.from_numpy(case.labels), logits)
    return [train_step(model, optimizer, *batch, bf16) for _ in case.losses]


def main():
    args = step.arguments(__doc__)
    torch.set_num_threads(args.threads)
    bf16 = args.precision == "bf16"
    losses = case_losses(args.task, step.Case(args.case), bf16) if args.case else None
    seconds = step_seconds(args.task, args.batch, args.steps, bf16)
    step.report(f"PyTorch {torch.__version__}", args, torch.get_num_threads(), seconds, losses)


if __name__ == "__main__":
    main()
