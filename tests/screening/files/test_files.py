"""``initdiag screen``: files in, files out, nothing lost."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import initdiag
from initdiag.cli import main as cli
from initdiag.errors import InvalidInput, TargetError
from initdiag.screening.files import parquet, text
from initdiag.screening.files.run import Counts, rejects_of, screen_file

OPTIONS = {"init": "he_normal", "max_risk": 0.1}


def architectures(count, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(4, 200, generator.integers(2, 40)).tolist() for _ in range(count)]


def as_json(path, rows):
    path.write_text(
        "".join(json.dumps({"id": i, "widths": row}) + "\n" for i, row in enumerate(rows))
    )
    return path


def as_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [("id", "widths"), *((i, ",".join(map(str, row))) for i, row in enumerate(rows))]
        )
    return path


def as_parquet(path, rows, row_group_size=None):
    pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = pyarrow.table({"id": list(range(len(rows))), "widths": rows})
    pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)
    return path


def read(path):
    """``{id: risk}`` of what was kept."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(path).to_pylist()
    return {int(row["id"]): float(row["initdiag_risk"]) for row in rows}


WRITERS = {".jsonl": as_json, ".csv": as_csv, ".parquet": as_parquet}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_kept_is_what_screen_accepts(tmp_path, kind):
    rows = architectures(300)
    expected = initdiag.screen(rows, **OPTIONS)
    source = WRITERS[kind](tmp_path / f"in{kind}", rows)
    counts = screen_file(source, tmp_path / f"out{kind}", **OPTIONS)
    kept = {i: float(expected.risk[i]) for i in np.flatnonzero(expected.accepted).tolist()}
    assert read(tmp_path / f"out{kind}") == kept
    assert counts == Counts(300, len(kept), 300 - len(kept), 0)
    assert 0 < len(kept) < 300
    assert {path.name for path in tmp_path.iterdir()} == {f"in{kind}", f"out{kind}"}


class Stop(Exception):
    pass


def small_batches(monkeypatch):
    for module in (text, parquet):
        monkeypatch.setattr(module, "_ROWS", 37)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_run_that_is_interrupted_leaves_nothing_and_the_next_one_is_whole(
    tmp_path, monkeypatch, kind
):
    small_batches(monkeypatch)
    rows = architectures(400)
    rows[5], rows[200], rows[399] = [7], [8, 0, 8], []
    source, output = tmp_path / f"in{kind}", tmp_path / f"out{kind}"
    as_parquet(source, rows, 50) if kind == ".parquet" else WRITERS[kind](source, rows)

    def stop(read, size, counts):
        if counts.rows > 100:
            raise Stop

    with pytest.raises(Stop):
        screen_file(source, output, progress=stop, **OPTIONS)
    assert {path.name for path in tmp_path.iterdir()} == {source.name}
    seen, notes = [], []
    counts = screen_file(
        source,
        output,
        progress=lambda read, size, counts: seen.append((counts.rows, read / size)),
        note=notes.append,
        **OPTIONS,
    )
    assert (counts.rows, counts.rejected, seen[-1], notes) == (400, 3, (400, 1.0), [])
    expected = initdiag.screen([row for row in rows if len(row) > 1 and 0 not in row], **OPTIONS)
    assert counts.kept == len(read(output)) == expected.accepted.sum()


KILLED = """
import os, sys
from pathlib import Path
from initdiag.screening.files import text, parquet
from initdiag.screening.files.run import screen_file
text._ROWS = parquet._ROWS = 37
def kill(read, size, counts):
    if counts.rows > 100:
        os.kill(os.getpid(), 9)
screen_file(Path(sys.argv[1]), Path(sys.argv[2]), progress=kill, init="he_normal", max_risk=0.1)
"""


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.slow
def test_a_run_that_is_killed_leaves_the_old_output_and_the_next_one_says_so(tmp_path, kind):
    rows = [*architectures(300), [7]]
    source, output = WRITERS[kind](tmp_path / f"in{kind}", rows), tmp_path / f"out{kind}"
    output.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, source, output], check=False)
    assert done.returncode == -9
    assert output.read_bytes() == b"old"
    assert not rejects_of(output).exists()
    notes: list[str] = []
    counts = screen_file(source, output, note=notes.append, **OPTIONS)
    assert counts.rows == 301
    assert counts.kept == len(read(output))
    assert len(notes) == 1
    assert "begins anew" in notes[0]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {source.name, output.name, rejects_of(output).name}


