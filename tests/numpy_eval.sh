#!/usr/bin/env bash
# Trains a small model on MNIST, evaluates it with the binary and with NumPy, and compares.
# Usage: tests/numpy_eval.sh WORK_DIR   (LIMBECK_DATA set; python3 with numpy on the PATH)
set -euo pipefail
cd "$(dirname "$0")/.."
work=$1
. tests/program.sh

cat > "$work/config.toml" <<'TOML'
[data]
train_limit = 5000
[model]
layers = [784, 100, 50, 10]
[training]
epochs = 2
optimizer = "adam"
learning_rate = 0.001
TOML

limbeck train "$work/config.toml" --out "$work/run" --quiet
model="$work/run/models/model-0.safetensors"
ours=$(limbeck eval "$model" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["errors"])')
numpy=$(python3 tests/numpy_eval.py "$model" "$LIMBECK_DATA/mnist")
echo "errors by limbeck eval: $ours, by NumPy: $numpy"
[ "$ours" = "$numpy" ]
