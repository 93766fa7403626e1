"""rich, imported in one place: its first import draws from Python's random numbers, which are the user's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

__all__ = ["Console", "Group", "Padding", "RenderableType", "Rule", "Table", "Text"]


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


with _random_state_kept():
    from rich.console import Console, Group, RenderableType
    from rich.padding import Padding
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text
