"""Random numbers that depend on the seed and the place in the run alone: a resumed run draws the same ones."""

import hashlib
import os
import random

import numpy as np
import torch


def seed_place(*place: int) -> None:
    """Seeds torch (all devices), numpy and Python for one place of a run: an epoch, or a batch of it, on one rank.

    Nothing needs to be saved or restored: whoever comes to the same place, at once or after an interruption, draws the
    same numbers. Without effect where no seed was set (`seed_everything`).

    Args:
        *place: Names the place, for instance epoch, batch and rank.
    """
    seed = os.environ.get("PL_GLOBAL_SEED")
    if seed is None:
        return
    digest = hashlib.blake2b(repr((int(seed), *place)).encode(), digest_size=8).digest()
    value = int.from_bytes(digest, "little") >> 1  # torch takes 63 bits
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)
