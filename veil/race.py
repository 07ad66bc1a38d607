"""The race: of several fixed tiles the one that fresh networks meet first, found by knock-out."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Adam

from medveil.dataset import Dataset
from medveil.feed import Feed
from medveil.losses import global_mean
from medveil.optimisers import fused_on
from medveil.quantise import to_unit
from medveil.runtime import Runtime, State
from medveil.veil import swapping
from medveil.veil.noise import Fixed
from medveil.veil.pipeline import pipeline
from medveil.veil.place import Place
from medveil.veil.tiles import TILES
from medveil.veil.training import batch_at, losses, through_pipeline
from medveil.veil.young import fresh, network


class Race:
    """Rounds in which a fresh surrogate learns from each tile that is left, with the same weights and samples.

    Every noise lies on another image, so that it alone tells the mask: what is met first has the lowest loss over the
    ``heat`` steps of a round. The better half of the tiles, by the mean over their rounds, goes into the next round.
    """

    def __init__(self, noise: nn.Module, place: Place, data: Dataset, runtime: Runtime) -> None:
        assert isinstance(noise, Fixed)
        self.noise, self.place, self.config, self.data, self.runtime = noise, place, place.config, data, runtime
        self.names = list(TILES)
        self.left = list(range(len(self.names)))
        # On the device, so that no step waits for it; read at the end of a round.
        self.sums = torch.zeros(len(self.names), dtype=torch.float64, device=runtime.device)
        self.surrogate = network(self.config, place.shape).to(runtime.device)
        self.wrapped = runtime.wrap(self.surrogate)
        rate, device = self.config.surrogate_learning_rate, runtime.device
        self.optimiser = Adam(self.surrogate.parameters(), rate, **fused_on(device))
        self.feed = Feed.of_protector(data, device)
        self.maps = place.cache(len(data), device)
        self.rounds = [count for count in halves(len(self.names)) if count > 1]

    @property
    def total(self) -> int:
        return sum(self.rounds) * self.config.heat

    def visits(self, first: int) -> Iterator[swapping.Visit]:
        """What every step from ``first`` on is to be given."""
        batches = map(self._batch, range(first, self.total))
        return swapping.visits(self.feed, self.runtime, batches, 1, self.config.seed, first)

    def _batch(self, step: int) -> Sequence[int]:
        turn, age = divmod(step, self.config.heat)
        return batch_at(len(self.data), self.config, self.place.shape, f"veil race {self._round(turn)[0]}", age)

    def step(self, step: int, visit: swapping.Visit) -> Tensor:
        """The mean loss of the global batch of ``step``, detached."""
        config = self.config
        turn, age = divmod(step, config.heat)
        number, place = self._round(turn)
        tile = self.left[place]
        if age == 0:
            self._begin(tile, number)
        x, targets = to_unit(visit.samples.images), visit.samples.targets
        known = None if self.maps is None else self.maps.get(visit.mine, x, targets)
        noise = self.place.bound(x, targets, known) * self.noise(x, targets).mean(1)
        seen = swapping.shown(x, noise, visit)
        moment = number * config.heat + age
        if through_pipeline(config, moment, 1.0):
            seen = pipeline(seen, config.seed, moment, 1.0, visit.samples.keys)
        with self.runtime.autocast():
            logits = self.wrapped(seen.contiguous(memory_format=torch.channels_last))
        loss = global_mean(losses(logits, targets, self.data.task), len(visit.batch), self.runtime.world)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        loss = self.runtime.all_reduce(loss.detach()) / self.runtime.world
        self.sums[tile] += loss.double() / config.heat
        if age == config.heat - 1 and place == self.rounds[number] - 1:
            self._end(number)
        return loss

    def _begin(self, tile: int, number: int) -> None:
        net = fresh(lambda: network(self.config, self.place.shape), self.config.seed, f"veil race {number}")
        self.surrogate.load_state_dict(net.state_dict())
        self.optimiser.state.clear()
        self.noise.tile.copy_(TILES[self.names[tile]].expand_as(self.noise.tile))

    def _end(self, number: int) -> None:
        """The better half goes on; the last one is the noise."""
        kept = halves(len(self.names))[number + 1]
        sums = self.sums.tolist()
        self.left = sorted(self.left, key=lambda tile: sums[tile])[:kept]
        self.noise.tile.copy_(TILES[self.names[self.left[0]]].expand_as(self.noise.tile))

    def _round(self, turn: int) -> tuple[int, int]:
        """The round of a turn, and the place of its tile in it."""
        for number, count in enumerate(self.rounds):
            if turn < count:
                return number, turn
            turn -= count
        raise IndexError(turn)

    def checkpoint(self, done: int) -> State:
        return {
            "noise": self.noise.state_dict(),
            "surrogate": self.surrogate.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "left": self.left,
            "sums": self.sums,
            "done": done,
        }

    def resume(self, state: State) -> int:
        """Continue from a checkpoint; returns the steps done."""
        self.noise.load_state_dict(state["noise"])
        self.surrogate.load_state_dict(state["surrogate"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.left = state["left"]
        self.sums.copy_(state["sums"])
        done: int = state["done"]
        return done


def halves(count: int) -> list[int]:
    """``count``, half of it rounded up, and so on to 1."""
    found = [count]
    while found[-1] > 1:
        found.append(-(-found[-1] // 2))
    return found
