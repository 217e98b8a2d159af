"""Runs limbeck.check_loss over distillation losses that people install or copy.

    python results/audit/audit.py

writes verdicts.json, cases/*.safetensors and README.md beside itself. A package that is not installed
keeps its row of the last run, so that one environment need not hold them all.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

import limbeck
from losses import ENTRIES, Entry
from page import page

HERE = Path(__file__).parent
CASES = HERE / "cases"


def run(one: Entry) -> dict[str, Any] | None:
    """The row of an entry; None where its package is not installed."""
    version = ""
    if not one.source:
        try:
            version = importlib.metadata.version(one.project)
        except importlib.metadata.PackageNotFoundError:
            return None
    fn = one.build(one.temperature)
    case = CASES / f"{one.name}.safetensors"
    case.unlink(missing_ok=True)
    report = limbeck.check_loss(fn, temperature=one.temperature, save=case, **one.contract)
    return {
        "project": one.project,
        "version": version,
        "function": one.function,
        "how": "formula" if one.source else "import",
        "source": one.source,
        "does": one.does,
        "differs": one.differs,
        "contract": {"temperature": one.temperature, **one.contract},
        "ok": report.ok,
        "mistakes": list(report.mistakes),
        "message": report.message,
        "teacher_gradient": report.teacher_gradient,
        "inputs": {case.name: case.verdict for case in report.cases},
        "case": f"cases/{one.name}.safetensors" if case.exists() else None,
    }


def main() -> None:
    CASES.mkdir(exist_ok=True)
    path = HERE / "verdicts.json"
    before = json.loads(path.read_text(encoding="utf-8"))["losses"] if path.exists() else {}
    losses = {}
    for one in ENTRIES:
        row = run(one)
        if row is None:
            print(f"{one.name}: {one.project} is not installed", file=sys.stderr)
            row = before.get(one.name)
        if row is not None:
            losses[one.name] = row
            print(f"{one.name}: {row['message']}")
    about = {
        "date": date.today().isoformat(),
        "limbeck": limbeck.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}, CPU",
    }
    found = {"about": about, "losses": losses}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (HERE / "README.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
