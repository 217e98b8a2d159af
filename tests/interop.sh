#!/usr/bin/env bash
# What goes in from NumPy and out to ONNX, PyTorch and TensorBoard, see interop.py.
# Usage: tests/interop.sh WORK_DIR   (python3 with numpy on the PATH)
# pandas, onnxruntime, torch with safetensors, and tensorboard are used where Python has them, and must be there if
# LIMBECK_REQUIRE names them.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/program.sh
mkdir -p "$1/interop"
exec python3 tests/interop.py "$limbeck" "$1/interop"
