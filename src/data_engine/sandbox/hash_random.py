"""Compute numbers that look random and are always the same: a hash of a key and a position, in numpy."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from data_engine.sandbox.bar_columns import Floats, Ints

Bits = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

_FIRST = np.uint64(0xBF58476D1CE4E5B9)

_SECOND = np.uint64(0x94D049BB133111EB)


def key(*words: object) -> int:
    """Return 64 bits that stand for *words*, on every machine and in every version of Python."""
    text = "/".join(str(word) for word in words)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def share(*words: object) -> float:
    """Return a number in [0, 1) that stands for *words*."""
    return key(*words) / 2**64


def bits(stream: int, positions: Ints) -> Bits:
    """Return 64 bits for each of *positions* in the *stream* (a value of `key`); the finalizer of SplitMix64."""
    mixed = positions.astype(np.uint64) * _GOLDEN + np.uint64(stream)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


def uniform(stream: int, positions: Ints) -> Floats:
    """Return a number in [0, 1) for each of *positions*."""
    return np.asarray((bits(stream, positions) >> np.uint64(11)) * 2.0**-53, np.float64)


def quarter(mixed: Bits, part: int) -> Floats:
    """Return a number in [0, 1) made of 16 of the 64 bits: four from one hash, *part* is 0 to 3."""
    return np.asarray(((mixed >> np.uint64(16 * part)) & np.uint64(0xFFFF)) * 2.0**-16, np.float64)
