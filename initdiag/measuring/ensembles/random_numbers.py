"""Counter-based random numbers: draw ``i`` has the same ones whatever the chunk size,
thread or machine count.

Draws come in blocks of ``BLOCK``; block ``b`` of a stream has its own generator, seeded
by (seed, stream, b).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "BLOCK",
    "bits",
    "directions",
    "draw_seed",
    "normals",
    "signs",
    "uniforms",
]

BLOCK = 256
"""Draws that share a generator; chunks begin and end at multiples of it."""

SIGN_BLOCK = 2048
"""Signs a block: there are many, and they are cheap."""

_STREAMS = {
    "direction": 0,
    "signs": 1,
    "dropout": 2,
    "redraw": 3,
    "law": 4,
    "cotangent": 5,
    "own noise": 6,
    "trial": 7,
}


def _generator(seed: int, stream: str, *path: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence((seed, _STREAMS[stream], *path)))
    )


def _by_block(
    draws: range, make: Callable[[int], NDArray[np.generic]], size: int = BLOCK
) -> NDArray[np.generic]:
    """Return the rows ``draws`` of the endless array whose block ``b`` of ``size`` rows
    is ``make(b)``.
    """
    blocks = range(draws.start // size, -(-draws.stop // size))
    offset = draws.start - blocks.start * size
    return np.concatenate([make(b) for b in blocks])[offset : offset + len(draws)]


def bits(seed: int, draws: range, stream_index: int, width: int) -> NDArray[np.uint8]:
    """Return fair bits, shape ``(len(draws), width)``: 1 stands for the sign -1."""
    size = -(-width // 8)

    def block(index: int) -> NDArray[np.generic]:
        raw = _generator(seed, "signs", stream_index, index).bytes(SIGN_BLOCK * size)
        return np.frombuffer(raw, dtype=np.uint8).reshape(SIGN_BLOCK, size)

    return np.unpackbits(_by_block(draws, block, SIGN_BLOCK).view(np.uint8), axis=1, count=width)


def signs(seed: int, draws: range, stream_index: int, width: int) -> NDArray[np.int8]:
    """Return fair signs +-1, shape ``(len(draws), width)``, from `bits`."""
    return 1 - 2 * bits(seed, draws, stream_index, width).view(np.int8)


def uniforms(seed: int, draws: range, stream_index: int, width: int) -> NDArray[np.float32]:
    """Return uniform numbers on [0, 1), shape ``(len(draws), width)``, for dropout
    masks.
    """

    def block(index: int) -> NDArray[np.generic]:
        return _generator(seed, "dropout", stream_index, index).random(
            (BLOCK, width), dtype=np.float32
        )

    return _by_block(draws, block).view(np.float32)


def normals(seed: int, draws: range, stream_index: int, width: int, stream: str = "law") -> Tensor:
    """Return standard normal numbers, float32 on the CPU, shape ``(len(draws),
    width)``.

    By torch's vectorised Box-Muller, three times faster than NumPy's: another kind of
    processor may differ in the last digit.
    """
    first, last = draws.start // BLOCK, -(-draws.stop // BLOCK)
    rows = torch.empty((last - first) * BLOCK, width, dtype=torch.float32, device="cpu")
    generator = torch.Generator("cpu")
    for index, block in enumerate(rows.split(BLOCK), start=first):
        block.normal_(generator=generator.manual_seed(_derived(seed, stream, stream_index, index)))
    return rows[draws.start - first * BLOCK :][: len(draws)]


def directions(seed: int, draws: range, width: int, stream: str = "direction") -> Tensor:
    """Return uniform unit vectors, float32 on the CPU, shape ``(len(draws), width)``:
    of the input, or of the output (``"cotangent"``).
    """
    normal = normals(seed, draws, 0, width, stream)
    return normal.div_(torch.linalg.vector_norm(normal, dim=1, keepdim=True))


def draw_seed(seed: int, draw: int, stream: str = "redraw") -> int:
    """Return the 63-bit seed of one draw's initialiser, or of its ``"own noise"``."""
    return _derived(seed, stream, draw)


def _derived(seed: int, stream: str, *path: int) -> int:
    state = np.random.SeedSequence((seed, _STREAMS[stream], *path)).generate_state(2, np.uint64)
    return int(state[0] >> np.uint64(1))
