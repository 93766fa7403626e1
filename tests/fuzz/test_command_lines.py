"""No fuzzed command line ends in a traceback, in an "unexpected" error, or well without a report."""

from __future__ import annotations

import pytest
from fuzz.run import summary

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_200_in_this_process():
    assert summary(range(200))["faults"] == []


def test_some_as_the_shell_runs_them():
    assert summary(range(5000, 5016), isolated=True)["faults"] == []
