"""The training step of `limbeck bench step` in JAX, the whole step compiled: one JSON object."""

import os
import sys
import time

import step

ARGS = step.arguments(__doc__)
# XLA takes as many threads as the process may use cores, and asks when it starts.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:ARGS.threads])

try:
    import jax
    import jax.numpy as jnp
    import numpy
except ImportError as error:
    sys.exit(f"jax_step.py needs JAX ({error}): pip install jax")


def initial(task, key):
    widths = [784, step.WIDTHS[task], step.WIDTHS[task], step.CLASSES]
    params = []
    for inputs, outputs in zip(widths, widths[1:]):
        key, drawn = jax.random.split(key)
        scale = (6 / inputs) ** 0.5
        weight = jax.random.uniform(drawn, (inputs, outputs), minval=-scale, maxval=scale)
        params.append((weight, jnp.zeros(outputs)))
    return params


def product(x, weight):
    """x·W in the precision that was asked for, with sums in f32."""
    if ARGS.precision == "bf16":
        x, weight = x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)
    return jnp.matmul(x, weight, preferred_element_type=jnp.float32)


def forward(params, x, key, rates):
    """Logits; `rates` of dropout for the input and each hidden layer, or none."""
    for i, (weight, bias) in enumerate(params):
        if rates:
            key, drawn = jax.random.split(key)
            x = jnp.where(jax.random.bernoulli(drawn, 1 - rates[i], x.shape), x / (1 - rates[i]), 0)
        x = product(x, weight) + bias
        if i + 1 < len(params):
            x = jax.nn.relu(x)
    return x


def loss_of(params, x, labels, teacher_logits, key, rates):
    logits = forward(params, x, key, rates)
    hard = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()
    if teacher_logits is None:
        return hard
    log_probs = jax.nn.log_softmax(logits / step.TEMPERATURE)
    soft_targets = jax.nn.softmax(teacher_logits / step.TEMPERATURE)
    soft = -(soft_targets * log_probs).sum(axis=1).mean()
    return step.TEMPERATURE**2 * soft + step.HARD_WEIGHT * hard


def sgd(params, moments, grads, learning_rate, momentum):
    moments = jax.tree.map(lambda v, g: momentum * v + g, moments, grads)
    return jax.tree.map(lambda w, v: w - learning_rate * v, params, moments), moments


def step_seconds(task, batch, steps):
    """Seconds of each of `steps` steps, after some to warm up."""
    images, labels, logits = (
        None if array is None else jnp.asarray(array) for array in step.random_data(task)
    )
    rates = (0.2, 0.5, 0.5) if task == "teacher" else ()

    def whole_step(params, moments, indices, key):
        x = images[indices].astype(jnp.float32) * (1 / 255)
        targets = None if logits is None else logits[indices]
        loss, grads = jax.value_and_grad(loss_of)(params, x, labels[indices], targets, key, rates)
        return *sgd(params, moments, grads, 1e-3, 0.9), loss

    compiled = jax.jit(whole_step, donate_argnums=(0, 1))
    params = initial(task, jax.random.key(0))
    moments = jax.tree.map(jnp.zeros_like, params)
    key, rng = jax.random.key(1), numpy.random.default_rng(1)
    ends, total = [], 0.0
    while len(ends) < step.WARM_UP + steps:
        order = rng.permutation(step.EXAMPLES).astype(numpy.int32)
        for start in range(0, step.EXAMPLES - batch + 1, batch):
            key, drawn = jax.random.split(key)
            params, moments, loss = compiled(params, moments, order[start:start + batch], drawn)
            total += float(loss)
            ends.append(time.perf_counter())
    if not total < float("inf"):
        sys.exit(f"the {task}'s loss is not finite")
    ends = ends[step.WARM_UP - 1:][:steps + 1]
    return [end - start for start, end in zip(ends, ends[1:])]


def case_losses(case):
    """The losses of the case's steps."""
    params = [(jnp.asarray(w.T), jnp.asarray(b)) for w, b in zip(case.weights, case.biases)]
    moments = jax.tree.map(jnp.zeros_like, params)
    logits = None if case.teacher_logits is None else jnp.asarray(case.teacher_logits)
    batch = (jnp.asarray(case.inputs), jnp.asarray(case.labels), logits)
    losses = []
    for _ in case.losses:
        loss, grads = jax.value_and_grad(loss_of)(params, *batch, None, ())
        params, moments = sgd(params, moments, grads, case.learning_rate, case.momentum)
        losses.append(float(loss))
    return losses


def main():
    losses = case_losses(step.Case(ARGS.case)) if ARGS.case else None
    seconds = step_seconds(ARGS.task, ARGS.batch, ARGS.steps)
    step.report(f"JAX {jax.__version__}", ARGS, ARGS.threads, seconds, losses)


if __name__ == "__main__":
    main()
