"""Command lines, seeded: each command with options and files that are good, hostile or damaged."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz.hostile_files import (
    NAMES,
    OTHERS,
    write_candidates,
    write_json,
    write_table,
    write_targets,
)

__all__ = ["made"]

HOSTILE = (
    "", " ", "nan", "inf", "-inf", "-1", "0", "-0.0", "1e400", "1e-400", "1e300", "9" * 400, "10000000000000", "½", "١٢",
    "0x10", "1_000", "True", "é\u202e", "\udcff", "a\nb", "\x1b[2J", "%s{0}", "--", "-", "'\";$(true)", "../..", "null",
    "[1, 2]", "x" * 5000, "IND001", "relu", "8,8", "None",
)  # fmt: skip
"""Values that no option asks for, or that some do."""

WIDTHS = (
    "8,8", "784,256x8,10", "64x31,10", "2,64x4,1", "1,1", "8", "", ",", "8,", "8,0", "8,-1", "8,8x0", "8,8x199",
    "8,8x100001", "8,8x99999999999", "8x3", "1000000x3", "999999999999,8", "8;8", "8,8.0", " 8 , 8 ", "8,x8", "1000000x30", "8,½",
)  # fmt: skip

FORMATS = (
    "console",
    "json",
    "csv",
    "markdown",
    "html",
    "svg",
    "github",
    "sarif",
    "junit",
    "layers-csv",
    "xml",
)
INITS = (
    "he_normal",
    "xavier_uniform",
    "orthogonal",
    "torch_default",
    "he_norml",
    "kaiming",
    "lecun_normal",
)
ACTIVATIONS = (
    "relu",
    "tanh",
    "gelu",
    "leaky_relu",
    "sigmoid",
    "silu",
    "reluu",
    "softmax",
    "linear",
)
OUTPUTS = ("o.json", "o.html", "none/o.json", "folder.py", "o", "net.py/o")

TRAINING = {
    "--optimizer": ("adam", "sgd", "momentum", "adamx", "SGD"),
    "--lr": ("0.1", "1e-3", "0"),
    "--loss": ("classification", "regression", "mse"),
    "--max-risk": ("0.2", "1", "2"),
}
ASSUMPTIONS = {
    "--init": INITS,
    "--activation": ACTIVATIONS,
    "--output": ("linear", "relu", "sigmoid", "lin"),
    "--gain": ("1", "2", "0", "1e200"),
    "--dropout": ("0.1", "0", "1", "1.5"),
    "--negative-slope": ("0.1", "-1", "1"),
}
WRITING = {"--output-format": FORMATS, "--output-file": OUTPUTS}
FAILING = {"--fail-on": ("risk", "no-verdict", "never", "always")}
BATCHES = (
    "net.py:batch",
    "net.py:batches",
    "net.py:pair",
    "net.py:number",
    "net.py:fails",
    "net.py:x",
    "x",
)

OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "check": {
        **TRAINING, **WRITING, **FAILING,
        "--input-size": ("2,8", "2x8", "4,3,8,8", "2,4,8", "8", "2,0", "1000000000,8"),
        "--input": BATCHES, "--data": BATCHES, "--trial": ("1", "2", "0"),
        "--module": ("0", "l", "nope", "0.0", ""), "--input-name": ("0", "input", "x", "7"),
        "--output": ("0", "a", "b", "7", "-1"), "--seed": ("1", "-1", "9223372036854775808"),
        "--method": ("none", "signs", "redraw", "law", "sings"), "--baseline": ("base.json", "none.json", "folder.py"),
        "--write-baseline": ("b.json", "none/b.json"), "--spectrum": (), "--strict": (), "--timeout": ("60", "0", "nan"),
    },
    "predict": {**ASSUMPTIONS, **TRAINING, **WRITING, **FAILING},
    "spectrum": {
        **ASSUMPTIONS, "--input-size": ("2,8", "8"), "--input": BATCHES, "--module": ("0", "nope"),
        "--output-format": ("json", "console", "html"), "--output-file": OUTPUTS,
    },
    "map": {
        **ASSUMPTIONS, **TRAINING, "--output-format": ("json", "console", "html"), "--output-file": OUTPUTS,
        "--figure": ("f.svg", "f.xyz", "none/f.png", "f"),
    },
    "screen": {**ASSUMPTIONS, **TRAINING, "--column": ("widths", "a", "nope"), "--restart": ()},
    "report": {**WRITING, **FAILING},
    "compare": {"--output-format": ("json", "markdown", "console", "html"), "--output-file": OUTPUTS},
    "explain": {},
}  # fmt: skip
"""Each command's options, with values that are good or nearly so."""

