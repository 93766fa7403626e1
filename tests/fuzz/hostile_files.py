"""Files that a fuzzed command line names: targets, reports, baselines, tables and candidates,
good ones and broken ones.
"""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from support import reports

from initdiag.project.baseline import Baseline

TARGETS = """
import sys, warnings
import torch
from torch import nn

def chain(depth, width=8):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 2))

class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.l, self.act = chain(1), act
    def forward(self, x):
        made = self.act(x)
        return self.l(x) if made is None else made

def raised(error):
    raise error

def ok(): return chain(2)
def sick(): return chain(20)
module = chain(1)
batch = torch.randn(4, 8)
def batches():
    yield batch, torch.zeros(4, dtype=torch.long)
def pair(): return batch, torch.zeros(4, 2)
text = "\\x1b[2J\\ud800"
number = 3
def needs(width): return chain(width)
def fails(): raise ValueError("first\\nsecond \\x1b[2J \\udcff")
def exits(): sys.exit(0)
def stops(): raise GeneratorExit
def unsaid():
    class Odd(Exception):
        def __str__(self): raise RuntimeError("no text")
    raise Odd
def prints():
    print("printed")
    return Net(lambda x: print("printed"))
def warns():
    warnings.warn("warned")
    return chain(1)
def lazy(): return nn.Sequential(nn.LazyLinear(3))
def empty(): return nn.Linear(8, 0)
def nothing(): return nn.Sequential()
def meta(): return nn.Linear(8, 8, device="meta")
def complex(): return chain(1).to(torch.complex64)
def half(): return chain(1).half()
def nan():
    net = chain(1)
    nn.init.constant_(net[0].weight, torch.nan)
    return net
def conv(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
def tokens(): return nn.Sequential(nn.Embedding(10, 8), chain(1))
def rnn(): return nn.RNN(8, 8, batch_first=True)
def named():
    net = nn.Sequential()
    net.add_module("\\x1b[2J<b>\\u202e|", nn.Linear(8, 8))
    return net
def forward_raises(): return Net(lambda x: raised(KeyError("k")))
def forward_exits(): return Net(lambda x: sys.exit(1))
def forward_empty(): return Net(lambda x: x[:, :0])
def forward_none(): return Net(lambda x: ())
def forward_dict(): return Net(lambda x: {"a": x, "b": [x]})
def forward_int(): return Net(lambda x: x.long())
def forward_huge(): return Net(lambda x: torch.empty(10**13))
def forward_deep(): return Net(deep)
def deep(x): return deep(x)
"""
"""A file of factories, modules and batches, some of which misbehave."""

NAMES = [
    line.partition("(")[0].removeprefix("def ").partition(" =")[0]
    for line in TARGETS.splitlines()
    if line.startswith(("def ", "module =", "batch =", "text =", "number ="))
]

OTHERS = {
    "top.py": b"import sys\nsys.exit(0)\n",
    "broken.py": b"def (\n",
    "binary.py": bytes(range(256)),
    "latin.py": "a = '\xe9'\n".encode("latin-1"),
    "null.py": b"x = 1\0",
    "empty.py": b"",
}
"""Files that do not import, or hold nothing."""

JSON_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**30, 10**400, "", "x", "NaN", "Infinity", "\x1b[2J", "\ud800",
    [], {}, [[]], [None], {"a": 1}, "HEALTHY", "sgd", [1, 2], 0.5, float("nan"), float("inf"),
)  # fmt: skip


def write_targets(folder: Path) -> None:
    """Write the files of targets, and a folder that is named like one."""
    (folder / "net.py").write_text(TARGETS, encoding="utf-8")
    (folder / "folder.py").mkdir()
    for name, content in OTHERS.items():
        (folder / name).write_bytes(content)


def write_json(path: Path, kind: str, rng: random.Random) -> None:
    """Write a report or a baseline: as it should be, or damaged in one way."""
    made = [make() for make in reports.ALL.values()]
    if kind == "report":
        chosen = rng.choice(made).to_dict()
        data: Any = chosen if rng.random() < 0.8 else [chosen, chosen]
    else:
        data = json.loads(Baseline.of([("net.py:ok", made[0])]).to_json())
    damage = rng.choice(("none", "values", "values", "keys", "bytes", "cut", "deep", "mark"))
    if damage in ("values", "keys"):
        data = _changed(data, rng, damage == "keys")
    text = json.dumps(data)
    if damage == "deep":
        text = "[" * 100_000 if rng.random() < 0.5 else _deepened(text, rng)
    content = text.encode("utf-8", "surrogatepass")
    path.write_bytes(_damaged(content, damage, rng))


