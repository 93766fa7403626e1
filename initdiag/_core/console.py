"""rich, imported in one place.

Its first import draws from Python's random numbers, which are the user's: their state
is kept.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

__all__ = [
    "Console",
    "ConsoleOptions",
    "Group",
    "Padding",
    "RenderResult",
    "RenderableType",
    "Rule",
    "Segment",
    "Table",
    "Text",
    "cell_len",
]


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


with _random_state_kept():
    from rich.cells import cell_len
    from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
    from rich.padding import Padding
    from rich.rule import Rule
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text
