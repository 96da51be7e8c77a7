r"""Minibatch optimal transport: which data of a batch are noised with which noise.

    pi = argmin over permutations of sum_j |y_pi(j) - eps_j|^2 = argmax of sum_j <y_pi(j), eps_j>

Noise is then carried to near data, the learned paths are straighter, and the map from noise to data is smoother. The
laws of the data, of the noise and of the noise given the label do not change; only their pairing does, within the batch
of one process.

Reference: Pooladian et al. (2023), arXiv 2304.14772; Tong et al. (2024), arXiv 2302.00482, section 4.
"""

from typing import NoReturn

import torch
from torch import Tensor

from scoregen.keys import Keys
from scoregen.losses.base import Loss, TrainableDenoiser, WrappedLoss
from scoregen.losses.stand_in import StandIn
from scoregen.rng import Generators, forked
from scoregen.sde.path import as_time, expand


class OptimalTransportPairing(WrappedLoss):
    r"""A loss whose data are paired with its noise by optimal transport within the batch.

        Runs the loss once with a dummy network to find out which noise it will draw, then reorders the data. With
        labels, data are reordered within their class only; otherwise the noise would reveal the class. An assignment
        costs B^3 operations in the worst case; up to a few hundred samples a batch it is cheap.

    Args:
        base_loss: any loss of a denoiser that draws its noise from the generator, whatever the data.

    Raises:
        TypeError: base_loss is no loss, or that of a flow map, which takes its batch in another order; in `forward`, a
            base_loss that calls its model with other things than noisy data (latents).
    """

    def __init__(self, base_loss: Loss) -> None:
        super().__init__(base_loss)
        if base_loss.needs_next:
            raise TypeError(
                f"base_loss must keep the order of its batch, got {type(base_loss).__name__}, which sorts it by what "
                "jumps, so that data would be paired with other noise. Leave the pairing out."
            )

    def forward(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None = None,
        generator: Generators = None,
        quantile: Tensor | None = None,
    ) -> Tensor:
        order = self.order(model, x_0, label, generator, quantile)
        label = None if label is None else label[order.to(label.device)]
        return self.base_loss(model, x_0[order.to(x_0.device)], label, generator, quantile)

    @torch.no_grad()
    def order(
        self,
        model: TrainableDenoiser,
        x_0: Tensor,
        label: Tensor | None,
        generator: Generators,
        quantile: Tensor | None,
    ) -> Tensor:
        r"""pi (B,): sample j of the batch should be x_0[pi(j)]."""
        y = model.sde.to_chart(x_0).flatten(1)
        with forked(x_0.device):
            try:
                self.base_loss(_Dummy(model), x_0, label, _copies(generator), quantile)
                raise TypeError(f"base_loss must call a denoiser, got {type(self.base_loss).__name__}, which did not.")
            except _Called as call:
                u, s = call.u, call.s
        if u.shape != x_0.shape:
            raise TypeError(
                f"base_loss must call the denoiser with noisy data, got {type(self.base_loss).__name__}, which calls "
                f"it with shape {tuple(u.shape)} for data of shape {tuple(x_0.shape)}. Put the pairing inside it."
            )
        noise = (u.flatten(1) - y) / expand(s, y)
        return assignment(y, noise, label if model.num_classes is not None else None)


def assignment(y: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
    r"""pi (B,) that minimises sum_j |y_pi(j) - noise_j|^2 over permutations, within labels where they are given.

    Args:
        y, noise: (B, D). label: (B,) or None.
    """
    from scipy.optimize import linear_sum_assignment

    gain = (noise.double() @ y.double().T).cpu()
    if label is not None:
        other = (label[:, None] != label[None, :]).cpu()
        gain = gain - 2 * len(y) * (gain.abs().max() + 1) * other  # no sum of gains outweighs one change of class
    _, columns = linear_sum_assignment(gain.numpy(), maximize=True)
    return torch.from_numpy(columns)


class _Called(Exception):
    r"""Ends a dry run at the first call of the denoiser; has the points and their noise ratios."""

    def __init__(self, u: Tensor, s: Tensor) -> None:
        super().__init__()
        self.u, self.s = u, s


class _Dummy(StandIn):
    r"""Stands in for a denoiser and ends the dry run at its first call."""

    def __call__(
        self, u: Tensor, s: Tensor | float | None = None, label: Tensor | None = None, **options: object
    ) -> NoReturn:
        if s is None:
            raise TypeError("base_loss must be the loss of a denoiser, but it calls its model without a noise ratio.")
        raise _Called(u, as_time(s))


def _copies(generator: Generators) -> Generators:
    r"""Generators in the same state, so that the originals are left as they are."""
    if generator is None:
        return None
    if isinstance(generator, Keys):
        return generator.copy()
    if isinstance(generator, torch.Generator):
        return generator.clone_state()
    return [g.clone_state() for g in generator]
