"""Sample inputs: given for calibration, or made where none are given; and the split in two."""

import numpy as np

from .calibration import Feeds, calibration_inputs
from .synthetic import synthetic_inputs

__all__ = ["Feeds", "calibration_inputs", "split", "synthetic_inputs"]


def split(feeds: list[Feeds], seed: int) -> tuple[list[Feeds], list[Feeds]]:
    """The samples to fit on and the samples to judge by, about 3:1, the same for a seed.

    Both keep the given order. A single sample is in both, since there is nothing else to judge
    by: `held_out is fit` holds then, and the caller says so.

    Example:
        >>> fit, held_out = split([{"x": np.ones(1)}] * 8, seed=0)
        >>> len(fit), len(held_out)
        (6, 2)
    """
    if len(feeds) < 2:
        return feeds, feeds
    order = np.random.default_rng(seed).permutation(len(feeds))
    held = set(order[: max(1, len(feeds) // 4)].tolist())
    fit = [feed for index, feed in enumerate(feeds) if index not in held]
    return fit, [feed for index, feed in enumerate(feeds) if index in held]
