"""The audit of results/audit: its cases still have the verdicts that its page says."""

import json
import sys
from pathlib import Path

import pytest

import limbeck

AUDIT = Path(__file__).parents[2] / "results" / "audit"
FOUND = json.loads((AUDIT / "verdicts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FOUND["losses"])
def test_a_case_has_its_verdict(name):
    row = FOUND["losses"][name]
    answer = limbeck.check_case(AUDIT / row["case"])
    assert (answer["verdict"] == "agrees") == row["ok"], answer
    assert answer["mistakes"] == row["mistakes"], answer


def test_the_page_is_that_of_the_verdicts(monkeypatch):
    monkeypatch.syspath_prepend(AUDIT)
    from page import page

    assert (AUDIT / "README.md").read_text(encoding="utf-8") == page(FOUND)
    sys.modules.pop("page")
