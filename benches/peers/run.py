"""Our training step beside PyTorch's and JAX's: processes take turns, ratios are paired by round.

First all must find the same losses in three steps without dropout from the same weights on the
same batch. Builds nothing: cargo build --release
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))
NETS = {"teacher": "784-1200-1200-10", "student": "784-800-800-10"}
OURS_F32 = "limbeck f32"
PEERS = {"PyTorch": "pytorch_step.py", "JAX": "jax_step.py"}
# The sums run in another order; a wrong loss or gradient is off by far more. In bf16 operands are
# rounded to 8 bits, at other places in each.
TOLERANCE = {"f32": 1e-4, "bf16": 2e-2}


def run(command):
    """The JSON object that `command` prints."""
    try:
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")
    if done.returncode != 0:
        sys.exit(f"{command[0]} ended with exit code {done.returncode}")
    return json.loads(done.stdout)


def check_losses(peer, task, ours, theirs, tolerance):
    for number, (our, their) in enumerate(zip(ours, theirs, strict=True), 1):
        if abs(our - their) > tolerance * abs(our):
            sys.exit(f"{task}, step {number}: our loss is {our}, {peer}'s {their}")


def summary(values, digits):
    low, median, high = min(values), statistics.median(values), max(values)
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limbeck", type=pathlib.Path, default=TARGET / "release" / "limbeck")
    parser.add_argument("--python", default=sys.executable, help="one that has the peers")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100, help="timed steps a round")
    parser.add_argument("--tasks", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--precision", choices=TOLERANCE, default="f32",
                        help="of the products' operands; in bf16 our f32 step takes turns too")
    parser.add_argument("--json", type=pathlib.Path, help="also write every figure to this file")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not args.limbeck.is_file():
        sys.exit(f"{args.limbeck} is missing: cargo build --release")

    heading, results = True, []
    for task, batch, threads in itertools.product(args.tasks, args.batches, args.threads):
        options = ["--task", task, "--batch", batch, "--threads", threads, "--steps", args.steps]
        ours_command = [args.limbeck, "bench", "step", "--net", NETS[task], "--json", *options]
        in_precision = [*ours_command, "--precision", args.precision]
        commands = {p: [args.python, HERE / PEERS[p], *options, "--precision", args.precision]
                    for p in args.peers}
        if args.precision != "f32":
            commands = {OURS_F32: ours_command, **commands}

        with tempfile.TemporaryDirectory() as folder:
            run([*ours_command, "--case", folder])
            losses = json.loads((pathlib.Path(folder) / "case.json").read_text())["losses"]
            for peer in args.peers:
                found = run([*commands[peer], "--case", folder])["case_losses"]
                check_losses(peer, task, losses, found, TOLERANCE[args.precision])

        ours, theirs = [], {peer: [] for peer in commands}
        for number in range(args.rounds):
            ours.append(run(in_precision))
            for peer, command in commands.items():
                theirs[peer].append(run(command))
            times = [ours[-1], *(runs[-1] for runs in theirs.values())]
            times = ", ".join(f"{r['ms_per_step']['median']:.2f}" for r in times)
            print(f"{task}, batch {batch}, threads {threads}, round {number + 1} of "
                  f"{args.rounds}: {times} ms", file=sys.stderr)

        if heading:
            versions = [f"limbeck {run([args.limbeck, 'info', '--json'])['version']}",
                        *(theirs[peer][0]["version"] for peer in args.peers)]
            print(f"{ours[0]['cpu']}, {ours[0]['isa']}; {', '.join(versions)}\n"
                  f"{args.rounds} rounds of {args.steps} steps; median (min–max) of the rounds' "
                  f"medians; {args.precision}, the same losses to {TOLERANCE[args.precision]:g} "
                  "without dropout\n")
            print("| net | batch | threads | limbeck ms | share of FMA peak |"
                  + "".join(f" {peer} ms | {peer} / limbeck |" for peer in commands))
            print("|---|---|---|---|---|" + "---|---|" * len(commands))
            heading = False
        medians = [r["ms_per_step"]["median"] for r in ours]
        shares = [100 * r["fraction_of_peak"] for r in ours]
        row = f"| {task} {NETS[task]} | {batch} | {threads} | {summary(medians, 2)} "
        row += f"| {summary(shares, 0)} % |"
        for runs in theirs.values():
            times = [r["ms_per_step"]["median"] for r in runs]
            ratios = [their / our for our, their in zip(medians, times)]
            row += f" {summary(times, 2)} | {summary(ratios, 2)} |"
        print(row, flush=True)
        results.append({"task": task, "batch": batch, "threads": threads, "limbeck": ours,
                        **theirs})
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
