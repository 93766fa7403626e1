"""RESULTS.md from runs.csv: who is right how often, by the plan's halves and rules."""

from __future__ import annotations

import csv
import math
from pathlib import Path

FALLS = (0.02, 0.05, 0.1, 0.2, 0.3)
SURE = 0.9
RULES = ("either", "trial", "trial unless sure")


READING = """\
Read plainly: on these networks the law alone and the trial alone are right equally often on the held-out half, and no
rule for both beats the trial alone. Fifty steps are too few for plateaus: of the networks that the law calls healthy
and that are stuck after 50 steps, half start later. And overfitting one batch does not see whether anything general
is learnt: sine nets and Fourier features of too high a frequency fit a batch and nothing else. A network that the law
calls healthy and that is stuck therefore gets a risk of one half, not more; one whose numbers are not finite gets the
trial's own. A trial that starts against the law in the user's own setting is right in two of three. Networks of
constant weights count as started by the plan's definition, though their units stay alike.

"""


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def law(row):
    """Whether the law lets it pass: no verdict does not."""
    return row["verdict"] == "HEALTHY"


def trial(row, least, which="own"):
    """Whether the trial started."""
    return row[f"{which}_failed"] == "False" and float(row[which]) >= least


def both(row, rule, least, which="own"):
    """Whether the network passes by the law and the trial together."""
    if rule == "either":
        return law(row) and trial(row, least, which)
    if rule == "trial":
        return trial(row, least, which)
    is_sure = float(row["risk"]) >= SURE
    return trial(row, least, which) and not is_sure


def package(row, least, which="own"):
    """What `initdiag.diagnosing.witness` does: a structural verdict stays; one that did
    not start is at risk; a made-up setting lowers no risk."""
    if not trial(row, least, which) or row["verdict"] == "SYMMETRIC":
        return False
    return which == "own" or law(row)


def right(rows, passes):
    return sum(passes(row) == (row["started"] == "True") for row in rows)


def wilson(k, n, z=1.96):
    p = k / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def said(rows, passes):
    k, n = right(rows, passes), len(rows)
    low, high = wilson(k, n)
    alarms = sum(not passes(r) and r["started"] == "True" for r in rows)
    missed = sum(passes(r) and r["started"] != "True" for r in rows)
    return f"{k}/{n} | {k / n:.0%} ({low:.0%} to {high:.0%}) | {alarms} | {missed}"


def chosen(rows):
    """The share and the rule that are best on the even numbers."""
    least = max(FALLS, key=lambda f: (right(rows, lambda r: trial(r, f)), -abs(math.log(f / 0.1))))
    rule = max(RULES, key=lambda r: right(rows, lambda row: both(row, r, least)))
    return least, rule


def lines(rows):
    even = [row for row in rows if int(row["number"]) % 2 == 0]
    odd = [row for row in rows if int(row["number"]) % 2]
    least, rule = chosen(even)
    yield "# A trial of 50 steps beside 400 steps of training: results"
    yield ""
    yield "Made from `runs.csv` by `python tests/evidence/trial/study.py --summary`; the plan is in `PLAN.md`."
    yield f"{len(rows)} networks; {sum(r['started'] == 'True' for r in rows)} started in 400 steps."
    yield ""
    yield f"Chosen on the even numbers: a start is a fall of {least:g}; the rule *{rule}*."
    yield ""
    yield "| even numbers, fall | right by the trial alone |"
    yield "|---|---|"
    for fall in FALLS:
        yield f"| {fall:g} | {right(even, lambda r, f=fall: trial(r, f))}/{len(even)} |"
    yield ""
    yield "| even numbers, rule | right |"
    yield "|---|---|"
    for name in RULES:
        yield f"| {name} | {right(even, lambda r, n=name: both(r, n, least))}/{len(even)} |"
    yield ""
    witnesses = {
        "law alone": law,
        "trial alone, own targets": lambda r: trial(r, least),
        "trial alone, made-up targets": lambda r: trial(r, least, "made_up"),
        **{f"both, {name}": (lambda r, n=name: both(r, n, least)) for name in RULES},
        "both, as the package has it": lambda r: package(r, least),
        "both, made-up targets, as the package has it": lambda r: package(r, least, "made_up"),
    }
    for name, part in (("odd numbers (held out)", odd), ("all", rows)):
        yield f"| {name} | right | share (95 % Wilson) | started, called at risk | did not start, let pass |"
        yield "|---|---|---|---|---|"
        for witness, passes in witnesses.items():
            yield f"| {witness} | {said(part, passes)} |"
        yield ""
    yield from cells(rows, least)
    yield "| CPU seconds, median | |"
    yield "|---|---|"
    for field, name in (
        ("law_s", "law and measurement"),
        ("trial_s", "trial"),
        ("truth_s", "400 steps"),
    ):
        values = sorted(float(r[field]) for r in rows)
        yield f"| {name} | {values[len(values) // 2]:.2f} |"
    yield ""
    yield READING
    yield "Networks that the package's rule (own targets) gets wrong:"
    yield ""
    yield "| number | kind | training | law | risk | fall | score / reference | started |"
    yield "|---|---|---|---|---|---|---|---|"
    for r in rows:
        if package(r, least) != (r["started"] == "True"):
            how = f"{r['optimizer']} {r['lr']}, {r['loss']}"
            yield (
                f"| {r['number']} | {r['kind']} | {how} | {r['verdict']} | {float(r['risk']):.2f} "
                f"| {float(r['own']):.2f} | {float(r['score']):.2f} / {float(r['reference']):.2f} "
                f"| {r['started']} |"
            )


def cells(rows, least):
    """How many did not start in 400 steps, by what the two witnesses say."""
    yield "What the shipped rule takes from this (all networks, chosen after the plan's halves had been seen):"
    yield ""
    yield "| law | trial, own targets | did not start in 400 steps | as a risk (Jeffreys) |"
    yield "|---|---|---|---|"
    for is_well, name in ((True, "HEALTHY"), (False, "at risk")):
        part = [r for r in rows if law(r) == is_well and r["verdict"] != "SYMMETRIC"]
        for kind in ("starts", "stuck", "not finite"):
            inside = [r for r in part if fate(r, least) == kind]
            k, n = sum(r["started"] != "True" for r in inside), len(inside)
            if n:
                yield f"| {name} | {kind} | {k} of {n} | {(k + 0.5) / (n + 1):.2f} |"
    yield ""


def fate(row, least):
    if row["own_failed"] == "True":
        return "not finite"
    return "starts" if trial(row, least) else "stuck"


def write(folder: Path):
    text = "\n".join(lines(rows_of(folder / "runs.csv"))) + "\n"
    (folder / "RESULTS.md").write_text(text)
