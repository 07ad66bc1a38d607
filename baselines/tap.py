"""TAP, adversarial poisoning (Fowl et al., NeurIPS 2021): adversarial examples of a model trained on the clean data."""

from typing import ClassVar

import torch
from torch import Tensor

from medveil.baselines.attack import TrainThenAttack
from medveil.baselines.classes import wrong_targets
from medveil.baselines.config import TAPConfig
from medveil.baselines.optimised import KeptNoise
from medveil.baselines.surrogates import Surrogate, descended, moved, random_start
from medveil.dataset import Dataset
from medveil.folding import folded
from medveil.method import MethodSettings
from medveil.runtime import Runtime, SingleProcess


class TAP(KeptNoise):
    """Noise that makes a model trained on clean images wrong: whoever trains on it learns the wrong features."""

    name: ClassVar[str] = TAPConfig.name
    Config: ClassVar[type[MethodSettings]] = TAPConfig

    def fit(self, data: Dataset, runtime: Runtime | None = None) -> "TAP":
        """Make the noise of ``data``. Raises UserError when a setting does not fit the task."""
        self.begin(data)
        config: TAPConfig = self.config
        targeted = config.goal == "targeted"
        if targeted:
            wrong_targets(torch.zeros(1, dtype=torch.int64), data.task, data.num_classes, config.shift)
        runtime = runtime or SingleProcess()
        stages = TrainThenAttack(self, data, runtime, config.epochs, config.augment, config.batch(data.task))

        def craft(x: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
            aim = wrong_targets(targets, data.task, data.num_classes, config.shift) if targeted else targets
            return self._craft(stages.surrogate, x, aim, 1.0 if targeted else -1.0, keys, self.support(targets))

        stages.run(craft)
        self.match(data, runtime)
        return self

    def _craft(
        self, surrogate: Surrogate, x: Tensor, aim: Tensor, sign: float, keys: Tensor, where: Tensor | None
    ) -> Tensor:
        """The noise with the lowest ``sign`` * loss towards ``aim`` of all restarts, [N, C, H, W]."""
        config: TAPConfig = self.config
        with surrogate.runtime.autocast():
            net = folded(surrogate.net)
        best = torch.zeros_like(x)
        lowest = torch.full((len(x),), torch.inf, device=x.device)
        for restart in range(config.restarts):
            noise = random_start(config, "tap start", restart, keys, x, self.eps)
            noise = noise if where is None else noise * where
            for step in range(config.pgd_steps):
                number = restart * config.pgd_steps + step

                def objective(images: Tensor, number: int = number) -> Tensor:
                    seen, goal = moved(config, "tap transform", number, keys, images, aim)
                    return sign * surrogate.losses(seen, goal, net)

                gradient = surrogate.gradient(objective, x + noise)
                noise = descended(noise, gradient, x, config.relative_step * self.eps, self.eps, where)
            with torch.no_grad():
                reached = sign * surrogate.losses(x + noise, aim, net)
            better = reached < lowest
            best = torch.where(better[:, None, None, None], noise, best)
            lowest = torch.where(better, reached, lowest)
        return best
