"""SEP, self-ensemble protection (Chen et al., ICLR 2023): adversarial examples of the checkpoints of one training."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medveil import keyed
from medveil.baselines.attack import TrainThenAttack
from medveil.baselines.classes import count_of, membership, wrong_targets
from medveil.baselines.config import SEPConfig
from medveil.baselines.optimised import KeptNoise
from medveil.baselines.surrogates import descended
from medveil.dataset import Dataset
from medveil.errors import UserError
from medveil.method import MethodSettings
from medveil.quantise import to_unit
from medveil.runtime import Runtime, SingleProcess, State, batches, local_slice

Weights = dict[str, Tensor]


class SEP(KeptNoise):
    """Adversarial noise that holds for a whole training, not only for its last model."""

    name: ClassVar[str] = SEPConfig.name
    Config: ClassVar[type[MethodSettings]] = SEPConfig

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "SEP":
        """Make the noise of ``data``. Raises UserError when a setting does not fit the task or the set's size."""
        self.begin(data)
        config: SEPConfig = self.config
        shift = max(1, data.num_classes // 2) if config.shift is None else config.shift
        wrong_targets(torch.zeros(1, dtype=torch.int64), data.task, data.num_classes, shift)
        if config.objective == "feature":
            count_of(data.task, data.num_classes)
        runtime = runtime or SingleProcess()
        stages = TrainThenAttack(self, data, runtime, config.epochs, config.augment, config.batch(data.task))
        if stages.training_steps < config.checkpoints:
            raise UserError(
                f"{config.checkpoints} checkpoints do not fit in {stages.training_steps} training steps: "
                "give more --epochs"
            )
        ensemble = _Ensemble(config, stages, data)

        def craft(x: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
            aim = wrong_targets(targets, data.task, data.num_classes, shift)
            return self._craft(ensemble, x, aim, self.support(targets))

        stages.run(craft, ensemble.trained, ensemble.state, ensemble.load)
        self.match(data, runtime)
        return self

    def _craft(self, ensemble: "_Ensemble", x: Tensor, aim: Tensor, where: Tensor | None) -> Tensor:
        config: SEPConfig = self.config
        noise = torch.zeros_like(x)
        for step in range(config.pgd_steps):
            mean = ensemble.mean_gradient(x + noise, aim)
            if config.variance == "reduced":
                mean = self._corrected(ensemble, x, aim, where, noise, mean, step)
            noise = descended(noise, mean, x, config.step_size, self.eps, where)
        return noise

    def _corrected(
        self,
        ensemble: "_Ensemble",
        x: Tensor,
        aim: Tensor,
        where: Tensor | None,
        noise: Tensor,
        mean: Tensor,
        step: int,
    ) -> Tensor:
        """The sum of variance-reduced gradients along an inner walk that visits every checkpoint once.

        The walk steps along the sum so far, as the ensemble attack that the authors take it from does.
        """
        config: SEPConfig = self.config
        inner, total = noise, torch.zeros_like(noise)
        for number in keyed.permutation(config.checkpoints, config.seed, "sep inner order", step):
            gradient = ensemble.gradient(number, x + inner, aim) - ensemble.gradient(number, x + noise, aim) + mean
            total = total + gradient
            inner = descended(inner, total, x, config.step_size, self.eps, where)
        return total


class _Ensemble:
    """The checkpoints of the training, and the objective and gradient of each."""

    def __init__(self, config: SEPConfig, stages: TrainThenAttack, data: Dataset) -> None:
        self.config, self.stages, self.data = config, stages, data
        self.surrogate, self.runtime = stages.surrogate, stages.runtime
        steps = stages.training_steps
        self.moments = {-(-steps * (number + 1) // config.checkpoints) for number in range(config.checkpoints)}
        self.weights: list[Weights] = []
        self.features: list[Tensor] = []

    def trained(self, done: int) -> None:
        if done in self.moments:
            net = self.surrogate.net
            self.weights.append({name: value.detach().clone() for name, value in net.state_dict().items()})

    def mean_gradient(self, images: Tensor, aim: Tensor) -> Tensor:
        total = torch.zeros_like(images)
        for number in range(len(self.weights)):
            total += self.gradient(number, images, aim)
        return total / len(self.weights)

    def gradient(self, number: int, images: Tensor, aim: Tensor) -> Tensor:
        """The gradient of checkpoint ``number``'s objective towards ``aim``, [N, C, H, W]."""
        weights = self.weights[number]
        if self.config.objective == "label":
            net: Callable[[Tensor], Tensor] = lambda x: functional_call(self.surrogate.net, weights, (x,))  # noqa: E731
            return self.surrogate.gradient(lambda x: self.surrogate.losses(x, aim, net), images)
        wanted = self._means()[number]
        members = membership(aim, self.data.task, len(wanted))
        target = torch.einsum("nkhw,kf->nfhw", members, wanted)
        return self.surrogate.gradient(lambda x: (self._features(weights, x) - target).square().mean((1, 2, 3)), images)

    def _features(self, weights: Weights, x: Tensor) -> Tensor:
        """What checkpoint ``weights`` gives its last layer, float [N, F, H, W]; H = W = 1 for classification."""
        found: list[Tensor] = []
        head = self.surrogate.net.get_submodule("head")
        height, width = x.shape[-2:]

        def listen(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            found.append(given[0])

        handle = head.register_forward_pre_hook(listen)
        try:
            with self.runtime.autocast():
                functional_call(self.surrogate.net, weights, (x,))
        finally:
            handle.remove()
        features = found[0].float()
        return features[..., :height, :width] if features.ndim == 4 else features[:, :, None, None]

    @torch.no_grad()
    def _means(self) -> list[Tensor]:
        """For each checkpoint the mean features of each class over the clean data, [classes, F]."""
        if not self.features:
            count = count_of(self.data.task, self.data.num_classes)
            self.features = [self._mean_of(weights, count) for weights in self.weights]
        return self.features

    def _mean_of(self, weights: Weights, count: int) -> Tensor:
        device = self.runtime.device
        total: Tensor | None = None
        members_total = torch.zeros(count, device=device)
        groups = batches(range(len(self.data)), self.stages.batch)
        for samples in self.stages.feed.batches(local_slice(group, self.runtime) for group in groups):
            features = self._features(weights, to_unit(samples.images))
            members = membership(samples.targets, self.data.task, count)
            part = torch.einsum("nkhw,nfhw->kf", members, features)
            total = part if total is None else total + part
            members_total += members.sum((0, 2, 3))
        assert total is not None
        total, members_total = self.runtime.all_reduce(total), self.runtime.all_reduce(members_total)
        return total / members_total.clamp_min(1)[:, None]

    def state(self) -> State:
        return {"weights": self.weights, "features": self.features}

    def load(self, state: State) -> None:
        device = self.runtime.device
        self.weights = [{name: value.to(device) for name, value in one.items()} for one in state["weights"]]
        self.features = [means.to(device) for means in state["features"]]
