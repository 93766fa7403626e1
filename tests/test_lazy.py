"""What must load neither torch nor templates does not, in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPTS = {
    "import initdiag": "import initdiag",
    "--help": "import initdiag.cli.main; initdiag.cli.main._group.main(['--help'], standalone_mode=False)",
    "check --help": "import initdiag.cli.main; initdiag.cli.main._group.main(['check', '--help'], standalone_mode=False)",
    "predict": "import initdiag.cli.main; initdiag.cli.main._group.main(['predict', '64,64x9,10'], standalone_mode=False)",
    "spectrum": "import initdiag.cli.main; initdiag.cli.main._group.main(['spectrum', '64,64x3,10'], standalone_mode=False)",
    "api": "import initdiag; p = initdiag.predict([8, 8, 2]); initdiag.beta([8, 8]); initdiag.failure_risk(p); str(p.log_mean)",
    "screen": "import initdiag; initdiag.screen([[64, 64, 10], [8, 8]]); initdiag.accepts([8, 8])",
    "free probability": "import initdiag; (initdiag.free.Projection(0.5) + initdiag.free.Semicircle()).mean",
    "pytest plugin": "import initdiag.pytest_plugin",
    "configuration": "import pathlib, initdiag.project.config, initdiag.project.outcome; initdiag.project.config.find_config(pathlib.Path.cwd())",
    "saved report": (
        "import json, pathlib, initdiag; "
        "r = initdiag.Report.from_dict(json.loads(pathlib.Path('tests/golden/report-schema-1.json').read_text())); str(r)"
    ),
}


PUBLIC = """
Architecture AtRisk Comparison InitdiagError InvalidInput Measurement Prediction Repair Report RiskMap Screening Sizing
SpectralMeasurement TargetError Thresholds Trial UnsupportedArchitecture Verdict WorkersLost accepts
assert_trainable beta check check_many compare diagnose failure_risk free measure measure_spectrum
parameter_gradients predict predict_spectrum repair risk_map screen trace widths_for widths_front
""".split()
"""Names that a user's code may import: none is taken away."""


RUN = """
import io, json, sys
scripts, loaded, output = json.load(sys.stdin), {}, sys.stdout
for name, script in scripts.items():
    sys.stdout = io.StringIO()
    exec(script, {})
    loaded[name] = [heavy for heavy in ("torch", "jinja2") if heavy in sys.modules]
json.dump(loaded, output)
"""


@pytest.fixture(scope="module")
def loaded():
    """What is loaded after each script. They run in one interpreter, one after another.

    A module that none of them has loaded, none of them loads alone.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN],
        input=json.dumps(SCRIPTS), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_torch(name, loaded):
    assert "torch" not in loaded[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_templates_are_read_only_for_a_page(name, loaded):
    assert "jinja2" not in loaded[name]


def test_import_alone_loads_no_scipy():
    code = "import sys, initdiag; assert not {'scipy', 'numpy', 'rich', 'click'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_export_is_there():
    import initdiag

    for name in initdiag.__all__:
        assert getattr(initdiag, name).__name__.split(".")[-1] == name
    assert {*initdiag.__all__, "__version__"} <= set(dir(initdiag))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = initdiag.nonsense


def test_a_star_brings_every_export_and_nothing_else():
    names: dict = {}
    exec("from initdiag import *", names)
    assert set(names) - {"__builtins__"} == set(PUBLIC)


def test_a_misspelt_name_is_answered_with_the_nearest():
    code = "import initdiag; initdiag.predikt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Did you mean: 'predict'?" in done.stderr
