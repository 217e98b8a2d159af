#!/usr/bin/env bash
# What goes in from NumPy and out to ONNX, PyTorch and TensorBoard, see interop.py.
# Usage: tests/interop.sh WORK_DIR   (python3 with numpy on the PATH)
# onnxruntime, torch and tensorboard are used where Python has them, and must be there if
# LIMBECK_REQUIRE names them.
set -euo pipefail
cd "$(dirname "$0")/.."
# LIMBECK: the program, where it is built already.
limbeck=${LIMBECK:-}
if [ -z "$limbeck" ]; then
    cargo build --quiet
    limbeck=$(cargo metadata --format-version 1 --no-deps |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/limbeck
fi
mkdir -p "$1/interop"
exec python3 tests/interop.py "$limbeck" "$1/interop"
