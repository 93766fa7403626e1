"""The pytest plugin, each time in a pytest of its own: what it costs unused, what it says, and that it keeps to pytest's rules."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from support import installation

pytest_plugins = ["pytester"]

PAGE = installation.ROOT / "docs/recipes/ci.md"


@pytest.fixture
def inner(pytester, monkeypatch, tmp_path):
    """A pytest that finds initdiag and its entry point, installed or not."""
    monkeypatch.setenv("PYTHONPATH", installation.python_path(tmp_path))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(net=NET)
    return pytester


NET = """
    import torch
    from torch import nn

    def build(depth=1, init=None):
        torch.manual_seed(0)
        layers = [m for _ in range(depth) for m in (nn.Linear(32, 32), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(32, 4))

    def deep():
        return build(15)

    def deeper():
        return build(20)

    def wide():
        return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
"""

STRICT = ("-p", "no:cacheprovider", "--strict-markers", "--strict-config", "-W", "error")

TABLE = """
    [tool.initdiag]
    draws = 32
    models = ["net.py:build", {target = "net.py:deep", module = "0"}, "net.py:deep"]
"""


@pytest.mark.slow
def test_the_fixture(inner):
    inner.makepyprojecttoml("[tool.initdiag]\ndraws = 40\nthresholds = {max_risk = 0.25}\n")
    inner.makepyfile(
        test_net="""
        import pytest
        import torch
        import net

        def test_healthy(initdiag_check):
            report = initdiag_check(net.build(), torch.ones(2, 32))
            assert report.ok and report.thresholds.max_risk == 0.25 and report.measurement.draws == 20

        def test_deep(initdiag_check):
            initdiag_check(net.deep, draws=16)

        pytestmark = pytest.mark.initdiag(draws=20, seed=7)

        @pytest.mark.initdiag(draws=24)
        def test_marker(initdiag_check):
            report = initdiag_check(net.build())
            assert (report.measurement.draws, report.measurement.seed) == (24, 7)
            assert initdiag_check(net.build(), draws=28).measurement.draws == 28

        @pytest.mark.initdiag(fail_on="never", ignore=["IND001", "IND012"])
        def test_never(initdiag_check):
            report = initdiag_check(net.deep())
            assert report.verdict.is_at_risk and not report.findings

        def test_wrong(initdiag_check):
            with pytest.raises(ValueError, match="expected"):
                initdiag_check("no model")

        @pytest.mark.initdiag("adam")
        def test_positional(initdiag_check):
            initdiag_check(net.build())
        """
    )
    snippet = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert snippet is not None
    inner.makepyfile(test_of_the_page=snippet[1])
    result = inner.runpytest_subprocess(*STRICT, "--junit-xml=junit.xml")
    result.assert_outcomes(passed=5, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*Sequential: VANISHING, risk * % (SGD)*",
            "*to change: nn.init.kaiming_normal_(*",
            "*What to do*",
        ]
    )
    result.stdout.fnmatch_lines(["*the initdiag marker takes keywords only, got ('adam',)*"])
    failure = re.search(r"_+ test_deep _+\n(.*?)\n_+ test", str(result.stdout), re.S)
    assert failure is not None
    assert re.search(r"site-packages|initdiag/\w+\.py|Traceback", failure[1]) is None
    properties = _properties(inner.path / "junit.xml")
    assert properties["test_deep"]["initdiag/verdict"] == "VANISHING"
    assert float(properties["test_deep"]["initdiag/risk_sgd"]) > 0.5
    assert float(properties["test_healthy"]["initdiag/ok"]) == 1.0
    assert properties["test_wrong"] == {}


def _properties(path: Path) -> dict[str, dict[str, str]]:
    cases = ET.parse(path).iter("testcase")
    return {
        case.attrib["name"]: {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        for case in cases
    }


@pytest.mark.slow
def test_the_configured_models_are_tests_with_xdist_a_baseline_and_warnings_as_errors(inner):
    deep = {
        "verdict": "VANISHING",
        "risk": {"sgd": 1.0, "adam": 1.0},
        "findings": ["IND001", "IND012"],
    }
    baseline = {"initdiag_baseline": 1, "models": {"net.py:deep": deep}}
    (inner.path / "base.json").write_text(json.dumps(baseline), encoding="utf-8")
    settings = '    baseline = "base.json"\n    [tool.pytest.ini_options]\n    filterwarnings = ["error"]\n'
    inner.makepyprojecttoml(
        TABLE.replace('"net.py:deep"]', '"net.py:deep", "net.py:deeper"]') + settings
    )
    inner.makepyfile(test_other="def test_other(): pass")
    result = inner.runpytest_subprocess(
        *STRICT, "--initdiag", "-v", "-n", "1", "--junit-xml=junit.xml"
    )
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines_random(
        [
            "*PASSED pyproject.toml::net.py:build*",
            "*PASSED pyproject.toml::net.py:deep[[]0]*",
            "*PASSED pyproject.toml::net.py:deep*",
            "*FAILED pyproject.toml::net.py:deeper*",
            "net.py:deeper: VANISHING, risk * % (SGD)*",
            "    to change: nn.init.kaiming_normal_(*",
        ]
    )
    properties = _properties(inner.path / "junit.xml")
    assert (
        properties["net.py:deep"]["initdiag/verdict"]
        == properties["net.py:deeper"]["initdiag/verdict"]
        == "VANISHING"
    )
    assert "initdiag/predicted_log_variance" in properties["net.py:build"]
    assert properties["test_other"] == {}


@pytest.mark.parametrize(
    ("arguments", "collected"),
    [
        (("--initdiag", "-m", "initdiag"), ["pyproject.toml::net.py:build", "pyproject.toml::net.py:deep", "pyproject.toml::net.py:deep[0]"]),
        (("--initdiag", "pyproject.toml::net.py:deep[0]"), ["pyproject.toml::net.py:deep[0]"]),
        (("--initdiag", ".", "-k", "not net.py:deep"), ["pyproject.toml::net.py:build", "test_other.py::test_other"]),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_they_are_chosen_as_any_test(inner, arguments, collected):
    inner.makepyprojecttoml(TABLE)
    inner.makepyfile(test_other="def test_other(): pass")
    result = inner.runpytest_subprocess(*STRICT, "--collect-only", "-q", *arguments)
    assert sorted(line for line in result.outlines if "::" in line) == collected


@pytest.mark.slow
def test_errors_of_configuration(inner):
    inner.makepyfile(test_other="def test_other(): pass")
    inner.makepyprojecttoml("[tool.initdiag]\nmodle = []\n")
    result = inner.runpytest_subprocess(*STRICT, "--initdiag")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: expected *tool.initdiag* with the keys *models*got 'modle'*"]
    )
    assert inner.runpytest_subprocess(*STRICT).ret == 0
    inner.makepyprojecttoml("[tool.initdiag]\n")
    result = inner.runpytest_subprocess(*STRICT, "--initdiag")
    result.stderr.fnmatch_lines(
        ["ERROR: --initdiag: no models in *tool.initdiag* of *pyproject.toml"]
    )
    inner.makepyprojecttoml('[tool.initdiag]\nmodels = ["test_other.py:gone"]\n')
    result = inner.runpytest_subprocess(*STRICT, "--initdiag")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["test_other.py:gone: expected 'gone' in test_other.py, got names *"]
    )
    assert "Traceback" not in str(result.stdout)


UNUSED = """
    import sys

    def test_unused(pytestconfig):
        assert pytestconfig.pluginmanager.has_plugin("initdiag") is {there}
        for heavy in ("torch", "numpy", "scipy", "click", "initdiag.project.config", "initdiag.diagnosing.diagnose"):
            assert heavy not in sys.modules
"""


def test_unused_it_is_inert_and_loads_nothing(inner):
    inner.makepyfile(test_unused=UNUSED.format(there=True))
    inner.runpytest_subprocess(*STRICT, "-p", "initdiag").assert_outcomes(
        passed=1
    )  # named, and not loaded twice
    result = inner.runpytest_subprocess("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.initdiag(*options of `initdiag_check`*"])


def test_it_can_be_turned_off(inner):
    inner.makepyfile(test_unused=UNUSED.format(there=False))
    inner.runpytest_subprocess(*STRICT, "-p", "no:initdiag").assert_outcomes(passed=1)
    result = inner.runpytest_subprocess("-p", "no:initdiag", "--initdiag")
    result.stderr.fnmatch_lines(["*unrecognized arguments: --initdiag*"])
