"""One's own data and one's own teacher in, our models and runs out to other tools.

Usage: python3 interop.py LIMBECK WORK_DIR   (numpy; pandas, onnxruntime, torch with safetensors and
tensorboard where installed)

NumPy writes images and features and the logits of a teacher; limbeck distils; what it exports is
asked by onnxruntime, PyTorch and TensorBoard and must say what limbeck says.
"""

import importlib
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np

# Logits of other programs: the order of the sums differs.
TOLERANCE = 1e-4
CLASSES, SIDE, FEATURES = 4, 6, 5


def module(name):
    """The module, or None with a line that says what is skipped."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if name in os.environ.get("LIMBECK_REQUIRE", "").split(","):
            raise
        print(f"SKIPPED: what needs {name}: pip install {name}", file=sys.stderr)
        return None


def limbeck(*arguments):
    """The JSON object that the command prints."""
    command = [LIMBECK, *map(str, arguments), "--json", "--quiet"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def config(name, data, inputs, more=""):
    path = WORK / f"{name}.toml"
    path.write_text(
        f"[data]\nclasses = {CLASSES}\n{data}\n"
        f"[model]\nlayers = [{inputs}, 24, 16, {CLASSES}]\ndropout = [0.1, 0.2, 0.2]\n"
        f"[training]\nepochs = 12\nbatch_size = 32\noptimizer = 'adam'\nlearning_rate = 0.005\n"
        + more
    )
    return path


def near(name, found, expected):
    assert found.shape == expected.shape, (name, found.shape, expected.shape)
    worst = float(np.abs(found - expected).max())
    assert worst <= TOLERANCE, (name, worst)
    print(f"{name}: the largest difference of {expected.size} logits is {worst:.1e}")


def examples(random, n):
    """Images and features around a centre for each class, and its labels."""
    y = random.integers(0, CLASSES, n)
    images = np.full((n, SIDE, SIDE), 30) + random.integers(0, 60, (n, SIDE, SIDE))
    images[np.arange(n), y % SIDE] += 120
    centres = np.eye(CLASSES, FEATURES) * 2
    return images.astype(np.uint8), centres[y] + random.normal(0, 0.6, (n, FEATURES)), y


def distilled():
    """Runs on images and on features, from the logits of a nearest-centre teacher: for each the
    model, the inputs as others take them and our logits, all of the test set."""
    random = np.random.default_rng(8)
    train, test = examples(random, 600), examples(random, 200)
    np.savez_compressed(
        WORK / "images.npz", x_train=train[0], y_train=train[2], x_test=test[0], y_test=test[2]
    )
    for name, (_, x, y) in [("train", train), ("test", test)]:
        header = ",".join([f"f{i}" for i in range(FEATURES)] + ["label"])
        rows = np.column_stack([x, y])
        form = ["%.9g"] * FEATURES + ["%d"]
        np.savetxt(WORK / f"{name}.csv", rows, fmt=form, delimiter=",", header=header, comments="")
    centres = np.stack([train[1][train[2] == c].mean(axis=0) for c in range(CLASSES)])
    np.save(WORK / "teacher.npy", -((train[1][:, None] - centres) ** 2).sum(axis=2))

    soft = "[distillation]\nteacher_logits = 'teacher.npy'\ntemperature = 3.0\nhard_weight = 0.1\n"
    own = {
        "images": (
            config("images", "dataset = 'npz'\narrays = 'images.npz'", SIDE * SIDE, soft),
            test[0].reshape(len(test[0]), -1).astype(np.float32),
        ),
        "features": (
            config(
                "features",
                "dataset = 'csv'\ntrain_table = 'train.csv'\ntest_table = 'test.csv'",
                FEATURES,
                soft,
            ),
            test[1].astype(np.float32),
        ),
    }
    runs = {}
    for name, (path, inputs) in own.items():
        run = WORK / name
        report = limbeck("distill", path, "--out", run)
        assert report["test_errors"] < len(inputs) / 10, report
        model = run / report["model"]
        logits, judged = ours(name, model, path)
        wrong = (logits.argmax(axis=1) != test[2]).nonzero()[0]
        assert wrong.tolist() == judged["misclassified"], "the logits are those that were judged"
        runs[name] = (path, model, inputs, logits)
    return runs


def ours(name, model, path):
    """The model's logits on the test set, and what `eval` says of them."""
    file = WORK / f"{name}-logits.npy"
    judged = limbeck("eval", model, "--config", path, "--logits", file)
    return np.load(file), judged


