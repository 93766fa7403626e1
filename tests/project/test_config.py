"""``[tool.initdiag]``: what it says, where it is looked for, and what is refused."""

from __future__ import annotations

import re

import pytest
from support.places import ROOT

from initdiag.diagnosing.verdict import Thresholds
from initdiag.errors import TargetError
from initdiag.project.config import find_config


@pytest.fixture
def write(tmp_path):
    def call(text: str):
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return call


def test_every_key(write):
    own = (
        'target = "lib.net:Big", input_size = [2, 784], module = "head", draws = 9, ignore = ["IND006"], seed = 4, '
        'thresholds = {max_risk = 0.2}, optimizer = "sgd", method = "redraw", example_input = "net.py:batch"'
    )
    folder = write(
        f'[tool.initdiag]\nmodels = ["net.py:plain", {{{own}}}]\n'
        'ignore = ["IND011"]\noptimizer = "adam"\ndraws = 64\nseed = 3\nmethod = "signs"\n'
        'thresholds = {max_risk = 0.4, agreement_level = 0.01}\nbaseline = "base.json"\nfail_on = "risk"\n'
    )
    config = find_config(folder)
    plain, big = config.models
    assert (plain.target, plain.folder, plain.name) == ("net.py:plain", folder, "net.py:plain")
    assert (plain.optimizer, plain.draws, plain.seed, plain.method, plain.ignore) == (
        "adam",
        64,
        3,
        "signs",
        ("IND011",),
    )
    assert plain.thresholds == Thresholds(max_risk=0.4, agreement_level=0.01)
    assert (plain.module, plain.input_size, plain.example_input) == (None, None, None)
    assert big.name == "lib.net:Big[head]"
    assert (big.optimizer, big.draws, big.seed, big.method) == ("sgd", 9, 4, "redraw")
    assert (big.input_size, big.example_input, big.ignore) == (
        (2, 784),
        "net.py:batch",
        ("IND011", "IND006"),
    )
    assert big.thresholds == Thresholds(max_risk=0.2, agreement_level=0.01)
    assert (config.baseline, config.fail_on) == (folder / "base.json", "risk")


def test_a_trial_and_its_data(write):
    table = '[tool.initdiag]\ntrial = 50\nmodels = [{target = "net.py:build", data = "net.py:batches"}]\n'
    (model,) = find_config(write(table)).models
    assert (model.trial, model.data) == (50, "net.py:batches")
    with pytest.raises(TargetError, match="trial"):
        find_config(write("[tool.initdiag]\ntrial = 0\n"))


def test_found_upwards_past_a_file_without_the_table(write):
    folder = write('[tool.initdiag]\nmodels = ["net.py:build"]\n')
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    (folder / "a" / "pyproject.toml").write_text("[project]\nname = 'a'\n", encoding="utf-8")
    config = find_config(deep)
    assert (config.path, config.models[0].folder) == (folder / "pyproject.toml", folder)


def test_without_a_table_all_is_default(tmp_path):
    config = find_config(tmp_path)
    assert (config.path, config.models, config.fail_on, config.baseline) == (
        None,
        (),
        "no-verdict",
        None,
    )
    (model,) = config.select(["net.py:build"], tmp_path)
    assert (model.draws, model.thresholds, model.ignore) == (None, Thresholds(), ())
    with pytest.raises(TargetError, match=r"a TARGET, or models in \[tool.initdiag\]"):
        config.select([], tmp_path)


