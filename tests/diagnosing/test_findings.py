"""One catalogue of findings: every code in it, none elsewhere, and what is made from it."""

from __future__ import annotations

import ast
import re

import pytest
from support.places import PACKAGE

from initdiag import InvalidInput
from initdiag.cli.main import main
from initdiag.diagnosing import findings
from initdiag.diagnosing.findings import CATALOGUE, Kind, Severity, kind_of

CODE = re.compile(r"IND\d{3}")
OTHERS = [path for path in PACKAGE.rglob("*.py") if path.name != "findings.py"]


def docstrings(tree: ast.AST) -> set[int]:
    """Identities of the constants that stand alone as a statement: docstrings."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def code_literals(source: str) -> list[int]:
    """Lines of texts, docstrings aside, that hold a code."""
    tree = ast.parse(source)
    skipped = docstrings(tree)
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in skipped
        and CODE.search(node.value)
    ]


def test_the_search_finds_a_code():
    assert code_literals('"""IND001 in a docstring."""\nx = f("IND001")\ny = f"no {x} IND002"') == [
        2,
        3,
    ]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_code_is_written_outside_the_catalogue(path):
    assert code_literals(path.read_text(encoding="utf-8")) == []


def test_the_catalogue_is_in_order_and_whole():
    kinds = [kind for kind in vars(findings).values() if isinstance(kind, Kind)]
    assert list(CATALOGUE.values()) == kinds
    assert list(CATALOGUE) == sorted(CATALOGUE)
    assert len({kind.name for kind in kinds}) == len(CATALOGUE)
    for code, kind in CATALOGUE.items():
        assert CODE.fullmatch(code)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", kind.name)
        for _, text in kind.sections():
            assert re.fullmatch(r"[A-Z`].+[.]", text)
            assert "  " not in text


def test_every_kind_is_found_somewhere():
    used = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for path in OTHERS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute | ast.Name)
    }
    names = {name for name, kind in vars(findings).items() if isinstance(kind, Kind)}
    assert names <= used


def test_severities_are_ranked():
    assert sorted(Severity, key=lambda severity: severity.rank) == ["error", "warning", "note"]
    found = findings.DEAD.at("0.weight", "m", "r")
    assert (found.code, found.severity, found.layer) == ("IND004", "error", "0.weight")
    assert findings.DEAD.at(None, "m", "r", Severity.NOTE).severity is Severity.NOTE


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_page_says_it_all(code):
    kind = CATALOGUE[code]
    page = kind.to_markdown()
    assert page.startswith(f"# {code}: {kind.name}\n\n")
    assert kind.meaning in page
    assert kind.why in page
    assert kind.mend in page
    assert kind_of(code.lower()) is kind_of(kind.name) is kind


@pytest.mark.parametrize(
    ("code", "nearest"),
    [("IND112", "IND012"), ("vanishing", "IND001"), ("IND2", "IND02"), ("", "IND")],
)
def test_an_unknown_code_names_the_nearest(code, nearest):
    with pytest.raises(InvalidInput, match=rf"got '{code}'. Did you mean {nearest}"):
        kind_of(code)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_explain_on_the_command_line(capsys):
    code, out, err = run(capsys, "explain", "IND012")
    assert (code, err) == (0, "")
    kind = CATALOGUE["IND012"]
    flat = " ".join(out.split())
    assert flat.startswith("IND012: inputs-collapse (warning) What it means")
    assert all(" ".join(text.split()) in flat for _, text in kind.sections())
    assert max(map(len, out.splitlines())) <= 88
    code, out, _ = run(capsys, "explain")
    assert [line.split()[0] for line in out.splitlines()] == list(CATALOGUE)
    code, out, err = run(capsys, "explain", "IND112")
    assert (code, out) == (2, "")
    assert "Did you mean IND012 (inputs-collapse)?" in err