def onnx(name, model, inputs, logits):
    onnxruntime = module("onnxruntime")
    if not onnxruntime:
        return
    file = WORK / f"{name}.onnx"
    assert limbeck("export", model, "--onnx", file)["files"] == [str(file)]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    ask = lambda x: session.run(["logits"], {"inputs": x})[0]
    near(f"{name} in onnxruntime", ask(inputs), logits)
    near(f"{name} in onnxruntime, one at a time", ask(inputs[:1]), logits[:1])


def pytorch(path, model, inputs, logits):
    """Into a ModuleList by our names, into a Sequential by its own, and a Sequential back to us."""
    torch = module("torch")
    if not torch:
        return
    data = model.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    tensors = {}
    for key, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[start:end], "<f4").reshape(entry["shape"])
        tensors[key] = torch.from_numpy(values.copy())

    widths = [inputs.shape[1], 24, 16, CLASSES]
    linear = lambda: [torch.nn.Linear(m, n) for m, n in zip(widths, widths[1:])]
    net = torch.nn.Module()
    net.layers = torch.nn.ModuleList(linear())
    assert list(net.state_dict()) == list(tensors), "the order of a state_dict"
    net.load_state_dict(tensors, strict=True)

    def sequential():
        first, second, third = linear()
        return torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU(), third)

    def renamed(key):
        _, layer, part = key.split(".")
        return f"{2 * int(layer)}.{part}"

    net = sequential()
    net.load_state_dict({renamed(key): value for key, value in tensors.items()}, strict=True)
    scale, shift = float(metadata["input_scale"]), float(metadata["input_shift"])
    with torch.no_grad():
        x = torch.from_numpy(inputs) * scale + shift
        near("images in PyTorch", net(x).numpy(), logits)

        # A net of PyTorch's, with a shift, as one of ours.
        torch.manual_seed(3)
        net = sequential()
        near_zero = torch.from_numpy(inputs) * (2 / 255) - 1
        expected = net(near_zero).numpy()
    header, body = {"__metadata__": {
        "format": "limbeck-mlp/1", "activation": "relu", "classes": str(CLASSES),
        "input_scale": repr(2 / 255), "input_shift": "-1",
    }}, b""
    for key, value in net.state_dict().items():
        layer, part = key.split(".")
        bytes_ = value.numpy().astype("<f4").tobytes()
        offsets = [len(body), len(body) + len(bytes_)]
        header[f"layers.{int(layer) // 2}.{part}"] = {
            "dtype": "F32", "shape": list(value.shape), "data_offsets": offsets,
        }
        body += bytes_
    text = json.dumps(header).encode()
    theirs = WORK / "torch.safetensors"
    theirs.write_bytes(struct.pack("<Q", len(text)) + text + body)
    logits, _ = ours("torch", theirs, path)
    near("PyTorch's net in limbeck", logits, expected)
    onnx("PyTorch's net", theirs, inputs, expected)


def tensorboard(run):
    if not module("tensorboard"):
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = WORK / "events"
    limbeck("export", run, "--tensorboard", out)
    events = EventAccumulator(str(out / "student-0"))
    events.Reload()
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = {
        "train/loss": lambda e: e["loss"],
        "train/reducible_loss": lambda e: e["reducible_loss"],
        "train/error_rate": lambda e: e["train_errors"] / e["examples"],
        "learning_rate": lambda e: e["learning_rate"],
        "samples_per_second": lambda e: e["samples_per_second"],
    }
    assert sorted(events.Tags()["scalars"]) == sorted(expected), events.Tags()
    for tag, value in expected.items():
        found = [(scalar.step, np.float32(scalar.value)) for scalar in events.Scalars(tag)]
        assert found == [(e["epoch"], np.float32(value(e))) for e in epochs], (tag, found)
    times = [scalar.wall_time for scalar in events.Scalars("train/loss")]
    seconds = [e["seconds"] for e in epochs]
    np.testing.assert_allclose(np.diff(times), np.diff(seconds), atol=1e-5)
    print(f"TensorBoard: {len(epochs)} epochs of {len(expected)} tags as in metrics.jsonl")


