r"""Minibatch optimal transport: which data of a batch are noised with which noise.

    pi = argmin over permutations of sum_j |y_pi(j) - eps_j|^2 = argmax of sum_j <y_pi(j), eps_j>

Noise is then carried to near data, the learned paths are straighter, and the map from noise to data is smoother. The
law of the data, of the noise and of the noise given the label stay what they were; only their pairing changes, within
the batch of one process.

Reference: Pooladian et al. (2023), arXiv 2304.14772; Tong et al. (2024), arXiv 2302.00482, section 4.
"""

from typing import Any

import torch
from torch import Tensor, nn

from scoregen.losses.score_matching import WrappedLoss
from scoregen.rng import Generators, forked
from scoregen.sde.path import as_time, expand


class OptimalTransportPairing(WrappedLoss):
    r"""Another loss on data that are paired with its noise by optimal transport within the batch.

        A rehearsal of the loss without the network shows the noise that it will draw; the data are then put in the
        order that fits. With labels, data change places within their class only, else the noise would tell the class.
        Assignments cost B^3 in the worst case; batches of up to some hundred are cheap.

    Args:
        base_loss: any loss of a denoiser that draws its noise from the generator, whatever the data.

    Raises:
        TypeError: base_loss is no loss; in `forward` for one that looks at something else than the data (latents).
    """

    def forward(
        self,
        model: nn.Module,
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
        self, model: Any, x_0: Tensor, label: Tensor | None, generator: Generators, quantile: Tensor | None
    ) -> Tensor:
        r"""pi (B,): sample j of the batch should be x_0[pi(j)]."""
        y = model.sde.to_chart(x_0).flatten(1)
        rehearsal = _Rehearsal(model)
        with forked(x_0.device):
            try:
                self.base_loss(rehearsal, x_0, label, _copies(generator), quantile)
                raise TypeError(f"base_loss must call a denoiser, got {type(self.base_loss).__name__}, which did not.")
            except _Seen as seen:
                u, s = seen.u, seen.s
        if u.shape != x_0.shape:
            raise TypeError(
                f"base_loss must look at the data themselves, got {type(self.base_loss).__name__}, which looks at "
                f"{tuple(u.shape)} for data of {tuple(x_0.shape)}; put the pairing inside it."
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


class _Seen(Exception):
    r"""Ends a rehearsal with the points at which a loss called the denoiser first."""

    def __init__(self, u: Tensor, s: Tensor) -> None:
        super().__init__()
        self.u, self.s = u, s


class _Rehearsal:
    r"""A denoiser that computes nothing."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, u: Tensor, s: Tensor | float | None = None, label: Tensor | None = None) -> Tensor:
        if s is None:
            raise TypeError("base_loss must be the loss of a denoiser, got one that calls its model without a noise.")
        raise _Seen(u, as_time(s))


def _copies(generator: Generators) -> Generators:
    r"""Generators in the same state, so that the originals are left as they are."""
    if generator is None:
        return None
    if isinstance(generator, torch.Generator):
        return generator.clone_state()
    return [g.clone_state() for g in generator]