@pytest.mark.parametrize("kind", WRITERS)
def test_one_run_at_a_time_writes_an_output(tmp_path, kind):
    source, output = tmp_path / f"in{kind}", tmp_path / f"out{kind}"
    WRITERS[kind](source, [*architectures(50), [7]])
    (tmp_path / f"link{kind}").symlink_to(output)
    refused = []

    def again(read, size, counts):
        for other in (output, tmp_path / f"link{kind}"):
            with pytest.raises(TargetError, match="one run at a time"):
                screen_file(source, other, **OPTIONS)
            refused.append(other)

    counts = screen_file(source, output, progress=again, **OPTIONS)
    assert len(refused) == 2
    assert counts.rejected == len(rejects_of(output).read_text().splitlines()) == 1
    assert len(read(output)) == counts.kept


BY_PRODUCTS = ("rejects.jsonl", "rejects.jsonl.partial", "partial", "lock", "state.json")


@pytest.mark.parametrize("how", ["itself", "link", "hard link", "output by link"])
@pytest.mark.parametrize("ending", BY_PRODUCTS)
def test_an_outputs_own_by_products_are_no_input(tmp_path, ending, how):
    own, output = tmp_path / f"k.jsonl.{ending}", tmp_path / "k.jsonl"
    own.write_text('{"line": 1, "reason": "no", "row": [8, 8]}\n')
    source = tmp_path / "in.jsonl"
    if how == "itself":
        if not own.name.endswith(".jsonl"):
            pytest.skip("is refused by its name")
        source = own
    elif how == "hard link":
        source.hardlink_to(own)
    else:
        source.symlink_to(own)
    if how == "output by link":
        output = tmp_path / "other.jsonl"
        output.symlink_to(tmp_path / "k.jsonl")
    before = own.read_bytes()
    with pytest.raises(TargetError, match="candidates that are not"):
        screen_file(source, output, column="row", init="he_normal")
    assert own.read_bytes() == before
    assert not (tmp_path / "k.jsonl").exists()


def test_rejects_can_be_screened_into_another_output(tmp_path):
    (tmp_path / "k.jsonl.rejects.jsonl").write_text('{"line": 1, "row": [8, 8]}\n')
    counts = screen_file(
        tmp_path / "k.jsonl.rejects.jsonl", tmp_path / "o.jsonl", column="row", init="he_normal"
    )
    assert counts == Counts(1, 1, 0, 0)


