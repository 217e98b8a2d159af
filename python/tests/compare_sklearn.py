"""The default classifiers against scikit-learn's, on its own data sets.

    python python/tests/compare_sklearn.py [--short] [--out results/own-data]

1. LimbeckClassifier() against make_pipeline(StandardScaler(), MLPClassifier(max_iter=2000)), everything
   else at its default: errors on the test examples of stratified splits, 70/30, of the seeds 0 to 4.
2. A student of 16 hidden units distilled from a teacher of 256 against the same student on labels, on
   the splits of 40 seeds: McNemar's exact test over all their test examples, and, since an example is
   tested in several splits, a sign test over the seeds.
3. The same where only a fifth of the training examples is labelled: on these teacher and rival learn,
   and the student from what the teacher says of all.

The defaults were chosen by cross-validation in the training parts, never on test examples. --short takes
fewer seeds and writes nothing; it fails where the first comparison is lost on some data set.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more only wait for each other on such small data

import numpy as np

import limbeck

try:
    import sklearn
    from sklearn.datasets import load_breast_cancer, load_digits, load_wine
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
except ImportError:
    sys.exit(print("SKIPPED: the comparison with scikit-learn: pip install scikit-learn"))

SETS = {"wine": load_wine, "digits": load_digits, "breast_cancer": load_breast_cancer}


def split(name, seed):
    x, y = SETS[name](return_X_y=True)
    return train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)


def wrong(model, x, y):
    return model.predict(x) != y


def two_sided(fewer, more):
    """The exact test of 'as often the one as the other'."""
    n, k = fewer + more, min(fewer, more)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)


def against_mlp(name, seeds):
    rows = []
    for seed in seeds:
        x, x_test, y, y_test = split(name, seed)
        mlp = make_pipeline(StandardScaler(), MLPClassifier(max_iter=2000, random_state=seed))
        begun = time.perf_counter()
        theirs = wrong(mlp.fit(x, y), x_test, y_test).sum()
        between = time.perf_counter()
        ours = wrong(limbeck.LimbeckClassifier(random_state=seed).fit(x, y), x_test, y_test).sum()
        rows.append((ours, theirs, time.perf_counter() - between, between - begun))
    ours, theirs, seconds, their_seconds = np.array(rows).T
    return {
        "data": name,
        "seeds": len(rows),
        "test_examples": len(y_test),
        "limbeck_errors": ours.astype(int).tolist(),
        "mlp_errors": theirs.astype(int).tolist(),
        "limbeck_mean_percent": round(100 * ours.mean() / len(y_test), 3),
        "mlp_mean_percent": round(100 * theirs.mean() / len(y_test), 3),
        "limbeck_seconds": round(float(np.median(seconds)), 3),
        "mlp_seconds": round(float(np.median(their_seconds)), 3),
    }


def distilled(name, seeds, labelled):
    rows = []
    for seed in seeds:
        x, x_test, y, y_test = split(name, seed)
        x_labelled, y_labelled = x, y
        if labelled < 1:
            x_labelled, _, y_labelled, _ = train_test_split(
                x, y, train_size=labelled, stratify=y, random_state=seed)
        teacher = limbeck.LimbeckClassifier(256, random_state=seed).fit(x_labelled, y_labelled)
        student = limbeck.DistilledClassifier(teacher, hidden_layer_sizes=16, random_state=seed)
        student.fit(x, y if labelled == 1 else None)
        on_labels = limbeck.LimbeckClassifier(16, random_state=seed).fit(x_labelled, y_labelled)
        a, b = wrong(student, x_test, y_test), wrong(on_labels, x_test, y_test)
        counts = (wrong(teacher, x_test, y_test), a, b, b & ~a, a & ~b)
        rows.append([int(count.sum()) for count in counts])
    teacher, student, labels, only_labels, only_student = np.array(rows).T
    better, worse = int((student < labels).sum()), int((student > labels).sum())
    percent = lambda errors: round(100 * errors.mean() / len(y_test), 3)
    return {
        "data": name,
        "labelled": labelled,
        "seeds": len(rows),
        "test_examples": len(y_test),
        "teacher_256_mean_percent": percent(teacher),
        "distilled_16_mean_percent": percent(student),
        "labels_16_mean_percent": percent(labels),
        "only_labels_wrong": int(only_labels.sum()),
        "only_distilled_wrong": int(only_student.sum()),
        "mcnemar_p": two_sided(int(only_student.sum()), int(only_labels.sum())),
        "seeds_better_equal_worse": [better, len(rows) - better - worse, worse],
        "sign_test_p": two_sided(worse, better),
    }


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--short", action="store_true", help="fewer seeds, nothing written")
    options.add_argument("--out", type=Path, default=Path("results/own-data"))
    options = options.parse_args()
    warnings.simplefilter("ignore")
    print(f"limbeck {limbeck.__version__}, scikit-learn {sklearn.__version__}")
    print(f"\n{'mean test error':16}{'Limbeck':>10}{'MLP':>10}{'seconds':>12}{'MLP':>8}")
    defaults = []
    for name in SETS:
        row = against_mlp(name, range(5))
        defaults.append(row)
        ours, theirs = row["limbeck_mean_percent"], row["mlp_mean_percent"]
        seconds = f"{row['limbeck_seconds']:12.2f}{row['mlp_seconds']:8.2f}"
        print(f"{name:16}{ours:8.2f} %{theirs:8.2f} %{seconds}", flush=True)
    students = []
    for labelled in (1, 0.2):
        print(f"\n{labelled:.0%} labelled{'':4}{'teacher 256':>12}{'labels 16':>11}{'distilled 16':>13}"
              f"{'McNemar':>18}{'better/worse':>14}")
        for name in SETS:
            row = distilled(name, range(5 if options.short else 40), labelled)
            students.append(row)
            errors = [row[k] for k in ("teacher_256_mean_percent", "labels_16_mean_percent",
                                       "distilled_16_mean_percent")]
            shown = "".join(f"{e:{w}.2f} %" for e, w in zip(errors, (10, 9, 11)))
            pairs = f"{row['only_labels_wrong']}:{row['only_distilled_wrong']}"
            better, _, worse = row["seeds_better_equal_worse"]
            print(f"{name:16}{shown}{pairs:>9} p={row['mcnemar_p']:.1e}{better:8}/{worse}", flush=True)
    if not options.short:
        options.out.mkdir(parents=True, exist_ok=True)
        about = {"limbeck": limbeck.__version__, "scikit_learn": sklearn.__version__,
                 "numpy": np.__version__, "python": platform.python_version()}
        for file, rows in [("defaults.json", defaults), ("students.json", students)]:
            text = json.dumps({"versions": about, "rows": rows}, indent=1)
            (options.out / file).write_text(text + "\n")
    lost = [row["data"] for row in defaults
            if row["limbeck_mean_percent"] > row["mlp_mean_percent"]]
    if lost:
        sys.exit(f"more errors than MLPClassifier with a StandardScaler on {', '.join(lost)}")


if __name__ == "__main__":
    main()
