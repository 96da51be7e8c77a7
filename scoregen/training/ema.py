r"""Exponential moving average of the weights.

ema <- beta ema + (1 - beta) w,   beta = 0.5^(batch / h),   h = min(halflife, warmup * images seen)
"""

import torch
from torch import Tensor, nn

from scoregen.checks import at_least
from scoregen.training.sharding import local


class EMA:
    r"""The average of a model's parameters with a half-life in images.

    Args:
        model: its trainable parameters and floating-point buffers (running statistics) are followed.
        halflife: images after which a weight's share has halved; 0 copies the last weights.
        warmup: the half-life is at most this fraction of the images seen, so that the start is forgotten; 0 switches
            it off.

    Raises:
        ValueError: negative arguments.

    Reference: Karras et al. (2022), arXiv 2206.00364, appendix F.2.
    """

    def __init__(self, model: nn.Module, halflife: float = 500_000, warmup: float = 0.05) -> None:
        at_least(0, halflife=halflife, warmup=warmup)
        self.model, self.halflife, self.warmup = model, halflife, warmup
        saved = model.state_dict().keys()  # a buffer that is not saved is no running statistic
        self._buffers = [name for name, b in model.named_buffers() if b.is_floating_point() and name in saved]
        # a frozen parameter is its own average
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights = {name: value.clone() for name, value in self.sources().items()}

    def sources(self) -> dict[str, Tensor]:
        r"""What is averaged, as it is now."""
        # a module that is moved keeps its parameters, with other data, and gets new buffers
        buffers = {name: self.model.get_buffer(name) for name in self._buffers}
        return {name: p.detach() for name, p in self._trained.items()} | buffers

    def buffers(self) -> list[Tensor]:
        r"""The averages of running statistics."""
        return [self.weights[name] for name in self._buffers]

    def beta(self, batch: int, images: int) -> float:
        r"""The decay of a step of `batch` images after `images` images were seen (this batch included)."""
        halflife = min(self.halflife, self.warmup * images) if self.warmup else self.halflife
        return 0.5 ** (batch / halflife) if halflife > 0 else 0.0

    @torch.no_grad()
    def update(self, batch: int, images: int, skipped: Tensor | None = None) -> None:
        r"""One step.

        Args:
            batch, images: see `beta`. skipped: 1 on the device where the step was left out, which changes nothing.
        """
        averages, sources = [local(w) for w in self.weights.values()], [local(w) for w in self.sources().values()]
        share = 1 - self.beta(batch, images)
        if skipped is None:
            torch._foreach_lerp_(averages, sources, share)
            return
        changes = torch._foreach_sub(sources, averages)
        torch._foreach_mul_(changes, share * (1 - skipped))
        torch._foreach_add_(averages, changes)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        r"""Restores saved averages."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @torch.no_grad()
    def swap(self) -> None:
        r"""Exchanges the model's weights with the averages; twice restores both."""
        for source, average in zip(self.sources().values(), self.weights.values(), strict=True):
            current = source.clone()
            source.copy_(average)
            average.copy_(current)
