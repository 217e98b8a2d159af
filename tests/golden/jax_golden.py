"""Writes tests/golden/jax-f64.safetensors and -f32.safetensors: JAX's losses, gradients and, by
optax, trained parameters for the task of task.py, and for the training of views.py.

    python tests/golden/jax_golden.py          # needs jax, optax, numpy, safetensors
"""

import platform

import jax
import jax.numpy as jnp
import numpy as np
import optax
import task as golden
import views

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")


def forward(params, x, masks):
    for i, (weight, bias) in enumerate(params):
        if masks:
            x = x * masks[i]
        x = x @ weight + bias
        if i + 1 < len(params):
            x = jax.nn.relu(x)
    return x


def loss(z, v, y, temperature, soft_weight, hard_weight, divergence=False):
    """The loss with cross-entropy or KL."""
    if temperature == np.inf:
        difference = z - v
        difference -= difference.mean(axis=1, keepdims=True)
        soft = (difference**2).mean() / 2
    else:
        log_p, log_q = (jax.nn.log_softmax(x / temperature, axis=1) for x in (v, z))
        terms = jnp.exp(log_p) * ((log_p if divergence else 0) - log_q)
        soft = temperature**2 * terms.sum(axis=1).mean()
    hard = optax.softmax_cross_entropy_with_integer_labels(z, y).mean()
    return soft_weight * soft + hard_weight * hard


def flat(params):
    """W0 [inputs, outputs], b0, W1, ... as one array."""
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(params)])


def params_of(arrays, name, widths, dtype):
    """(W [inputs, outputs], b) of each layer of arrays[name...]."""
    of = lambda what: jnp.asarray(arrays[f"{name}layers.{what}"], dtype=dtype)
    return [(of(f"{i}.weight").T, of(f"{i}.bias")) for i in range(len(widths) - 1)]


def optimizer_of(layers, rate, momentum, nesterov, decay):
    return optax.chain(
        optax.add_decayed_weights(decay, [(True, False)] * layers),
        optax.sgd(rate, momentum=momentum, nesterov=nesterov),
    )


def run_views(dtype):
    """A training in which student and teacher see other pixels in every step."""
    arrays = views.task()
    params = params_of(arrays, "student.", views.STUDENT, dtype)
    teacher = params_of(arrays, "teacher.", views.TEACHER, dtype)
    *terms, rate, momentum, nesterov, decay = views.CASE
    optimizer = optimizer_of(len(params), rate, momentum, nesterov, decay)
    state = optimizer.init(params)
    of_params = lambda params, x, v, y: loss(forward(params, x, []), v, y, *terms)
    gradient = jax.value_and_grad(of_params)
    losses, after = [], []
    for pixels, labels in views.batches(arrays):
        pixels = jnp.asarray(pixels, dtype=dtype)
        v = forward(teacher, pixels / 128 - 1, [])
        value, grads = gradient(params, pixels / 256 - 0.5, v, jnp.asarray(labels))
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
        after.append(flat(params))
    return {"views.loss": losses, "views.params": after}


def run(dtype):
    arrays = golden.task()
    real = lambda x: jnp.asarray(x, dtype=dtype)
    x, v, y = real(golden.inputs(arrays)), real(arrays["teacher"]), jnp.asarray(arrays["labels"])
    layers = range(len(golden.WIDTHS) - 1)
    results = {}
    for name, case in golden.CASES.items():
        *terms, rate, momentum, nesterov, decay, dropout = case
        params = params_of(arrays, "", golden.WIDTHS, dtype)
        masks = [real(arrays[f"mask.{i}"]) for i in layers] if dropout else []
        optimizer = optimizer_of(len(params), rate, momentum, nesterov, decay)
        state = optimizer.init(params)
        of_params = lambda params: loss(forward(params, x, masks), v, y, *terms)
        gradient = jax.jit(jax.value_and_grad(of_params))
        for step in range(1, max(golden.CHECKPOINTS) + 1):
            value, grads = gradient(params)
            if step == 1:
                z = forward(params, x, masks)
                results[f"{name}.logits"], results[f"{name}.loss"] = z, [value]
                results[f"{name}.d_logits"] = jax.grad(loss)(z, v, y, *terms)
                results[f"{name}.reducible_loss"] = [loss(z, v, y, *terms, divergence=True)]
                results[f"{name}.grads"] = flat(grads)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            if step in golden.CHECKPOINTS:
                results[f"{name}.params.{step}"] = flat(params)

    many, labels = golden.many()
    cross_entropy = lambda z: optax.softmax_cross_entropy_with_integer_labels(z, labels).mean()
    value, d_logits = jax.value_and_grad(cross_entropy)(real(many))
    results["many.loss"] = [value]
    results["many.d_logits"] = d_logits[:, ::101]
    results["many.d_label"] = d_logits[np.arange(5), labels]
    results |= run_views(dtype)
    versions = {"jax": jax.__version__, "optax": optax.__version__, "numpy": np.__version__}
    versions["python"] = platform.python_version()
    golden.save("jax", np.dtype(dtype).name, arrays, results, versions)


run(np.float64)
run(np.float32)
