"""Our training step beside PyTorch's: processes take turns, ratios are paired by round.

Builds nothing. First: cargo build --release --example limbeck_step
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))


def run(command):
    """The JSON object that `command` prints."""
    try:
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")
    if done.returncode != 0:
        sys.exit(f"{command[0]} ended with exit code {done.returncode}")
    return json.loads(done.stdout)


def summary(values, digits):
    low, median, high = min(values), statistics.median(values), max(values)
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limbeck", type=pathlib.Path,
                        default=TARGET / "release" / "examples" / "limbeck_step")
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100, help="timed steps a round")
    parser.add_argument("--tasks", nargs="+", default=["teacher", "student"])
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not args.limbeck.is_file():
        sys.exit(f"{args.limbeck} is missing: cargo build --release --example limbeck_step")

    heading = True
    for task, batch, threads in itertools.product(args.tasks, args.batches, args.threads):
        ours_command = [args.limbeck, task, batch, threads, args.steps]
        theirs_command = [args.python, HERE / "pytorch_step.py", "--tasks", task,
                          "--batches", batch, "--threads", threads, "--steps", args.steps]
        ours, theirs = [], []
        for number in range(args.rounds):
            ours.append(run(ours_command))
            theirs.append(run(theirs_command))
            print(f"{task}, batch {batch}, threads {threads}, round {number + 1} of {args.rounds}: "
                  f"{ours[-1]['ms_per_step']['median']:.2f} and "
                  f"{theirs[-1]['ms_per_step']['median']:.2f} ms", file=sys.stderr)
        medians = [[r["ms_per_step"]["median"] for r in side] for side in (ours, theirs)]
        ratios = [their / our for our, their in zip(*medians)]
        gflops = ours[0]["gflop_per_step"] * 1e3 / statistics.median(medians[0])
        if heading:
            print(f"{ours[0]['cpu']}; {ours[0]['version']} ({ours[0]['isa']}); "
                  f"{theirs[0]['version']}\n{args.rounds} rounds of {args.steps} steps; "
                  "median (min–max) of the rounds' medians\n")
            print("| net | batch | threads | limbeck ms/step | GFLOP/s | PyTorch ms/step "
                  "| PyTorch / limbeck |")
            print("|---|---|---|---|---|---|---|")
            heading = False
        print(f"| {task} {ours[0]['net']} | {batch} | {threads} | {summary(medians[0], 2)} "
              f"| {gflops:.0f} | {summary(medians[1], 2)} | {summary(ratios, 2)} |", flush=True)


if __name__ == "__main__":
    main()
