"""Who moved the process's generators: the module that ran, or another thread meanwhile."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch

from initdiag.tracing import guard


def beside(draw) -> None:
    """Draw in another thread."""
    thread = threading.Thread(target=draw)
    thread.start()
    thread.join()


def meanwhile(run, draw, times: int = 1):
    """Return what runs while another thread draws, in its first calls."""
    calls = []

    def both():
        calls.append(None)
        if len(calls) <= times:
            beside(draw)
        return run()

    return both


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1)])
def test_another_threads_draws_are_not_the_modules(draw):
    with guard.untouched():
        guard.draws_at_random()
        assert guard.seen_to_draw(meanwhile(lambda: 3, draw)) == (3, False)
        assert guard.seen_to_draw(draw)[1]
        assert guard.seen_to_draw(meanwhile(draw, draw))[1]


def test_what_seeds_itself_is_still_seen_to_draw():
    def seeds_and_draws():
        random.seed(7)
        return random.random()

    with guard.untouched():
        guard.draws_at_random()
        assert guard.seen_to_draw(seeds_and_draws)[1]
