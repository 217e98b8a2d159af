#!/usr/bin/env bash
# The kernels under Miri, AddressSanitizer and ThreadSanitizer: tests/sanitizers.sh [WHICH…]
# WHICH is miri, address, thread; all without any. Needs a nightly compiler with the components
# miri and rust-src, and takes hours: not a part of .ci/run.
#
# Miri runs the portable kernels on few sizes and sees every stray access, uninitialised value, bad
# alias and data race. The sanitizers run the compiled kernels of every instruction set: an
# instrumented standard library, or accesses in it would go unseen.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/sanitizers}

# What costs hours here and shows nothing more of memory: every f32, and timings.
slow=(--skip error_is_below --skip the_same_bits_on_every_isa --skip peak::)

run_miri() {
    local flags="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-permissive-provenance"
    # One thread, with the rules of borrowing.
    MIRIFLAGS="$flags -Zmiri-tree-borrows" LIMBECK_GUARD_THREADS=1 \
        cargo +nightly miri test -p limbeck-kernels --test guard
    # Several, without: rayon's scopes break them when they end, our code aside. Stray accesses and
    # data races are seen.
    MIRIFLAGS="$flags -Zmiri-disable-stacked-borrows" LIMBECK_GUARD_THREADS=2 \
        cargo +nightly miri test -p limbeck-kernels --test guard
    # The pool alone, with weak memory: each seed is another order of its threads and of what they read.
    MIRIFLAGS="$flags -Zmiri-disable-stacked-borrows -Zmiri-many-seeds=0..4" \
        cargo +nightly miri test -p limbeck-kernels --lib -- a_map_keeps a_panic_reaches a_pool_is
}

# sanitize NAME TEST…
sanitize() {
    local name=$1
    shift
    RUSTFLAGS="-Zsanitizer=$name" cargo +nightly test -Zbuild-std \
        --target x86_64-unknown-linux-gnu -p limbeck-kernels "$@" -- "${slow[@]}"
}

for which in "${@:-miri address thread}"; do
    for name in $which; do
        echo "== $name"
        case $name in
            miri) run_miri ;;
            address) sanitize address --lib --test guard --test gemm --test softmax --test update ;;
            thread) sanitize thread --lib --test guard ;;
            *) echo "unknown: $name, expected miri, address or thread" >&2 && exit 2 ;;
        esac
    done
done
