#!/usr/bin/env bash
# The wheel that pip installs without Rust, tested in a new virtual environment.
#
#   python/release.sh [FOLDER]       default: dist
#
# One wheel serves every CPython from 3.10 (abi3). With zig as the linker, from its package for pip, it
# runs on every Linux with glibc 2.17 or later (manylinux2014); without zig, on those with at least this
# machine's glibc, as auditwheel then says. MATURIN_ARGS, "--release" if it is not set, may name another
# profile.
set -euo pipefail
cd "$(dirname "$0")"
out=$(realpath -m "${1:-../dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet 'maturin>=1.10,<2' auditwheel
read -ra arguments <<< "${MATURIN_ARGS---release}"
if [ "$(uname)" = Linux ]; then
    if "$work/tools/bin/pip" install --quiet ziglang; then
        arguments+=(--zig --compatibility manylinux2014)
    else
        echo "no zig: the wheel is for this machine's glibc and later ones" >&2
    fi
fi
rm -f "$out"/limbeck-*.whl
PATH="$work/tools/bin:$PATH" "$work/tools/bin/maturin" build --out "$out" "${arguments[@]}"
wheel=$(echo "$out"/limbeck-*.whl)
[ "$(uname)" != Linux ] || "$work/tools/bin/auditwheel" show "$wheel"

# Where there is no Rust: what is installed comes from the wheel alone.
python3 -m venv "$work/clean"
PATH=/usr/bin:/bin "$work/clean/bin/pip" install --quiet --only-binary :all: "$wheel" pytest
"$work/clean/bin/pip" install --quiet safetensors scikit-learn pandas onnx onnxruntime ||
    echo "SKIPPED: tests that need scikit-learn, pandas, onnxruntime or safetensors" >&2
tests=$(realpath tests)
(
    cd "$work" # away from the sources, so that `limbeck` is the wheel's
    clean/bin/python -c 'import limbeck, sys; assert limbeck.__file__.startswith(sys.prefix), limbeck'
    clean/bin/python -m pytest --quiet -p no:cacheprovider "$tests"
)
echo "$wheel"