GOOD = st.lists(st.integers(1, 500), min_size=2, max_size=6)
BAD_LISTS = st.one_of(
    st.lists(st.integers(1, 9), max_size=1),
    st.lists(st.integers(-5, 0), min_size=2, max_size=4),
    st.lists(st.integers(1_000_001, 10**40), min_size=2, max_size=3),
    st.lists(
        st.one_of(st.floats(), st.none(), st.booleans(), st.text(max_size=3)),
        min_size=2,
        max_size=4,
    ),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            GOOD.map(lambda row: (row, True)),
            st.one_of(BAD_LISTS, ANYTHING).map(lambda row: (row, None)),
        )
    )
)
def test_json_of_any_kind_is_kept_judged_or_rejected(tmp_path, rows):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"widths": row}) + "\n" for row, _ in rows))
    counts = screen_file(source, output, init="he_normal", max_risk=1.0)
    assert counts.rows == len(rows)
    assert counts.kept + counts.at_risk + counts.rejected == counts.rows
    assert counts.kept >= sum(good is True for _, good in rows)
    rejects = output.with_name("out.jsonl.rejects.jsonl")
    found = (
        [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []
    )
    assert len(found) == counts.rejected
    assert all(entry["reason"] and rows[entry["line"] - 1][1] is None for entry in found)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([b'"8,8"', b"8 8 8", b"[8, 8]", b"8x3", b'"8,8']),
        ),
        max_size=9,
    )
)
@pytest.mark.parametrize("kind", [".csv", ".jsonl"])
def test_bytes_of_any_kind_are_counted_line_by_line(tmp_path, kind, lines):
    source, output = tmp_path / f"in{kind}", tmp_path / f"out{kind}"
    header = b"widths\n" if kind == ".csv" else b""
    source.write_bytes(header + b"\n".join(lines))
    body = source.read_bytes()[len(header) :]
    counts = screen_file(source, output, init="he_normal")
    assert counts.rows == body.count(b"\n") + (len(body) > 0 and not body.endswith(b"\n"))
    assert counts.kept + counts.at_risk + counts.rejected == counts.rows
    assert len(output.read_bytes().splitlines()) == counts.kept + (kind == ".csv")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[8]", "1 widths"),
        ("[]", "0 widths"),
        ("[8, NaN]", "width 1: a positive integer, got nan"),
        ("[8, -8]", "width 1: a positive integer, got -8"),
        ("[8, true]", "got True"),
        ('[8, "8"]', "got '8'"),
        ("[8, 1e3]", "got 1000.0"),
        ("[8, 2000000]", "width 1 is 2000000"),
        ("[8, 1" + "0" * 5000 + "]", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"width": [8, 8]}', "an object without 'widths'"),
        ('{"widths": "8,8x999999999999"}', "the part '8x999999999999'"),
        ('{"widths": "8x900000"}', "100002 widths"),
        ("7", "expected a list of widths, got '7'"),
        ("", "an empty line"),
        ("[1, 1, 1, 1]", None),
    ],
)
def test_rejects_say_why_and_where(tmp_path, line, reason):
    source = tmp_path / "in.jsonl"
    source.write_text(f"[8, 8]\n{line}\n[8, 8]\n")
    counts = screen_file(source, tmp_path / "out.jsonl", init="he_normal")
    if reason is None:
        assert counts == Counts(3, 2, 1, 0)
        return
    assert counts == Counts(3, 2, 0, 1)
    entry = json.loads((tmp_path / "out.jsonl.rejects.jsonl").read_text())
    assert reason in entry["reason"]
    assert entry["line"] == 2
    assert entry["row"] == line[:200]


DEEP = "[" * 983 + "]" * 983


@pytest.mark.parametrize(
    "line", [DEEP, f'{{"widths": {DEEP}}}', f"[8, {DEEP}]", '{"a":' * 900 + "1" + "}" * 900]
)
def test_a_row_of_any_depth_is_one_reject(tmp_path, line):
    source = tmp_path / "in.jsonl"
    source.write_text(f"[8, 8]\n{line}\n[8, 8]\n")
    assert screen_file(source, tmp_path / "out.jsonl", init="he_normal") == Counts(3, 2, 0, 1)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (
            '{"a": 1.10, "a": 2, "widths": [8,  8]}',
            '{"a": 1.10, "a": 2, "widths": [8,  8], "initdiag_risk": R}',
        ),
        (
            '{"widths": "8,8", "n": 1e400, "u": "\\ud800\\u00e9"} ',
            '{"widths": "8,8", "n": 1e400, "u": "\\ud800\\u00e9", "initdiag_risk": R}',
        ),
        (" [8,8]", '{"widths": [8,8], "initdiag_risk": R}'),
        ('"8x2"', '{"widths": "8x2", "initdiag_risk": R}'),
        (
            '{"initdiag_risk": 7, "a":1.10 ,"initdiag_risk" : {"b": "}"},"widths":[8,8]}',
            '{"a":1.10, "widths":[8,8], "initdiag_risk": R}',
        ),
        ('{"widths":[8,8]}\r', '{"widths":[8,8], "initdiag_risk": R}\r'),
        (f'{{"widths":[8,8],"d":{DEEP[:400]}{DEEP[-400:]}}}', None),
    ],
)
def test_a_kept_row_is_its_own_text_with_the_risk(tmp_path, line, kept):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(f"{line}\n".encode())
    assert screen_file(source, output, init="he_normal") == Counts(1, 1, 0, 0)
    kept = kept or f'{line[:-1]}, "initdiag_risk": R}}'
    risk = repr(float(initdiag.screen([[8, 8]], init="he_normal").risk[0]))
    assert output.read_bytes().decode() == f"{kept.replace('R', risk)}\n"


