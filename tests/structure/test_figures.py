"""The structure's figures may fall, and may not rise: see ``figures.py`` for what they mean."""

from __future__ import annotations

import pytest
from structure.figures import (
    circles,
    figures,
    file_graph,
    floors,
    functions,
    prose,
    room_graph,
    sources,
)

AT_MOST = {
    "rooms": 18,
    "floors of rooms": 15,
    "arrows between rooms": 80,
    "circles of rooms": 2,
    "circles of rooms, on loading": 0,
    "circles of files": 7,
    "circles of files, on loading": 0,
    "lines over 100 columns": 20,
    "docstrings that open with Of or The same": 2,
}
"""Lower one of these whenever the code allows it.

The circles that are left are records whose methods hand over, inside the method, to what is built
on the record (`Report.to_html`, `Law.__add__`), and imports for types alone.
"""

LONG_FILES = {
    "initdiag/cli/main.py",
    "initdiag/diagnosing/diagnose.py",
    "initdiag/diagnosing/findings.py",
    "initdiag/law/batch/laws.py",
    "initdiag/law/distributions/lattice.py",
    "initdiag/law/distributions/line.py",
    "initdiag/law/gradients.py",
    "initdiag/law/predict.py",
    "initdiag/law/prediction.py",
    "initdiag/measuring/ensembles/networks.py",
    "initdiag/measuring/passes/gradients.py",
    "initdiag/network/architecture.py",
    "initdiag/screening/sizing.py",
    "initdiag/tracing/inputs.py",
    "initdiag/tracing/torch_calls.py",
}
"""Files of more than 300 lines. This list may only shrink."""

FILES = sources()


@pytest.fixture(scope="module")
def today():
    return figures(FILES)


@pytest.mark.parametrize("name", AT_MOST)
def test_a_figure_does_not_rise(name, today):
    assert today[name] <= AT_MOST[name]


def test_no_further_file_is_long():
    long = {path for path, text in FILES.items() if len(text.splitlines()) > 300}
    assert long <= LONG_FILES
    assert LONG_FILES - set(FILES) == set(), "a file that has gone leaves the list"


def test_no_function_is_long():
    assert [function.name for function in functions(FILES) if function.code > 40] == []


SAMPLE = {
    "initdiag/low.py": "",
    "initdiag/middle/__init__.py": "",
    "initdiag/middle/one.py": "import initdiag.low\n",
    "initdiag/middle/two.py": """
from initdiag.middle.one import name
def f():
    from initdiag import high
""",
    "initdiag/high.py": "from initdiag.middle import two\n",
    "initdiag/top.py": "if TYPE_CHECKING:\n    from initdiag.high import Name\n",
}


def test_rooms_arrows_floors_and_circles_of_a_sample():
    """Counted by hand: high and middle import each other, the one way only inside a function."""
    graph = room_graph(file_graph(SAMPLE))
    assert graph == {
        "low.py": set(),
        "middle": {"low.py", "high.py"},
        "high.py": {"middle"},
        "top.py": {"high.py"},
    }
    assert circles(graph) == [{"middle", "high.py"}]
    assert floors(graph) == 4
    loaded = room_graph(file_graph(SAMPLE, on_loading=True))
    assert circles(loaded) == []
    assert loaded["top.py"] == set()
    assert circles(file_graph(SAMPLE)) == [{"initdiag/high.py", "initdiag/middle/two.py"}]


def test_lines_of_functions_and_of_prose_in_a_sample():
    text = '''"""First."""
class C:
    def f(self):
        """Second,

        in three lines.
        """
        x = """no docstring"""  # a remark
        # a comment
        return x
'''
    (function,) = functions({"initdiag/c.py": text})
    assert (function.name, function.lines, function.code) == ("initdiag/c.py:C.f", 8, 3)
    assert [line.strip() for line in prose(text)] == [
        '"""First."""', '"""Second,', "", "in three lines.", '"""', "# a comment",
    ]  # fmt: skip
