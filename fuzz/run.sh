#!/usr/bin/env bash
# Fuzzes every target for MINUTES, as many at once as there are cores, and writes the counts to
# fuzzing.json in LIMBECK_FINDINGS, by default results/fault-injection: fuzz/run.sh MINUTES_PER_TARGET
# Needs a nightly compiler and cargo-fuzz. Input that breaks a reader is left in fuzz/artifacts.
# Without sanitizer: the readers hold no unsafe code; overflow and debug assertions are checked.
set -euo pipefail
minutes=${1:?"usage: fuzz/run.sh MINUTES_PER_TARGET"}
out=$(realpath -m "${LIMBECK_FINDINGS:-$(dirname "$0")/../results/fault-injection}")
cd "$(dirname "$0")"

memory=/dev/shm
[ -d $memory ] || memory=/tmp
TMPDIR=$(mktemp -d "$memory/limbeck-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# The readers' memory and time are bounded too: 256 MiB at once, and four minutes, because the clock
# goes on while the process has to wait for others.
options="-max_total_time=$((60 * minutes)) -max_len=16384 -timeout=240 -rss_limit_mb=1024
    -malloc_limit_mb=256 -print_final_stats=1"
all=$(cargo +nightly fuzz list)

fuzz_all() {
    for target in $all; do
        while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
            wait -n || true
        done
        # shellcheck disable=SC2086
        cargo +nightly fuzz run --sanitizer none "$target" -- $options \
            > "$TMPDIR/$target.log" 2>&1 || touch "$TMPDIR/$target.failed" &
    done
    wait
}

cargo +nightly fuzz build --sanitizer none
TIMEFORMAT='%U %S'
read -r user system < <({ time fuzz_all; } 2>&1 | tail -n 1)

count=0 failures=0 figures=""
for target in $all; do
    log="$TMPDIR/$target.log"
    if [ -e "$TMPDIR/$target.failed" ]; then
        failures=$((failures + 1))
        grep -v '^#\|^stat::' "$log" | tail -n 40 >&2
    fi
    units=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    count=$((count + ${units:-0}))
    figures+="${figures:+, }$target ${units:-0}"
    echo "$target: ${units:-0} inputs"
done

mkdir -p "$out"
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
cat > "$out/fuzzing.json" << JSON
{
  "what": "inputs made by cargo-fuzz read, each within bounds of memory and time",
  "count": $count,
  "failures": $failures,
  "figure": "$(awk "BEGIN { printf \"%.2f\", ($user + $system) / 3600 }") CPU-hours: $figures",
  "command": "fuzz/run.sh $minutes",
  "date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "machine": "$machine"
}
JSON
[ "$failures" = 0 ]
