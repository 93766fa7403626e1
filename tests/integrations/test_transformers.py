"""The Hugging Face callback under a real trainer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import initdiag

transformers = pytest.importorskip(
    "transformers", reason="needs it: pip install 'initdiag[transformers]'"
)
pytest.importorskip("accelerate", reason="needs it: pip install 'initdiag[transformers]'")
from initdiag.integrations.transformers import Initdiag  # noqa: E402


class Net(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        hidden = [part for _ in range(depth) for part in (nn.Linear(16, 16), nn.ReLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(16, 1))
        self.steps = 0

    def forward(self, x, labels=None):
        self.steps += labels is not None
        out = self.net(x)
        return out if labels is None else {"loss": (out - labels).square().mean(), "logits": out}


def trainer(model, callback, folder, steps=2):
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False}
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=2, save_steps=2, **quiet
    )
    rows = [{"x": torch.ones(16), "labels": torch.ones(1)} for _ in range(8)]
    return transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[callback])


def test_healthy_at_risk_and_resumed(tmp_path):
    callback, model = Initdiag(draws=32), Net(2)
    trainer(model, callback, tmp_path / "healthy").train()
    assert callback.report.ok
    assert model.steps == 2

    deep = Net(30)
    refused = trainer(deep, Initdiag(draws=32), tmp_path)
    with pytest.raises(initdiag.AtRisk, match="VANISHING"):
        refused.train()
    assert deep.steps == 0

    trainer(deep, Initdiag(fail_on=None, draws=32), tmp_path).train()
    resumed = trainer(deep, Initdiag(draws=32), tmp_path, steps=4)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
