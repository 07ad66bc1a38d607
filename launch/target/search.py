"""The search for the faintest noise that keeps a promise: the least bound at which any recipe keeps it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from medveil.launch.target.config import TOP


@dataclass(frozen=True)
class Probe:
    """What exploiters reached on one noise. ``levels``: its bound in grey levels; ``psnr`` in dB.

    ``scores``: of each attack that was tried, in percent, one for each seed.
    """

    recipe: str
    levels: int
    psnr: float
    scores: Mapping[str, Sequence[float]]

    @property
    def worst(self) -> str:
        """The attack with the highest mean."""
        return max(self.scores, key=self.mean)

    @property
    def reached(self) -> float:
        """The mean of the worst attack."""
        return self.mean(self.worst)

    def mean(self, attack: str) -> float:
        return fmean(self.scores[attack])

    def spread(self, attack: str) -> float | None:
        """The standard deviation over the seeds; None of a single one."""
        return stdev(self.scores[attack]) if len(self.scores[attack]) > 1 else None

    def hardest_first(self) -> list[str]:
        """The attacks, the one that is hardest to withstand first."""
        return sorted(self.scores, key=self.mean, reverse=True)


Measure = Callable[[str, int, Sequence[str], float | None], Probe]
"""(recipe, levels, attacks, limit) -> what these attacks reach, in their order, up to the first whose mean is above
``limit``.
"""


@dataclass(frozen=True)
class Found:
    """How a search ended. ``probe``: the faintest that keeps the promise if ``kept``, else the best of all."""

    kept: bool
    probe: Probe


def search(target: float, recipes: Sequence[str], attacks: Sequence[str], measure: Measure) -> Found:
    """The least bound at which the worst case of any of ``recipes`` reaches ``target``, with that recipe.

    At :data:`TOP` each recipe is measured with all attacks. Those that reach the target there are tried at the middle
    of the range, the best first, until one holds; so the range is halved. It is taken for granted that a larger bound
    protects better.
    """
    tops = sorted((measure(recipe, TOP, attacks, None) for recipe in recipes), key=lambda probe: probe.reached)
    if tops[0].reached > target:
        return Found(False, tops[0])
    tops = [top for top in tops if top.reached <= target]
    found, too_faint = tops[0], 0
    while found.levels - too_faint > 1:
        levels = (found.levels + too_faint) // 2
        for top in tops:
            probe = measure(top.recipe, levels, top.hardest_first(), target)
            if probe.reached <= target:
                found = probe
                break
        else:
            too_faint = levels
    return Found(True, found)


def most_probes(recipes: int) -> int:
    """The most noises that a search over so many recipes tries."""
    return recipes * (1 + (TOP - 1).bit_length())
