"""The table of rows is complete, and every test that it names exists."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

TABLE = Path(__file__).parent.parent / "contract_rows.py"


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("contract_rows", TABLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_rows_are_1_to_57_with_text_and_sources(table):
    assert [row.number for row in table.ROWS] == list(range(1, 58))
    for row in table.ROWS:
        assert row.text
        assert row.sources
        assert set(row.sources) <= {"blog", "keras-3.6", "tf-1.4"}


def test_no_row_waits(table):
    assert [row.number for row in table.ROWS if row.status == "later"] == []
    assert all(bool(row.tests) == (row.status == "tested") for row in table.ROWS)


def test_every_test_of_a_row_exists(table):
    existing = {
        f"{path.name}::{node.name}"
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    named = {test for row in table.ROWS for test in row.tests}
    assert named - existing == set()


def test_a_row_names_each_test_once(table):
    for row in table.ROWS:
        assert len(set(row.tests)) == len(row.tests)


def test_outcomes_are_noted_by_function(table):
    outcomes = table.Outcomes()

    class Report:
        nodeid, when, passed = "tests/contract/test_x.py::test_y[a::b/c]", "call", True

    outcomes.pytest_runtest_logreport(Report)
    Report.when, Report.passed = "setup", False
    outcomes.pytest_runtest_logreport(Report)
    assert dict(outcomes.found) == {"test_x.py::test_y": [True, False]}