def _changed(data: Any, rng: random.Random, keys: bool) -> Any:
    """Return the data with one to three values replaced, or keys dropped or added."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        place = data
        while True:
            items = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not items:
                break
            key = rng.choice(items)
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
                place = place[key]
                continue
            if keys and rng.random() < 0.7:
                del place[key]
            elif keys and isinstance(place, dict):
                place["unknown"] = rng.choice(JSON_VALUES)
            else:
                place[key] = rng.choice(JSON_VALUES)
            break
    return data


def _deepened(text: str, rng: random.Random) -> str:
    """Return JSON one value of which is nested deeper than Python calls."""
    depth = rng.choice((900, 990, 1500))
    return text.replace("null", "[" * depth + "]" * depth, 1)


def _damaged(content: bytes, damage: str, rng: random.Random) -> bytes:
    if damage == "mark":
        return b"\xef\xbb\xbf" + content
    if damage == "cut":
        return content[: rng.randrange(len(content))]
    if damage == "bytes":
        changed = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    return content


TABLE = {
    "models": ('["net.py:ok"]', '["net.py:ok", "net.py:sick"]', "[]", "3", '[{target = "net.py:ok", module = "0"}]',
               '[{target = "net.py:ok", example_input = "net.py:batch"}]', '["net.py:ok", "net.py:ok"]', '[""]',
               '["net.py:exits", "net.py:ok"]', '[{}]', '[{target = "net.py:ok", data = "net.py:batches", trial = 1}]'),
    "ignore": ('["IND001"]', '["E501"]', '"IND001"', "[1]", '["IND01"]'),
    "baseline": ('"base.json"', '"none.json"', '"folder.py"', "3", '""', '"a/b/c.json"'),
    "optimizer": ('"adam"', '"adamx"', "1"),
    "lr": ("0.1", "0", "nan", "inf", '"x"', "1e400"),
    "loss": ('"regression"', '"mse"'),
    "draws": ("4", "0", "-1", "true", '"auto"', "1.5"),
    "seed": ("1", "-1", "9223372036854775808"),
    "method": ('"none"', '"redraw"', '"sings"'),
    "spectrum": ("true", '"yes"'),
    "thresholds": ("{max_risk = 0.2}", "{max_risk = 2}", "{risk = 1}", "1"),
    "timeout": ("60", "0", "-1", "nan", "inf"),
    "strict": ("true", "1"),
    "trial": ("1", "0", "1.0"),
    "fail_on": ('"never"', '"risk"', '"always"'),
    "modles": ("[]",),
}  # fmt: skip
"""Keys of ``[tool.initdiag]``, and texts of values, good ones first."""


def write_table(path: Path, rng: random.Random) -> None:
    """Write a pyproject.toml; models, or nothing else, are its first key."""
    keys = ["models", *rng.sample(list(TABLE), rng.randint(0, 3))]
    lines = ["[tool.initdiag]", *(f"{key} = {_chosen(TABLE[key], rng)}" for key in set(keys))]
    text = "\n".join(["draws = 4", *lines] if rng.random() < 0.05 else lines) + "\n"
    path.write_bytes(
        _damaged(text.encode(), rng.choice(("none",) * 8 + ("bytes", "cut", "mark")), rng)
    )


def _chosen(values: tuple[str, ...], rng: random.Random) -> str:
    return values[0] if rng.random() < 0.5 else rng.choice(values)


ROWS: tuple[Any, ...] = (
    [8, 8], [8, 16, 4], [64] * 40, [7], [], [8, 0], [8, -1], [8, 10**30], [8, 2_000_000], [8, True],
    [8, None], [8, 1.5], "8x3", "8,8x2", "8,8x999999999", "x", "", None, 7, {"a": 1}, [[8], [8]], [1, 2],
)  # fmt: skip
"""Candidates for a screening, good ones first."""


def write_candidates(path: Path, rng: random.Random) -> None:
    """Write candidates of the kind that the file's name says."""
    rows = [rng.choice(ROWS[: rng.choice((3, len(ROWS)))]) for _ in range(rng.randint(0, 12))]
    if path.suffix == ".parquet":
        _write_parquet(path, rows, rng)
        return
    if path.suffix == ".csv":
        header = rng.choice(("widths", "widths,a", "a,widths", "8,8", "widths,widths", ""))
        lines = [header, *(f'"{r if isinstance(r, str) else str(r)[1:-1]}",' for r in rows)]
        lines = [line if "a" in header else line.rstrip(",") for line in lines]
    else:
        lines = [json.dumps(r if rng.random() < 0.5 else {"widths": r, "a": 1.10}) for r in rows]
        lines += rng.sample(
            ["[" * 983 + "]" * 983, "{", "\udcff", "[8, 8]\r", " "], rng.randint(0, 2)
        )
    content = "\n".join(lines).encode("utf-8", "surrogateescape")
    damage = rng.choice(("none",) * 6 + ("bytes", "cut", "mark")) if content else "none"
    path.write_bytes(_damaged(content, damage, rng))


def _write_parquet(path: Path, rows: list[Any], rng: random.Random) -> None:
    import pyarrow
    import pyarrow.parquet

    kind = rng.choice(("lists", "lists", "texts", "floats", "other name"))
    lists = [
        r for r in rows if isinstance(r, list) and all(type(w) is int and w < 2**31 for w in r)
    ]
    column: Any = {"texts": list(map(str, rows)), "floats": [[8.0]]}.get(kind, lists)
    typed = pyarrow.array(column, pyarrow.list_(pyarrow.int64())) if column is lists else column
    table = pyarrow.table({"other" if kind == "other name" else "widths": typed})
    pyarrow.parquet.write_table(table, path)
    damage = rng.choice(("none",) * 5 + ("bytes", "cut"))
    path.write_bytes(_damaged(path.read_bytes(), damage, rng))
