"""Small parts of the example; the whole of it asserts its own claims when it is run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import initdiag

PATH = Path(__file__).parents[2] / "examples" / "jacobian_spectra.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("jacobian_spectra", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wrong_network_is_seen(example):
    """Sabotage: orthogonal weights against the Gaussian prediction, and the other way round."""
    names = "ReLU, Gaussian", "ReLU, orthogonal"
    spectra = {name: example.predictions(name, 100) for name in names}
    sigma = {name: example.measured(name, 100, spectra[name], balanced=True) for name in names}
    for name, other in (names, names[::-1]):
        assert example.ks_distance(sigma[name][4], spectra[name][4]) < 0.02
        assert example.ks_distance(sigma[name][4], spectra[other][4]) > 0.05


def test_the_distance_is_the_definition(example):
    """Against a plain maximum over a fine grid, on a law with an atom."""
    spectrum = initdiag.predict_spectrum([64] * 3, **example.NETWORKS["hard tanh, orthogonal"])
    (atom,) = spectrum.atoms
    rng = np.random.default_rng(0)
    logs = np.where(
        rng.random(300) < 0.3,
        atom.log_eigenvalue,
        spectrum.law.rvs(size=300, random_state=rng) - 0.1,
    )
    sigma = np.concatenate([np.exp(logs / 2), np.zeros(100)])
    grid = np.linspace(spectrum.law.ppf(1e-4) - 1, spectrum.log_upper_edge + 1, 40001)
    empirical = np.array([np.mean(sigma > np.exp(x / 2) * (1 + 1e-9)) for x in grid])
    plain = np.abs(empirical - (1 - spectrum.zero_mass) * spectrum.law.sf(grid)).max()
    assert example.ks_distance(sigma, spectrum) == pytest.approx(plain, abs=2e-3)


def test_both_networks_have_entries_of_one_variance(example):
    torch = pytest.importorskip("torch")
    for orthogonal in (False, True):
        for layer in example.network(torch, orthogonal, 0):
            if isinstance(layer, torch.nn.Linear):
                assert layer.weight.var().item() * layer.in_features == pytest.approx(1, abs=0.15)


def test_the_figure_names_what_it_needs(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sys, "argv", ["jacobian_spectra.py", "--figure", "x.png"])
    with pytest.raises(SystemExit, match="pip install matplotlib"):
        example.main()


@pytest.mark.slow
def test_the_figure_is_drawn(example, tmp_path):
    pytest.importorskip("matplotlib")
    spectra = example.predictions("hard tanh, orthogonal", 40)
    sigma = example.measured("hard tanh, orthogonal", 40, spectra, balanced=False)
    path = tmp_path / "figure.png"
    example.draw({"hard tanh, orthogonal": {d: (spectra[d], sigma[d]) for d in spectra}}, path)
    assert path.read_bytes().startswith(b"\x89PNG")
