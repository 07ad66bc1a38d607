"""What TAP and SEP share: train a surrogate on the clean data, then one pass that makes every sample's noise."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.optimised import KeptNoise
from medveil.baselines.surrogates import Surrogate, moved
from medveil.dataset import Dataset
from medveil.feed import Feed, Samples
from medveil.quantise import to_unit
from medveil.runtime import Runtime, State, batches, joined_batches, local_slice
from medveil.store import NoiseStore
from medveil.surrogate import frozen

Craft = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(images float [N, C, H, W] in [0, 1], targets, keys) -> noise, against the frozen surrogate."""


class TrainThenAttack:
    """``epochs`` of training, then an attack on each batch in the order of the data, none left out."""

    def __init__(
        self, protector: KeptNoise, data: Dataset, runtime: Runtime, epochs: int, augment: bool, attack_batch: int
    ) -> None:
        self.protector, self.config, self.data, self.runtime = protector, protector.config, data, runtime
        self.method, self.augment = protector.name, augment
        self.surrogate = Surrogate(self.config, data, runtime, self.method)
        self.feed = Feed.of_protector(data, runtime.device)
        self.store = NoiseStore(keyed.keys_of(data.ids), (data.channels, *data.size), runtime, torch.int8)
        self.batch = self.config.batch(data.task)
        self.groups = len(joined_batches(range(len(data)), self.batch))
        self.training_steps = epochs * self.groups
        self.attacks = batches(range(len(data)), attack_batch)

    def run(
        self,
        craft: Craft,
        trained: Callable[[int], None] = lambda done: None,
        extra: Callable[[], State] = dict,
        load_extra: Callable[[State], None] = lambda state: None,
    ) -> None:
        """Train, attack with ``craft``, and let the protector keep the noise. Goes on from a checkpoint.

        ``trained`` is told after each step of the training how many are done; ``extra`` is what it keeps of them in a
        checkpoint, which ``load_extra`` takes back.
        """
        state = self.runtime.restore()
        done = 0
        if state is not None:
            self.surrogate.load(state["surrogate"])
            self.store.load(state["noise"])
            load_extra(state["extra"])
            done = state["done"]
        total = self.training_steps + len(self.attacks)
        for batch, samples in self.feed.along(self._batches(done, total)):
            if done < self.training_steps:
                loss = self._train(done, batch, samples)
                trained(done + 1)
            else:
                loss = self._attack(batch, samples, craft)
            done += 1
            self.runtime.step(done, total, partial(self._state, done, extra), loss=loss)
        self.protector.keep(self.store.merged(), self.store.keys)

    def _batches(self, done: int, total: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
        """The global batch of every step from ``done`` on, and this rank's part of it."""
        for step in range(done, total):
            if step >= self.training_steps:
                batch = self.attacks[step - self.training_steps]
                yield batch, self.store.local_slice(batch)
                continue
            epoch, place = divmod(step, self.groups)
            order = keyed.permutation(len(self.data), self.config.seed, f"{self.method} order", epoch)
            batch = joined_batches(order, self.batch)[place]
            yield batch, local_slice(batch, self.runtime)

    def _train(self, done: int, batch: Sequence[int], samples: Samples) -> Tensor:
        x, targets, keys = to_unit(samples.images), samples.targets, samples.keys
        if self.augment:
            x, targets = moved(self.config, f"{self.method} model", done, keys, x, targets)
        return self.surrogate.train(x, targets, len(batch), self.surrogate.decay(done, self.training_steps))

    def _attack(self, batch: Sequence[int], samples: Samples, craft: Craft) -> Tensor:
        with frozen(self.surrogate.net, evaluation=True):
            noise = craft(to_unit(samples.images), samples.targets, samples.keys)
        # Final at once, so kept as what is released of it: a checkpoint holds one byte where it would hold four.
        self.store.write(self.store.local_slice(batch), self.protector.whole(noise))
        return noise.abs().sum() / max(1, noise.numel())  # what progress shows in place of a loss: there is none

    def _state(self, done: int, extra: Callable[[], State]) -> State:
        return {"surrogate": self.surrogate.state(), "noise": self.store.merged(), "extra": extra(), "done": done}
