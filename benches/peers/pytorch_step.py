"""The training steps of limbeck_step.rs in PyTorch: one JSON object for each configuration.

The images stay u8 in memory and are gathered in a new random order each epoch, converted to
float, and trained on with SGD and momentum: the teacher with dropout on labels, the student on
cached teacher logits at T = 20 and, with weight 0.05, on labels. The loss is read in each step,
as a trainer that reports it must.
"""

import argparse
import json
import statistics
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    sys.exit(f"pytorch_step.py needs PyTorch ({error}): pip install torch")

EXAMPLES = 8192
WARM_UP = 8
TEMPERATURE = 20.0
HARD_WEIGHT = 0.05
WIDTHS = {"teacher": 1200, "student": 800}


def network(task):
    width = WIDTHS[task]
    drop = nn.Dropout if task == "teacher" else lambda _: nn.Identity()
    return nn.Sequential(
        drop(0.2),
        nn.Linear(784, width), nn.ReLU(), drop(0.5),
        nn.Linear(width, width), nn.ReLU(), drop(0.5),
        nn.Linear(width, 10),
    )


def loss_of(logits, labels, teacher_logits):
    hard = F.cross_entropy(logits, labels)
    if teacher_logits is None:
        return hard
    log_probs = F.log_softmax(logits / TEMPERATURE, dim=1)
    soft_targets = F.softmax(teacher_logits / TEMPERATURE, dim=1)
    soft = F.kl_div(log_probs, soft_targets, reduction="batchmean")
    return TEMPERATURE**2 * soft + HARD_WEIGHT * hard


def step_times(task, batch, steps):
    """Seconds of each of `steps` steps, after some to warm up."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (EXAMPLES, 784), dtype=torch.uint8)
    labels = torch.randint(0, 10, (EXAMPLES,))
    teacher_logits = torch.rand(EXAMPLES, 10) * 16 - 8 if task == "student" else None
    model = network(task).train()
    # The faster of PyTorch's updates on a CPU: one pass over each parameter.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)

    ends = []
    total = 0.0
    while len(ends) < WARM_UP + steps:
        for indices in torch.randperm(EXAMPLES).split(batch):
            inputs = images[indices].to(torch.float32).mul_(1 / 255)
            targets = None if teacher_logits is None else teacher_logits[indices]
            loss = loss_of(model(inputs), labels[indices], targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            ends.append(time.perf_counter())
    if not total < float("inf"):
        sys.exit(f"the {task}'s loss is not finite")
    ends = ends[WARM_UP - 1:][:steps + 1]
    return [end - start for start, end in zip(ends, ends[1:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for task in arguments.tasks:
        for batch in arguments.batches:
            ms = [1e3 * seconds for seconds in step_times(task, batch, arguments.steps)]
            print(json.dumps({
                "version": f"PyTorch {torch.__version__}",
                "task": task,
                "net": f"784-{WIDTHS[task]}-{WIDTHS[task]}-10",
                "batch": batch,
                "threads": torch.get_num_threads(),
                "steps": arguments.steps,
                "ms_per_step": {
                    "median": statistics.median(ms),
                    "min": min(ms),
                    "max": max(ms),
                },
            }), flush=True)


if __name__ == "__main__":
    main()