def same_examples():
    """The same examples, however NumPy and pandas write them down, make the same model."""
    random = np.random.default_rng(5)
    _, x, y = examples(random, 120)
    x = np.round(x * 64).astype(np.int64)  # exact in every type from f16 on
    models = {}

    def train(name, data):
        path = WORK / f"same-{name}.toml"
        path.write_text(
            f"[data]\n{data}\nholdout = 40\n[model]\nhidden = [8]\n"
            "[training]\nepochs = 20\nbatch_size = 16\nlearning_rate = 0.05\n"
        )
        models[name] = limbeck("train", path, "--out", WORK / f"same-{name}")["sha256"]

    def arrays(name, x, y):
        np.savez(WORK / f"{name}.npz", X=x, y=y)
        train(name, f"arrays = '{name}.npz'")

    for code in ["f2", "f4", "f8", "i2", "i4", "i8", ">f2", ">f4", ">f8", ">i4"]:
        arrays(f"x-{code.replace('>', 'big-')}", x.astype(code), y)
    arrays("fortran", np.asfortranarray(x.astype("f4")), y)
    arrays("sliced", x.astype("f8")[:, ::-1][:, ::-1], y[:, None])
    for code in ["u1", "i1", ">i2", "u8", "f2", ">f8", "U1", ">U3", "S1"]:
        arrays(f"y-{code.replace('>', 'big-')}", x, y.astype(code))
    arrays("one-hot", x, np.eye(CLASSES)[y])
    arrays("named-from-7", x, y + 7)
    words = np.array(["ant", "bée", "cow", "dog"])[y]
    arrays("words", x, words)

    pandas = module("pandas")
    if pandas:
        table = pandas.DataFrame(x, columns=[f"f{i}" for i in range(FEATURES)])
        for name, labels in [("digits", y), ("floats", y + 0.0), ("from-1", y + 1), ("texts", words)]:
            labelled = table.assign(target=labels)
            labelled.to_csv(WORK / f"t-{name}.csv", index=False)
            train(f"t-{name}", f"train_table = 't-{name}.csv'")
        variants = {
            "index": {},
            "semicolon": dict(index=False, sep=";"),
            "tab": dict(index=False, sep="\t"),
            "quoted": dict(index=False, quoting=2),
            "crlf": dict(index=False, lineterminator="\r\n"),
            "bom": dict(index=False, encoding="utf-8-sig"),
            "bare": dict(index=False, header=False),
        }
        for name, how in variants.items():
            labelled.to_csv(WORK / f"t-{name}.csv", **how)
            train(f"t-{name}", f"train_table = 't-{name}.csv'")
        labelled.to_csv(WORK / "t.csv.gz", index=False)
        train("t-gz", "train_table = 't.csv.gz'")
        # Rows that lack a value, and columns that are none of ours.
        holes = pandas.concat([labelled, labelled.head(3).assign(f1=np.nan)], ignore_index=True)
        holes.assign(name="a b").to_csv(WORK / "t-holes.csv", index=False)
        train(
            "t-holes",
            "train_table = 't-holes.csv'\ndrop_incomplete_rows = true\nignore_columns = ['name']\n"
            "label_column = -2",
        )
    assert len(set(models.values())) == 1, models
    print(f"the same examples in {len(models)} forms make the same model")


def weights():
    """A net that PyTorch saves in other types is the one that its rounded weights are."""
    torch = module("torch")
    if not (torch and module("safetensors")):
        return
    from safetensors.torch import save_file

    torch.manual_seed(4)
    net = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 7), torch.nn.ReLU(), torch.nn.Linear(7, CLASSES)
    )
    path = WORK / "features.toml"
    inputs = torch.from_numpy(RUNS["features"][2])
    for kind in [torch.float32, torch.float16, torch.bfloat16, torch.float64]:
        state = {key: value.to(kind) for key, value in net.state_dict().items()}
        file = WORK / f"net-{str(kind)[6:]}.safetensors"
        save_file(state, file)
        rounded = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 7), torch.nn.ReLU(), torch.nn.Linear(7, CLASSES)
        )
        rounded.load_state_dict({key: value.float() for key, value in state.items()})
        with torch.no_grad():
            near(f"weights in {kind}", ours(file.stem, file, path)[0], rounded(inputs).numpy())


LIMBECK, WORK = sys.argv[1], pathlib.Path(sys.argv[2])
same_examples()
RUNS = distilled()
weights()
for NAME, (_, MODEL, INPUTS, LOGITS) in RUNS.items():
    onnx(NAME, MODEL, INPUTS, LOGITS)
pytorch(*RUNS["images"])
tensorboard(WORK / "images")