def test_a_mark_of_byte_order_and_a_lines_end_stay_as_they_came(tmp_path):
    mark = b"\xef\xbb\xbf"
    (tmp_path / "in.jsonl").write_bytes(mark + b"[8, 8]\n[7]\n")
    counts = screen_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", init="he_normal")
    assert counts == Counts(2, 1, 0, 1)
    assert (tmp_path / "out.jsonl").read_bytes().startswith(mark + b'{"widths": [8, 8], "init')
    (tmp_path / "in.csv").write_bytes(mark + b"widths,a\r\n8 8,1.10\r\n8 8,b\n8 8,c")
    assert screen_file(tmp_path / "in.csv", tmp_path / "out.csv", init="he_normal").kept == 3
    lines = (tmp_path / "out.csv").read_bytes().split(b"\n")
    assert lines[0] == mark + b"widths,a,initdiag_risk\r"
    assert [line[:5] for line in lines[1:]] == [b"8 8,1", b"8 8,b", b"8 8,c", b""]
    assert [line.endswith(b"\r") for line in lines[1:]] == [True, False, False, False]


def test_a_damaged_parquet_page_is_said_and_leaves_nothing(tmp_path):
    source = as_parquet(tmp_path / "in.parquet", architectures(2000))
    data = bytearray(source.read_bytes())
    data[100:2000] = bytes(1900)
    source.write_bytes(data)
    with pytest.raises(TargetError, match="a Parquet file that is whole"):
        screen_file(source, tmp_path / "out.parquet", **OPTIONS)
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet"}


def test_a_parquet_batch_is_bounded_by_its_widths(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_WIDTHS", 1000)
    source = as_parquet(tmp_path / "in.parquet", [[8] * 100] * 95)
    seen = []
    screen_file(
        source, tmp_path / "out.parquet", progress=lambda r, s, c: seen.append(c.rows), **OPTIONS
    )
    assert max(np.diff(seen)) <= 10
    assert seen[-1] == 95


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("place", ["none/out", "folder"])
def test_an_output_that_cannot_be_written_is_said(tmp_path, kind, place):
    source = WRITERS[kind](tmp_path / f"in{kind}", [[8, 8]])
    (tmp_path / f"folder{kind}").mkdir()
    with pytest.raises(TargetError, match=r"can be written, got No such file|two files"):
        screen_file(source, tmp_path / f"{place}{kind}", **OPTIONS)


def test_what_the_law_does_not_cover_is_rejected_not_lost(tmp_path):
    source = as_json(tmp_path / "in.jsonl", [[64, 64, 10], [1, 2], [64, 64, 10]])
    assert screen_file(source, tmp_path / "out.jsonl") == Counts(3, 2, 0, 1)
    assert "not covered" in (tmp_path / "out.jsonl.rejects.jsonl").read_text()


def test_a_line_of_any_length_is_one_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_LONGEST", 100)
    source = tmp_path / "in.jsonl"
    source.write_text("[8, 8]\n[" + "8, " * 1000 + "8]\n[8, 8]\n")
    assert screen_file(source, tmp_path / "out.jsonl", init="he_normal") == Counts(3, 2, 0, 1)


def test_parquet_rejects_and_other_columns(tmp_path):
    pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [[8, 8], None, [8, None], [], [8, 0], [2_000_000, 8], [16, 16]]
    table = pyarrow.table(
        {"name": list("abcdefg"), "net": pyarrow.array(rows, pyarrow.list_(pyarrow.int32()))}
    )
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    counts = screen_file(
        tmp_path / "in.parquet", tmp_path / "out.parquet", column="net", init="he_normal"
    )
    assert counts == Counts(7, 2, 0, 5)
    kept = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert kept.column_names == ["name", "net", "initdiag_risk"]
    assert kept["name"].to_pylist() == ["a", "g"]
    lines = [
        json.loads(line)["line"]
        for line in (tmp_path / "out.parquet.rejects.jsonl").read_text().splitlines()
    ]
    assert lines == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("values", [[[8.0, 8.0]], ["8,8"], [8]])
def test_parquet_of_other_types_is_refused_at_once(tmp_path, values):
    source = as_parquet(tmp_path / "in.parquet", values)
    with pytest.raises(TargetError, match="lists of integers"):
        screen_file(source, tmp_path / "out.parquet")
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet"}


def test_parquet_without_pyarrow_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "in.parquet").write_bytes(b"")
    with pytest.raises(TargetError, match=r'pip install "initdiag\[arrow\]"'):
        screen_file(tmp_path / "in.parquet", tmp_path / "out.parquet")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_ROWS", 500)
    peaks = []
    for count in (2000, 16_000):
        source = as_json(tmp_path / f"{count}.jsonl", [[8, 8, 8]] * count)
        tracemalloc.start()
        screen_file(source, tmp_path / f"out{count}.jsonl", init="he_normal")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("in.csv", "out.jsonl"), "two files of one kind"),
        (("in.txt", "out.txt"), "two files of one kind"),
        (("in.csv", "in.csv"), "two files of one kind"),
        (("none.csv", "out.csv"), "a file"),
        (("in.csv", "out.csv"), "a header with a column 'widths'"),
        (("in.parquet", "out.parquet"), "a Parquet file that is whole"),
    ],
)
def test_wrong_files(tmp_path, names, message):
    (tmp_path / "in.csv").write_text("784,256,10\n")
    (tmp_path / "in.parquet").write_text("no\n")
    if "Parquet" in message:
        pytest.importorskip("pyarrow")
    with pytest.raises(TargetError, match=message):
        screen_file(*(tmp_path / name for name in names))


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_what_was_kept_can_be_screened_again(tmp_path, suffix):
    """The earlier risk gives way to the new one."""
    rows = [[16, 16, 16], [8] * 30, [64, 64, 10]]
    first, second, once = (tmp_path / f"{name}{suffix}" for name in ("first", "second", "once"))
    source = WRITERS[suffix](tmp_path / f"in{suffix}", rows)
    screen_file(source, first, init="he_normal", max_risk=1.0)
    counts = screen_file(first, second, init="he_normal", lr=0.5)
    screen_file(source, once, init="he_normal", lr=0.5)
    assert counts.rows == 3
    assert read(second) == read(once)
    assert second.read_bytes() == once.read_bytes() or suffix == ".parquet"


