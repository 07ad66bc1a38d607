"""SALM: Algorithm 1 with the inner loop of the text, and the noise of the final source model."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from medveil import keyed
from medveil.config import build
from medveil.dataset import Dataset, Task
from medveil.feed import Feed, Samples
from medveil.folding import folded, refold
from medveil.graphs import Replayed
from medveil.losses import classification_loss, global_mean
from medveil.method import MethodSettings
from medveil.networks import ResNet18, last_stage, stem_for
from medveil.optimisers import fused_on
from medveil.protector import Budget
from medveil.quantise import to_unit, whole_levels
from medveil.runtime import Runtime, SingleProcess, State, batches, local_slice, trainable_batches
from medveil.salm.config import SALMConfig
from medveil.salm.noise import Visit
from medveil.shards import cuts
from medveil.store import NoiseStore, rows_of
from medveil.surrogate import seeded
from medveil.transforms import apply_flip_shift

_CHUNK = 1024


class SALM:
    """Sparse error-minimising noise: at each step only the k% of elements with the largest gradients move."""

    name: ClassVar[str] = SALMConfig.name
    Config: ClassVar[type[MethodSettings]] = SALMConfig

    def __init__(self, **options: Any) -> None:
        self.config: SALMConfig = build(SALMConfig, options, self.name)
        self.runtime: Runtime = SingleProcess()
        self.stored: tuple[Tensor, Tensor] | None = None
        self._fixed: nn.Module | None = None
        self._replayed: dict[str, Replayed] = {}

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "SALM":
        """Train the source model with the noise against it. Raises ``ValueError`` for a segmentation set, and UserError
        when k leaves no element to move, and when images are too few and too small to train on."""
        if data.task not in self.config.tasks:
            raise ValueError(f"{self.name} protects classification sets, not {data.task}")
        self.config.check_size(data.channels, data.size)
        pixels = last_stage(data.size)
        per_epoch = len(trainable_batches(range(len(data)), self.config.batch_size, pixels))
        if runtime is not None:
            self.runtime = runtime
        self._create(data.task, data.channels, data.num_classes, data.size)
        trainer = _Trainer(self, data)
        state = self.runtime.restore()
        done = 0 if state is None else trainer.resume(state)
        if state is None:
            trainer.begin()
        while done < self.config.steps:
            epoch, place = divmod(done, per_epoch)
            order = keyed.permutation(len(data), self.config.seed, "salm order", epoch)
            rest = trainable_batches(order, self.config.batch_size, pixels)[place:]
            for batch, samples in zip(rest, trainer.samples(rest), strict=True):
                loss = trainer.step(batch, samples, done)
                done += 1
                self.runtime.step(done, self.config.steps, partial(trainer.checkpoint, done), loss=loss)
                if done == self.config.steps:
                    break
        if trainer.store is not None:
            self.stored = trainer.store.keys, trainer.store.merged()
        return self

    def perturb(self, images: Tensor, targets: Tensor, ids: Sequence[str]) -> Tensor:
        """Protected float32 images [N, C, H, W] in [0, 1] for uint8 ``images``, with fresh noise for every sample.

        The noise is a function of the final source model, the id and the seed; with ``release`` "stored" it is that
        of the fit, and an id that was not fitted raises ``ValueError``.
        """
        x = to_unit(images)
        keys = keyed.keys_of(ids, x.device)
        if self.config.release == "stored":
            return torch.clamp(x + self._stored_noise(keys), 0, 1)
        visit = self.visit("salm release", 0)
        return torch.clamp(x + visit.noise(x, targets, keys), 0, 1)

    def visit(self, purpose: str, step: int) -> Visit:
        """A visit against the source model as it now is, in eval mode."""
        if self._fixed is None:
            with self.runtime.autocast():
                self._fixed = fixed = folded(self.source)
            self._loss = partial(self._fixed_loss, torch.compile(fixed) if self.config.compile else fixed)
            self._replayed = {}
        else:
            refold(self._fixed, self.source)
        if self.config.graph and purpose not in self._replayed:
            self._replayed[purpose] = Replayed(Visit(self.config, self._loss, purpose, 0).crafted)
        return Visit(self.config, self._loss, purpose, step, self._replayed.get(purpose))

    def _fixed_loss(self, source: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor) -> Tensor:
        with self.runtime.autocast():
            logits = source(images)
        return classification_loss(logits, targets, self.task)

    def budget(self) -> Budget:
        strict = self.config.mode == "strict"
        return Budget(levels=whole_levels(self.config.eps), changed=self.config.fraction if strict else None)

    def support(self, targets: Tensor) -> Tensor | None:
        return None

    def state_dict(self) -> State:
        shape = {"task": self.task, "channels": self.channels, "num_classes": self.num_classes, "size": list(self.size)}
        return {"shape": shape, "source": self.source.state_dict(), "stored": self.stored}

    def load_state_dict(self, state: State) -> None:
        if not hasattr(self, "source"):
            shape = state["shape"]
            self._create(shape["task"], shape["channels"], shape["num_classes"], tuple(shape["size"]))
        self.source.load_state_dict(state["source"])
        self.stored = state["stored"]

    def _create(self, task: Task, channels: int, num_classes: int, size: tuple[int, int]) -> None:
        self.task, self.channels, self.num_classes, self.size = task, channels, num_classes, size
        self.stored = None
        self.source = seeded(
            lambda: ResNet18(channels, num_classes, self.config.width, stem_for(size)),
            self.config.seed,
            "salm source",
        )
        self.source.to(self.runtime.device).to(memory_format=torch.channels_last)
        self._fixed = None

    def _stored_noise(self, keys: Tensor) -> Tensor:
        if self.stored is None:
            raise ValueError("there is no stored noise: fit first")
        known, noise = self.stored
        return noise[rows_of(known, keys)].to(keys.device)


class _Trainer:
    """One step of Algorithm 1 on a global batch: a visit of the noise, then one SGD step of the source model."""

    def __init__(self, salm: SALM, data: Dataset) -> None:
        self.salm, self.config, self.data, self.runtime = salm, salm.config, data, salm.runtime
        config = self.config
        self.wrapped = self.runtime.wrap(salm.source)
        self.optimiser = SGD(
            salm.source.parameters(),
            config.learning_rate,
            config.momentum,
            weight_decay=config.weight_decay,
            **fused_on(self.runtime.device),
        )
        self.schedule = StepLR(self.optimiser, config.decay_every, 0.1)
        self.store: NoiseStore | None = None
        if config.start == "stored":
            self.store = NoiseStore(keyed.keys_of(data.ids), (data.channels, *data.size), self.runtime)
        self.feed = Feed.of_protector(data, self.runtime.device)

    def begin(self) -> None:
        """Algorithm 1, line 2: noise that is kept starts at random, of every sample."""
        if self.store is None:
            return
        visit = self.salm.visit("salm stored", 0)
        for some in batches(range(len(self.data)), _CHUNK):
            mine = self.store.local_slice(some)
            images, _, ids = self.data.read(mine)
            self.store.write(mine, visit.start(to_unit(images), keyed.keys_of(ids)))

    def _local_slice(self, batch: Sequence[int]) -> Sequence[int]:
        return local_slice(batch, self.runtime) if self.store is None else self.store.local_slice(batch)

    def samples(self, groups: Sequence[Sequence[int]]) -> Iterator[Samples]:
        """This rank's samples of each of these global batches, on the device."""
        return self.feed.batches([self._local_slice(batch) for batch in groups])

    def step(self, batch: Sequence[int], samples: Samples, done: int) -> Tensor:
        """One step on the global ``batch``, of which ``samples`` are this rank's."""
        mine, device = self._local_slice(batch), self.runtime.device
        x, targets, keys = to_unit(samples.images), samples.targets, samples.keys
        visit = self.salm.visit("salm fit", done)
        start = None if self.store is None else self.store.read(mine, device)
        parts = cuts(len(mine), self.runtime.local_shards)
        noise = torch.cat(
            [visit.noise(x[part], targets[part], keys[part], None if start is None else start[part]) for part in parts]
        )
        if self.store is not None:
            self.store.write(mine, noise)
        transform = visit.transform(keys, self.config.pgd_steps, 1, x.shape)
        with self.runtime.autocast():
            logits = self.wrapped(apply_flip_shift(x + noise, transform))
        losses = classification_loss(logits, targets, self.data.task)
        loss = global_mean(losses, len(batch), self.runtime.world)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        return loss.detach()

    def checkpoint(self, done: int) -> State:
        stored = self.store.merged() if self.store is not None else None
        return {
            "protector": self.salm.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "noise": stored,
            "done": done,
        }

    def resume(self, state: State) -> int:
        """Continue from a checkpoint; returns the steps done."""
        self.salm.load_state_dict(state["protector"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if self.store is not None:
            self.store.load(state["noise"])
        done: int = state["done"]
        return done
