"""The Lightning callback under a real trainer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import initdiag

pl = pytest.importorskip(
    "pytorch_lightning", reason="needs pytorch-lightning: pip install 'initdiag[lightning]'"
)
from initdiag.integrations.lightning import Initdiag  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning",
    "ignore::UserWarning:pytorch_lightning",
    "ignore::DeprecationWarning:pytorch_lightning",
    "ignore::FutureWarning:pytorch_lightning",
    "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated",
)


class Net(pl.LightningModule):
    def __init__(self, depth: int) -> None:
        super().__init__()
        hidden = [part for _ in range(depth) for part in (nn.Linear(16, 16), nn.ReLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(16, 1))
        self.example_input_array = torch.ones(2, 16)
        self.steps = 0

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        self.steps += 1
        return self(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Notes(pl.loggers.logger.DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict = {}

    def log_metrics(self, metrics, step=None) -> None:
        self.seen.update(metrics)


def trainer(callback, folder, logger=False, epochs=1):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "devices": 1,
    }
    return pl.Trainer(
        max_epochs=epochs, callbacks=[callback], logger=logger, default_root_dir=folder, **quiet
    )


def batches():
    return DataLoader(TensorDataset(torch.ones(4, 16)), batch_size=2)


def test_a_healthy_module_is_trained_and_its_numbers_are_logged(tmp_path):
    model, callback, notes = Net(2), Initdiag(draws=32), Notes()
    before = [p.clone() for p in model.parameters()]
    fit = trainer(callback, tmp_path, notes)
    callback.setup(fit, model, "validate")
    assert callback.report is None
    fit.fit(model, batches())
    assert callback.report.ok
    assert model.steps == 2
    assert notes.seen["initdiag/risk_sgd"] == callback.report.risk["sgd"]
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_module_at_risk_is_refused_before_the_first_step(tmp_path):
    model = Net(30)
    with pytest.raises(initdiag.AtRisk, match="VANISHING"):
        trainer(Initdiag(draws=32), tmp_path).fit(model, batches())
    assert model.steps == 0
    reported = Initdiag(fail_on=None, draws=32)
    trainer(reported, tmp_path).fit(model, batches())
    assert model.steps == 2
    assert not reported.report.ok


def test_training_that_goes_on_from_a_checkpoint_is_let_pass(tmp_path):
    model = Net(30)
    first = trainer(Initdiag(fail_on=None, draws=32), tmp_path)
    first.fit(model, batches())
    first.save_checkpoint(tmp_path / "last.ckpt")
    callback = Initdiag(draws=32)
    trainer(callback, tmp_path, epochs=2).fit(model, batches(), ckpt_path=tmp_path / "last.ckpt")
    assert not callback.report.ok
    assert model.steps == 4