def test_targets_take_the_settings_that_are_configured_for_them(write):
    folder = write(
        "[tool.initdiag]\ndraws = 32\n"
        'models = [{target = "sub/net.py:build", seed = 5}, {target = "sub/net.py:build", module = "head"}, "pkg:net"]\n'
    )
    config = find_config(folder)
    found = config.select(["net.py:build", "net.py:other", "pkg:net"], folder / "sub")
    assert [m.name for m in found] == [
        "sub/net.py:build",
        "sub/net.py:build[head]",
        "net.py:other",
        "pkg:net",
    ]
    assert [m.draws for m in found] == [32] * 4
    assert (found[0].seed, found[2].folder) == (5, folder / "sub")
    assert config.select([], folder) == config.models


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "modles = []",
            r"keys baseline, draws, fail_on, ignore, loss, lr, method, models, optimizer, seed, spectrum, strict, thresholds, timeout, trial, got 'modles'",
        ),
        (
            'models = [{target = "a.py:b", size = [2]}]',
            r"model 'a.py:b' with the keys .*input_size.*got 'size'",
        ),
        (
            "thresholds = {risk = 0.5}",
            r"thresholds with the keys agreement_level, max_risk, got 'risk'",
        ),
        ("models = [3]", "a list of targets or tables"),
        ('models = "a.py:b"', "models: expected a list, got 'a.py:b'"),
        ('models = [{module = "head"}]', "a table with a target"),
        ('models = ["a.py:b", "a.py:b"]', "each model once, got 'a.py:b'"),
        (
            'models = [{target = "a.py:b", input_size = "2,3"}]',
            r"model 'a.py:b' input_size: expected a list, got '2,3'",
        ),
        (
            'models = [{target = "a.py:b", input_size = [2, true]}]',
            "input_size: expected an integer, got True",
        ),
        (
            'models = [{target = "a.py:b", input_size = [2, 0]}]',
            "input_size: a positive integer, got 0",
        ),
        ('models = [""]', "expected a target, got ''"),
        ("draws = 0", "draws: a positive integer, got 0"),
        ("draws = true", "draws: expected one of 'auto', got True"),
        ('seed = "1"', "seed: expected an integer, got '1'"),
        ("seed = -1", "seed: a non-negative int below"),
        ("lr = 0", "lr: a positive number, got 0"),
        (
            'optimizer = "lion"',
            "optimizer: expected one of 'sgd', 'momentum', 'adam', 'adamw', got 'lion'",
        ),
        ("optimizer = [1]", "optimizer: expected one of"),
        ('method = "sings"', "method: expected one of 'auto', 'signs', .*got 'sings'"),
        ('optimiser = "adam"', "Did you mean 'optimizer'"),
        ('ignore = "IND011"', "ignore: expected a list, got 'IND011'"),
        ('ignore = ["E501"]', "ignore: one of IND000, .*got 'E501'"),
        ('ignore = ["IND0011"]', "Did you mean 'IND0"),
        ("thresholds = {max_risk = 2}", r"thresholds: expected max_risk in \[0, 1\], got 2"),
        ("thresholds = 0.5", "thresholds: expected an object, got 0.5"),
        (
            'fail_on = "always"',
            "fail_on: expected one of 'risk', 'no-verdict', 'never', got 'always'",
        ),
        ("baseline = 3", "baseline: expected a text, got 3"),
    ],
)
def test_what_is_refused_names_the_file_the_key_and_what_was_expected(write, table, message):
    folder = write(f"[tool.initdiag]\n{table}\n")
    with pytest.raises(TargetError, match=message) as caught:
        find_config(folder)
    assert str(folder / "pyproject.toml") in str(caught.value)


def test_no_toml_and_no_table(write):
    with pytest.raises(TargetError, match=r"expected TOML in .*pyproject.toml, got .*line 1"):
        find_config(write("[tool.initdiag\n"))
    with pytest.raises(TargetError, match=r"\[tool.initdiag\]: a table, got 3"):
        find_config(write("[tool]\ninitdiag = 3\n"))


def test_the_documented_table_is_understood(write):
    text = (ROOT / "docs/recipes/ci.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    plain, big = find_config(write(table)).models
    assert (plain.name, big.name, big.input_size) == (
        "model.py:build",
        "net.py:Big[head]",
        (2, 784),
    )
