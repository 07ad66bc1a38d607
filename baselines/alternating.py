"""EM as UMed's tables have it: model and noise minimise the same loss in turn (Huang et al., ICLR 2021)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from medveil import keyed
from medveil.baselines.classes import composed, count_of, membership
from medveil.baselines.optimised import KeptNoise
from medveil.baselines.surrogates import Surrogate, descended, moved, random_start
from medveil.dataset import Dataset
from medveil.feed import Feed, Samples
from medveil.folding import folded
from medveil.quantise import to_unit
from medveil.runtime import Runtime, State, batches, joined_batches
from medveil.store import NoiseStore
from medveil.surrogate import frozen

_CHUNK = 256


class Alternation:
    """Rounds of ``model_steps`` on x + d, then a pass of ``noise_steps`` of sign descent over every sample."""

    def __init__(self, em: KeptNoise, data: Dataset, runtime: Runtime) -> None:
        self.em, self.config, self.data, self.runtime = em, em.config, data, runtime
        self.eps, self.device = em.eps, runtime.device
        self.surrogate = Surrogate(self.config, data, runtime, "em")
        self.feed = Feed.of_protector(data, runtime.device)
        batch = self.config.batch(data.task)
        self.batch, self.groups = batch, len(joined_batches(range(len(data)), batch))
        self.per_round = self.config.model_steps + self.groups
        self.converged = False
        self.error = torch.zeros(2, device=self.device)
        self.store: NoiseStore | None = None
        self.classes = self.sums = self.counts = torch.empty(0)
        if self.config.wise == "class":
            self._classes_start()
        else:
            self.store = NoiseStore(keyed.keys_of(data.ids), (data.channels, *data.size), runtime)
            self._samples_start(self.store)

    def run(self) -> None:
        """All rounds, or as many as the training error wants; the protector keeps the noise then. Resumes."""
        state = self.runtime.restore()
        done = 0 if state is None else self._resume(state)
        total = self.config.rounds * self.per_round
        steps = range(done, 0 if self.converged else total)
        for batch, samples in self.feed.along((batch, self._mine(batch)) for batch in map(self._batch, steps)):
            number, place = divmod(done, self.per_round)
            if place < self.config.model_steps:
                loss = self._model_step(number * self.config.model_steps + place, batch, samples)
            else:
                loss = self._noise_step(self._mine(batch), samples)
            done += 1
            if done % self.per_round == 0:
                self._end_round()
            self.runtime.step(done, total, partial(self._state, done), loss=loss)
            if self.converged:
                break
        if self.store is None:
            self.em.keep(self.em.whole(self.classes), None)
        else:
            self.em.keep(self.em.whole(self.store.merged()), self.store.keys)

    def _batch(self, step: int) -> Sequence[int]:
        """The global batch of a step."""
        number, place = divmod(step, self.per_round)
        if place >= self.config.model_steps:
            return joined_batches(range(len(self.data)), self.batch)[place - self.config.model_steps]
        epoch, place = divmod(number * self.config.model_steps + place, self.groups)
        order = keyed.permutation(len(self.data), self.config.seed, "em order", epoch)
        return joined_batches(order, self.batch)[place]

    def _mine(self, batch: Sequence[int]) -> list[int]:
        """This rank's part of it."""
        return [index for index in batch if index % self.runtime.world == self.runtime.rank]

    def _model_step(self, number: int, batch: Sequence[int], samples: Samples) -> Tensor:
        targets = samples.targets
        images = to_unit(samples.images) + self._noise_of(self._mine(batch), targets)
        if self.config.augment:
            images, targets = moved(self.config, "em model", number, samples.keys, images, targets)
        return self.surrogate.train(images, targets, len(batch))

    def _noise_step(self, mine: Sequence[int], samples: Samples) -> Tensor:
        """All the steps of one pass on a batch: the model rests meanwhile, so batches do not influence each other."""
        x, targets = to_unit(samples.images), samples.targets
        noise, where = self._noise_of(mine, targets), self.em.support(targets)
        loss = self._measure(x + noise, targets)
        with self.runtime.autocast():
            net = folded(self.surrogate.net)
        for _ in range(self.config.noise_steps):
            gradient = self.surrogate.gradient(lambda z: self.surrogate.losses(z, targets, net), x + noise)
            noise = descended(noise, gradient, x, self.config.relative_step * self.eps, self.eps, where)
        if self.store is not None:
            self.store.write(mine, noise)
            return loss
        members = membership(targets, self.data.task, len(self.classes))
        members = members if where is None else members * where
        self.sums += torch.einsum("nkhw,nchw->kchw", members.expand(-1, -1, *noise.shape[-2:]), noise)
        self.counts += members.sum(0)[:, None]
        return loss

    @torch.no_grad()
    def _measure(self, images: Tensor, targets: Tensor) -> Tensor:
        """Add the training error on ``images`` to the round's; returns their mean loss."""
        with frozen(self.surrogate.net, evaluation=True), self.runtime.autocast():
            logits = self.surrogate.net(images).float()
        task = self.data.task
        if task == "segmentation":
            # One minus the pooled Dice: where background is most of an image, calling all of it background is an error.
            predicted, truth = logits > 0, targets.bool()
            wrong, counted = (predicted ^ truth).sum(), predicted.sum() + truth.sum()
        elif task == "multilabel":
            differ = (logits > 0) ^ targets.bool()
            wrong, counted = differ.sum(), differ.new_tensor(differ.numel(), dtype=torch.int64)
        else:
            differ = logits.argmax(1) != targets
            wrong, counted = differ.sum(), differ.new_tensor(len(differ), dtype=torch.int64)
        self.error += torch.stack([wrong, counted]).float()
        losses = self.surrogate.loss_of(logits, targets)
        return losses.mean() if len(losses) else losses.sum()

    def _end_round(self) -> None:
        wrong, counted = self._summed(self.error).tolist()
        self.converged = wrong <= self.config.stop_error * counted
        self.error.zero_()
        if self.store is None:
            sums, counts = self._summed(self.sums), self._summed(self.counts)
            self.classes = torch.where(counts > 0, sums / counts.clamp_min(1), self.classes)
            self.sums.zero_()
            self.counts.zero_()

    def _noise_of(self, mine: Sequence[int], targets: Tensor) -> Tensor:
        if self.store is not None:
            return self.store.read(mine, self.device)
        noise = composed(self.classes, membership(targets, self.data.task, len(self.classes)))
        where = self.em.support(targets)
        return noise if where is None else noise * where

    def _samples_start(self, store: NoiseStore) -> None:
        if self.config.start == "zero":
            return
        groups = map(self._mine, batches(range(len(self.data)), _CHUNK))
        for mine, samples in self.feed.along((group, group) for group in groups):
            noise = random_start(self.config, "em start", 0, samples.keys, to_unit(samples.images), self.eps)
            where = self.em.support(samples.targets)
            store.write(mine, noise if where is None else noise * where)

    def _classes_start(self) -> None:
        count = count_of(self.data.task, self.data.num_classes)
        shape = (self.data.channels, *self.data.size)
        self.classes = torch.zeros(count, *shape, device=self.device)
        if self.config.start == "random":
            keys = keyed.keys_of([f"class {number}" for number in range(count)], self.device)
            self.classes += self.eps * (2 * keyed.uniform(self.config.seed, "em start", 0, keys, shape) - 1)
        self.sums = torch.zeros_like(self.classes)
        masks = self.data.task == "segmentation"
        self.counts = torch.zeros(count, 1, *(self.data.size if masks else (1, 1)), device=self.device)

    def _summed(self, tensor: Tensor) -> Tensor:
        return self.runtime.all_reduce(tensor.to(self.device)).clone()

    def _state(self, done: int) -> State:
        state: State = {"surrogate": self.surrogate.state(), "error": self._summed(self.error), "done": done}
        state["converged"] = self.converged
        if self.store is not None:
            state["noise"] = self.store.merged()
        else:
            state |= {"noise": self.classes, "sums": self._summed(self.sums), "counts": self._summed(self.counts)}
        return state

    def _resume(self, state: State) -> int:
        self.surrogate.load(state["surrogate"])
        self.converged = state["converged"]
        # What was summed over all ranks goes on with the first.
        part = float(self.runtime.rank == 0)
        self.error.copy_(state["error"] * part)
        if self.store is not None:
            self.store.load(state["noise"])
        else:
            self.classes.copy_(state["noise"])
            self.sums.copy_(state["sums"] * part)
            self.counts.copy_(state["counts"] * part)
        done: int = state["done"]
        return done
