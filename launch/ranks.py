"""This process among those of its job, as torchrun or SLURM tell it in the environment."""

import os


def rank() -> int:
    """Its number; 0 is the first, which speaks for all, and one that is alone."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes the job has."""
    return int(os.environ.get("WORLD_SIZE", "1"))
