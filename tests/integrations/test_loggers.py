"""A report in each tracker, read back from the files that the tracker wrote."""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from pathlib import Path

import pytest

from initdiag.diagnosing.diagnose import diagnose_architecture
from initdiag.errors import InvalidInput
from initdiag.network.architecture import Architecture

REPORT = diagnose_architecture(Architecture.from_widths([64] * 12 + [10]), target="deep|net`")
METRICS = REPORT.to_metrics()


def test_tensorboard_gets_numbers_text_and_figure(tmp_path):
    pytest.importorskip("tensorboard", reason="needs it: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        REPORT.log_to(writer, step=3)
    found = EventAccumulator(str(tmp_path)).Reload()
    assert set(found.Tags()["scalars"]) == set(METRICS)
    for name, value in METRICS.items():
        (event,) = found.Scalars(name)
        assert event.step == 3
        assert event.value == pytest.approx(value, rel=1e-6, abs=1e-30)  # written as float32
    (text,) = found.Tensors("initdiag/report/text_summary")
    assert "VANISHING" in text.tensor_proto.string_val[0].decode()
    if importlib.util.find_spec("matplotlib"):
        assert found.Tags()["images"] == ["initdiag/report_figure"]


def test_mlflow_gets_numbers_page_and_record(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="needs it: pip install mlflow-skinny")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    mlflow.set_experiment("test")
    with mlflow.start_run() as run:
        REPORT.log_to(mlflow)
    found = mlflow.MlflowClient().get_run(run.info.run_id)
    assert found.data.metrics == pytest.approx(METRICS)
    written = {path.name: path for path in tmp_path.rglob("initdiag/report.*")}
    assert {"report.html", "report.md", "report.json"} <= set(written)
    assert json.loads(written["report.json"].read_text()) == REPORT.to_dict()


def records(data):
    """Yield the records of a run's file: LevelDB's log format behind seven bytes of header.

    A piece has four bytes of checksum, two of length and one of kind: whole, first, middle, last.
    """
    place, held, block = 7, b"", 2**15
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        held += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield held
            held = b""


def history(path):
    """Yield name and JSON value of all that a run's file says was logged."""
    from wandb.proto.wandb_internal_pb2 import Record

    for data in records(path.read_bytes()):
        for item in Record.FromString(data).history.item:
            yield item.key or "/".join(item.nested_key), item.value_json


@pytest.mark.slow
def test_wandb_gets_numbers_and_page(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb = pytest.importorskip("wandb", reason="needs it: pip install wandb")
    with wandb.init(mode="offline", dir=tmp_path, project="test") as run:
        REPORT.log_to(run)
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found, until = dict(history(written)), time.monotonic() + 60
    while not METRICS.keys() <= found.keys() and time.monotonic() < until:
        time.sleep(0.5)  # its service may still be writing
        found = dict(history(written))
    assert {name: json.loads(found[name]) for name in METRICS} == pytest.approx(METRICS)
    pages = list(Path(tmp_path).rglob("*.html"))
    assert any("VANISHING" in page.read_text() for page in pages)


def test_lightning_gets_numbers_in_its_own_logger(tmp_path):
    pytest.importorskip("pytorch_lightning", reason="needs it: pip install 'initdiag[lightning]'")
    from pytorch_lightning.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    REPORT.log_to(logger)
    logger.save()
    (written,) = tmp_path.rglob("metrics.csv")
    header, row = written.read_text().splitlines()
    found = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(found["initdiag/risk_sgd"]) == pytest.approx(METRICS["initdiag/risk_sgd"])


def test_lightnings_tensorboard_gets_the_text_too(tmp_path):
    pytest.importorskip("pytorch_lightning", reason="needs it: pip install 'initdiag[lightning]'")
    pytest.importorskip("tensorboard", reason="needs it: pip install tensorboard")
    from pytorch_lightning.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    REPORT.log_to(logger)
    logger.finalize("success")
    found = EventAccumulator(logger.log_dir).Reload()
    assert set(METRICS) <= set(found.Tags()["scalars"])
    assert found.Tags()["tensors"] == ["initdiag/report/text_summary"]


class AimRun:
    """The one method of an Aim run that is used, with Aim's own signature."""

    def __init__(self):
        self.tracked = {}

    def track(self, value, name=None, step=None, epoch=None, *, context=None):
        self.tracked[name] = (value, step)


def test_aims_track_gets_the_numbers():
    run = AimRun()
    REPORT.log_to(run, step=2)
    assert run.tracked == {name: (value, 2) for name, value in METRICS.items()}


@pytest.mark.parametrize("other", [None, [], print, object()])
def test_another_kind_is_refused_in_words(other):
    with pytest.raises(InvalidInput, match="expected a SummaryWriter"):
        REPORT.log_to(other)
