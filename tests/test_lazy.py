"""What must not load torch does not, in a fresh interpreter."""

from __future__ import annotations

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
    "pytest plugin": "import initdiag.pytest_plugin",
    "configuration": "import pathlib, initdiag.project.config, initdiag.project.outcome; initdiag.project.config.find_config(pathlib.Path.cwd())",
    "saved report": (
        "import json, pathlib, initdiag; "
        "r = initdiag.Report.from_dict(json.loads(pathlib.Path('tests/golden/report-schema-1.json').read_text())); str(r)"
    ),
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_no_torch(script):
    code = f"{script}\nimport sys\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_alone_loads_no_scipy():
    code = "import sys, initdiag; assert not {'scipy', 'numpy', 'rich', 'click'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["import initdiag", "--help", "predict", "saved report"])
def test_templates_are_read_only_for_a_page(name):
    code = f"{SCRIPTS[name]}\nimport sys; assert 'jinja2' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_export_is_there():
    import initdiag

    for name in initdiag.__all__:
        assert getattr(initdiag, name).__name__ == name
    assert set(initdiag.__all__) == set(initdiag._EXPORTS)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = initdiag.nonsense
