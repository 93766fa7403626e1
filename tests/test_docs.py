"""The documentation builds without a warning, names everything public, and its code runs."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import initdiag
from initdiag import free
from initdiag.diagnosing.findings import CATALOGUE

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if BLOCK.search(page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs(page):
    text = page.read_text(encoding="utf-8")
    if "import optuna" in text:
        pytest.importorskip("optuna", reason="needs optuna: pip install 'initdiag[optuna]'")
    names: dict = {}
    with redirect_stdout(io.StringIO()):
        for block in BLOCK.findall(text):
            exec(compile(block, str(page), "exec"), names)


def test_the_study_prunes_what_is_at_risk():
    optuna = pytest.importorskip("optuna", reason="needs optuna: pip install 'initdiag[optuna]'")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    page = (ROOT / "docs/recipes/trainers.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(next(block for block in BLOCK.findall(page) if "import optuna" in block), names)
    trials = names["study"].trials
    assert len(trials) == 20
    assert all((t.state.name == "PRUNED") == (t.user_attrs["initdiag_risk"] >= 0.3) for t in trials)


@pytest.mark.slow
def test_the_build_has_no_warning_and_every_public_name(tmp_path):
    pytest.importorskip("furo", reason="needs the docs extra: pip install 'initdiag[docs]'")
    from sphinx.util.inventory import InventoryFile

    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    known = {*inventory["py:class"], *inventory["py:function"]}
    wanted = {f"initdiag.{name}" for name in initdiag.__all__ if name != "free"}
    wanted |= {f"initdiag.free.{name}" for name in free.__all__}
    assert wanted <= known, sorted(wanted - known)
    for code in CATALOGUE:
        assert (tmp_path / f"findings/generated/{code}.html").exists()
