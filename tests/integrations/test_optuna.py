"""Optuna: constrained, then pruned; a study on SQLite that two processes share."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

import initdiag

optuna = pytest.importorskip("optuna", reason="needs optuna: pip install 'initdiag[optuna]'")
from initdiag.integrations.optuna import constraints_func, prune_at_risk  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = pytest.mark.filterwarnings("ignore:.*constraints_func.* is an experimental feature")
IS_5 = hasattr(optuna.Trial, "set_constraint")


def objective(trial) -> float:
    widths = [16, *[trial.suggest_int("width", 4, 64)] * trial.suggest_int("depth", 1, 40), 10]
    prune_at_risk(trial, widths, optimizer="sgd", init="he_normal", max_risk=0.2)
    return float(trial.params["depth"])


def sampler(seed: int):
    constraint = {} if IS_5 else {"constraints_func": constraints_func}
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, **constraint)


def test_the_risk_is_failure_risk_and_what_is_at_risk_is_pruned():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=30)
    assert {t.state.name for t in study.trials} == {"PRUNED", "COMPLETE"}
    for trial in study.trials:
        widths = [16, *[trial.params["width"]] * trial.params["depth"], 10]
        risk = initdiag.failure_risk(initdiag.predict(widths, init="he_normal"))
        assert trial.user_attrs["initdiag_risk"] == risk
        assert (trial.state.name == "PRUNED") == (risk >= 0.2)
        assert constraints_func(trial) == (risk - 0.2,)
        if IS_5:
            assert trial.constraints == {"initdiag_risk": risk - 0.2}


def share_at_risk(objective) -> float:
    """Of the trials after the sampler's first ten, in three searches for the deepest network."""
    found = []
    for seed in range(3):
        study = optuna.create_study(direction="maximize", sampler=sampler(seed))
        study.optimize(objective, n_trials=50)
        for trial in study.trials[10:]:
            widths = [16, *[trial.params["width"]] * trial.params["depth"], 10]
            found.append(initdiag.failure_risk(initdiag.predict(widths, init="he_normal")) >= 0.2)
    return sum(found) / len(found)


def test_the_sampler_heeds_the_constraint():
    """Nothing is pruned here, so that all it can learn from is the constraint; without it, it goes where nothing trains."""

    def only_constrained(trial) -> float:
        with contextlib.suppress(optuna.TrialPruned):
            objective(trial)
        return float(trial.params["depth"])

    def unconstrained(trial) -> float:
        trial.suggest_int("width", 4, 64)
        return float(trial.suggest_int("depth", 1, 40))

    assert share_at_risk(only_constrained) < 0.5 * share_at_risk(unconstrained)


def test_bad_input():
    trial = optuna.create_study().ask()
    with pytest.raises(initdiag.InvalidInput, match="max_risk"):
        prune_at_risk(trial, [8, 8], max_risk=1.5)
    assert constraints_func(optuna.trial.create_trial(value=0.0)) == (0.0,)


SCRIPT = """
import sys; sys.path.insert(0, {folder!r})
import optuna, test_optuna
storage = optuna.storages.RDBStorage({url!r}, engine_kwargs={{"connect_args": {{"timeout": 60}}}})
study = optuna.load_study(study_name="shared", storage=storage, sampler=test_optuna.sampler(int(sys.argv[1])))
study.optimize(test_optuna.objective, n_trials=12)
"""


def test_a_study_on_sqlite_shared_by_two_processes(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="shared", storage=url, direction="maximize")
    script = SCRIPT.format(folder=str(Path(__file__).parent), url=url)
    both = [subprocess.Popen([sys.executable, "-c", script, str(seed)]) for seed in (1, 2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    trials = study.trials
    assert sorted(t.number for t in trials) == list(range(24))
    assert {t.state.name for t in trials} <= {"PRUNED", "COMPLETE"}
    for trial in trials:
        assert (trial.state.name == "PRUNED") == (constraints_func(trial)[0] >= 0)
    assert len({t.params["width"] * 100 + t.params["depth"] for t in trials}) > 12
    study._storage.remove_session()
    study._storage._backend.engine.dispose()