_COUNTS = ("--draws", "--trial")
"""Options whose large numbers are work that was asked for."""

ENDLESS = ("10000000000000",)


def made(seed: int, folder: Path, *, isolated: bool) -> list[str]:
    """Return the command line of a seed, and write the files that it names to ``folder``."""
    rng = random.Random(seed)
    write_targets(folder)
    command = rng.choice(("check",) * 4 + ("predict",) * 2 + ("screen",) * 2 + tuple(OPTIONS))
    arguments = [*_files(command, folder, rng), *_options(command, rng)]
    if command == "check":
        arguments += ["--draws", "4"]
    if command in ("check", "spectrum") and not isolated:
        arguments.append("--no-isolate")
    return [*_before(rng), command, *_disturbed(arguments, rng)]


def _before(rng: random.Random) -> list[str]:
    return [rng.choice(("--help", "--version", "chek", "--x", ""))] if rng.random() < 0.02 else []


def _disturbed(arguments: list[str], rng: random.Random) -> list[str]:
    """Return the arguments; now and then one is dropped, said twice, misspelt or strange."""
    changed = list(arguments)
    if changed and rng.random() < 0.08:
        place = rng.randrange(len(changed))
        if changed[place] in ("--draws", "4", "--no-isolate"):
            return changed
        how = rng.choice(("drop", "twice", "misspell", "hostile", "help"))
        changed[place : place + 1] = {
            "drop": [], "twice": [changed[place]] * 2, "misspell": [changed[place][:-1] + "x"],
            "hostile": [rng.choice(HOSTILE)], "help": ["--help"],
        }[how]  # fmt: skip
    return changed


def _options(command: str, rng: random.Random) -> list[str]:
    options = OPTIONS[command]
    found: list[str] = []
    for name in rng.sample(list(options), min(len(options), rng.choice((0, 1, 1, 2, 3)))):
        values = options[name]
        found += [name, _value(name, values, rng)] if values else [name]
    return found


def _value(name: str, values: tuple[str, ...], rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.5:
        return values[0]
    if chance < 0.8:
        return rng.choice(values)
    return rng.choice([v for v in HOSTILE if name not in _COUNTS or v not in ENDLESS])


def _files(command: str, folder: Path, rng: random.Random) -> list[str]:
    """Return the arguments without options, and write the files among them."""
    if command in ("predict", "map") or (command == "spectrum" and rng.random() < 0.5):
        return [rng.choice(WIDTHS if rng.random() < 0.9 else HOSTILE)]
    if command == "explain":
        return [
            rng.choice(("IND001", "IND018", "vanishing-gradient", "IND099", "ind001", *HOSTILE))
        ]
    if command in ("report", "compare"):
        names = [f"{i}.json" for i in range(1 + (command == "compare"))]
        for name in names:
            write_json(folder / name, "report", rng)
        return [
            name if rng.random() < 0.95 else rng.choice(("none.json", "folder.py", "net.py"))
            for name in names
        ]
    if command == "screen":
        return _screening(folder, rng)
    write_json(folder / "base.json", "baseline", rng)
    if command == "check" and rng.random() < 0.25:
        write_table(folder / "pyproject.toml", rng)
        return []
    return [_target(rng) for _ in range(1 if rng.random() < 0.8 else 2)]


def _screening(folder: Path, rng: random.Random) -> list[str]:
    suffix = rng.choice((".csv", ".jsonl", ".parquet"))
    write_candidates(folder / f"in{suffix}", rng)
    output = rng.choice(
        (f"out{suffix}",) * 8
        + (f"in{suffix}", f"none/o{suffix}", "o.txt", "folder.py", f"o{suffix}.x")
    )
    return [
        f"in{suffix}" if rng.random() < 0.95 else rng.choice(("none.csv", "net.py")),
        "-o",
        output,
    ]


def _target(rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.2:
        return "net.py:ok"
    if chance < 0.8:
        return f"net.py:{rng.choice(NAMES)}"
    odd = ("net.py", ":ok", "net.py:", "net.py:ok.x", "net.py:nn.Linear", "net.py:torch", "folder.py:x", "os:getcwd",
           "json:dumps", "none.py:x", "net:ok", "a..b:c", ".:x", "net.py:okk")  # fmt: skip
    return rng.choice((*odd, *(f"{name}:x" for name in OTHERS), *HOSTILE))