def test_an_earlier_risk_in_any_column_gives_way(tmp_path):
    (tmp_path / "in.csv").write_text('initdiag_risk,id,widths\n0.5,1,"64,64,10"\n')
    screen_file(tmp_path / "in.csv", tmp_path / "out.csv", init="he_normal")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "id,widths,initdiag_risk"
    assert lines[1].startswith('1,"64,64,10",0.')
    assert lines[1].count(",") == 4


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("784,256,10", "Write a header as the first line"),
        ('"784,256x3,10"', "Write a header as the first line"),
        ("id,layers", "Name the column of the widths with --column"),
    ],
)
def test_a_csv_without_the_column_is_told_what_to_do(tmp_path, header, message):
    (tmp_path / "in.csv").write_text(f"{header}\n784,256\n")
    with pytest.raises(TargetError, match=message):
        screen_file(tmp_path / "in.csv", tmp_path / "out.csv")


def test_a_width_is_not_repeated_no_times(tmp_path):
    (tmp_path / "in.csv").write_text("widths\n8 8x0 8\n8 8x2 8\n")
    assert screen_file(tmp_path / "in.csv", tmp_path / "out.csv", init="he_normal") == Counts(
        2, 1, 0, 1
    )


def test_wrong_options_touch_no_file(tmp_path):
    source = as_json(tmp_path / "in.jsonl", [[8, 8]])
    with pytest.raises(InvalidInput, match="init"):
        screen_file(source, tmp_path / "out.jsonl", init="unknown")
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}


def test_the_command(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text('id,widths\n1,"784,256x3,10"\n2,784 16x80 10\n3,oops\n')
    done = CliRunner().invoke(
        cli._group,
        [
            "screen",
            str(source),
            "--max-risk",
            "0.3",
            "-o",
            str(tmp_path / "out.csv"),
            "--init",
            "he_normal",
        ],
    )
    assert done.exit_code == 0, done.output
    assert "3 rows: 1 kept, 1 at risk, 1 rejected" in done.output
    assert "out.csv.rejects.jsonl" in done.output
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "id,widths,initdiag_risk"
    assert lines[1].startswith('1,"784,256x3,10",0.')


def test_progress_on_a_terminal(capsys, monkeypatch):
    from initdiag.cli import screen as cli_screen

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with cli_screen._progress(True) as show:
        show(5, 10, Counts(5, 3, 1, 1))
    with cli_screen._progress(False) as show:
        show(5, 10, Counts(5, 3, 1, 1))
    assert "5 rows, 3 kept, 1 rejected" in capsys.readouterr().err
