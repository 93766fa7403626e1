"""What the theory does not cover: counted by kind, one finding a kind, every place in the page."""

from __future__ import annotations

import ast
import html
import re
from collections import Counter

import pytest
import torch
from support.places import PACKAGE
from torch import nn

import initdiag
from initdiag.diagnosing.coverage import uncovered
from initdiag.network.architecture import UNREPEATABLE, Gap
from initdiag.rendering.svg_panels import panels


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.map = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + torch.sin(self.map(self.norm(x)))


@pytest.fixture(scope="module")
def report():
    """Nine blocks: nine layer norms, nine sines, nine residual sums; eleven linear layers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), *(Block(8) for _ in range(9)), nn.Linear(8, 2))
    return initdiag.diagnose(model, draws=16)


def test_a_finding_a_kind_not_a_gap(report):
    found = [f for f in report.findings if f.code == "IND006"]
    assert len(report.architecture.gaps) == 27
    assert len(found) == len({gap.kind for gap in report.architecture.gaps}) == 3
    first = found[0].message
    assert first.startswith("9 layer norms not covered by the theory (")
    assert "1.norm, 2.norm, 3.norm and 6 more" in first


def test_no_gap_is_lost(report):
    gaps = report.architecture.gaps
    kept = [gap for part in uncovered(gaps) for gap in part.gaps]
    assert Counter(kept) == Counter(gaps)


def test_one_line_counts_every_kind(report):
    wanted = "11 linear layers, 9 layer norms, 9 sin calls, 9 residual sums"
    for text in (str(report), report.to_markdown(), report.to_html()):
        assert wanted in " ".join(text.split())


def test_the_page_lists_every_place(report):
    page = report.to_html()
    details = re.search(r"<details><summary>What the theory.*?</details>", page, re.S)[0]
    for reason in {gap.reason for gap in report.architecture.gaps}:
        assert details.count(f">{html.escape(reason)}:") == 1
    for gap in report.architecture.gaps:
        assert f"<code>{html.escape(gap.path)}</code>" in details


def test_a_single_gap_has_its_place():
    part = uncovered([Gap("a.b", "cumsum", "why")])
    assert [(p.path, p.counted, p.message) for p in part] == [
        ("a.b", "1 cumsum call", "not covered by the theory: why")
    ]


def test_several_reasons_are_not_told_as_one():
    gaps = [
        Gap("a", "shared", "with b"),
        Gap("c", "shared", "with d"),
        Gap("e", "shared", "with d"),
    ]
    (part,) = uncovered(gaps)
    assert part.message == (
        "3 weights that share their values not covered by the theory (a, c, e): with b; "
        "1 more such reasons"
    )


def test_a_sum_with_a_constant_is_not_called_residual():
    model = initdiag.trace(_Shifted())
    assert [part.counted for part in uncovered(model.gaps)][:1] == ["1 sum"]


class _Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)) + 0.5)


def test_the_layer_panel_explains_the_zigzag_of_a_residual_network():
    def note(model) -> str:
        named = {panel.title: panel.note for panel in panels(initdiag.diagnose(model, draws=16))}
        return named["Layer by layer, as measured"]

    torch.manual_seed(0)
    chain = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    residual = nn.Sequential(nn.Linear(8, 8), *(Block(8) for _ in range(3)), nn.Linear(8, 2))
    assert "zigzag" in note(residual)
    assert "Flat is healthy" in note(chain)
    assert "zigzag" not in note(chain)


def test_every_kind_that_is_no_function_has_a_name():
    """A literal kind in the tracer's sources must not be told as a call of that name."""
    kinds = set()
    for path in (PACKAGE / "tracing").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Gap":
                kind = node.args[1]
                kinds |= {kind.value} if isinstance(kind, ast.Constant) else set()
    assert {"reused", "shared", "dataflow", "positions"} <= kinds
    for kind in kinds | UNREPEATABLE:
        (part,) = uncovered([Gap("a", kind, "why")])
        assert not part.name.endswith(" call"), kind
