#!/usr/bin/env bash
# The commands of docs/own-data.md, as they stand there: from iris.csv and a teacher's logits to predictions, ONNX
# and a report.
# Usage: tests/own_data.sh WORK_DIR   (python3 with numpy, pandas and scikit-learn on the PATH; torch and onnxruntime
# are used where Python has them)
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/program.sh
if ! python3 -c "import numpy, pandas, sklearn" 2> /dev/null; then
    echo "SKIPPED: the commands of docs/own-data.md: pip install numpy pandas scikit-learn" >&2
    exit 0
fi
limbeck=$(realpath "$limbeck")
page=$(realpath docs/own-data.md)
mkdir -p "$1/own-data"
cd "$1/own-data"

python3 - <<'PYTHON'
import numpy as np
import pandas as pd
from sklearn.datasets import load_iris

iris = load_iris(as_frame=True)
frame = iris.data.assign(species=iris.target_names[iris.target])
frame.to_csv("iris.csv", index=False)
frame.drop(columns="species")[::15].to_csv("new.csv", index=False)
x = ((iris.data - iris.data.mean()) / iris.data.std()).to_numpy("float32")
try:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(iris.target.to_numpy())
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    logits = net(inputs).detach().numpy()
except ImportError:
    from sklearn.linear_model import LogisticRegression

    logits = LogisticRegression().fit(x, iris.target).decision_function(x)
np.save("teacher.npy", logits)
PYTHON

# Of the page's first blocks of sh; a comment ends a line.
sed -n '/^```sh/,/^```/{/^```/d;p}' "$page" > commands.sh
lines=$(grep -c '^limbeck ' commands.sh)
if [ "$lines" -gt 8 ]; then
    echo "docs/own-data.md: found $lines commands, expected at most 8" >&2
    exit 1
fi
limbeck() { "$limbeck" "$@" --quiet; }
export -f limbeck
export limbeck
bash -euo pipefail commands.sh

python3 - <<'PYTHON'
import json
import pathlib

import pandas as pd

for run in ["labels", "soft"]:
    row = json.loads(pathlib.Path("runs", run, "summary.json").read_text())["rows"][0]
    # A hold-out of 30; always answering one class makes 20 errors.
    assert row["test_errors"] <= 3, row
answers, new = pd.read_csv("answers.csv"), pd.read_csv("new.csv")
assert list(answers.columns) == ["prediction", "probability"] and len(answers) == len(new)
known = pd.read_csv("iris.csv").species[::15].to_numpy()
assert (answers.prediction.to_numpy() != known).sum() <= 1, answers
assert list(pathlib.Path("runs").glob("*/index.html")), "a page of both runs"
try:
    import onnxruntime
except ImportError:
    print("SKIPPED: the ONNX file: pip install onnxruntime")
else:
    session = onnxruntime.InferenceSession("soft.onnx")
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    logits = session.run(["logits"], {"inputs": new.to_numpy("float32")})[0]
    found = [names[i] for i in logits.argmax(1)]
    assert sum(a != b for a, b in zip(found, known)) <= 1, found
PYTHON
echo "docs/own-data.md: $lines commands, as they stand there"
