r"""Rows of a table given some of their values, without another training.

The softmax of a table's denoiser is the posterior p(k | u) of a category. So the score of the noisy rows that have the
category k is known, and by Tweedie's formula

    E[y_0 | u, k] = D + s^2 grad_u log p(k | u)

which is exact for one category, whatever the other columns are. Known numbers z add Pi-GDM's approximation of
log p(z | u). Of several known values the product is taken, as if they were independent given u.

Reference: Dhariwal, Nichol (2021), arXiv 2105.05233, section 4 (guidance by a classifier, here by the denoiser itself);
Song et al. (2023), "Pseudoinverse-guided diffusion models for inverse problems", ICLR.
"""

import torch
from torch import Tensor

from scoregen.models.observation import Inpainting
from scoregen.models.table import TableDenoiser
from scoregen.models.wrapper import DenoiserWrapper
from scoregen.sde.path import as_time


class GivenCells(DenoiserWrapper):
    r"""The denoiser of rows of which some values are known: one call and one backward pass.

    Args:
        denoiser: of a table.
        known: the values, one-hots for categories, (B, D) or (1, D), nan where they are not known.
    """

    denoiser: TableDenoiser

    def __init__(self, denoiser: TableDenoiser, known: Tensor) -> None:
        super().__init__(denoiser)
        numbers = torch.arange(known.shape[1], device=known.device) < denoiser.numbers
        self.hots = torch.where(numbers, torch.nan, known)
        self.numbers = Inpainting(known.nan_to_num(0.0), numbers & ~known.isnan())
        self.sigma_data = denoiser.sigma_data

    @property
    def is_steep(self) -> bool:
        return True

    def forward(self, u: Tensor, s: Tensor | float, label: Tensor | None = None) -> Tensor:
        s2 = as_time(s).flatten()[0].cpu().item() ** 2
        variance = s2 * self.sigma_data**2 / (s2 + self.sigma_data**2)
        self.hots = hots = self.hots.to(u)  # once, not at every call
        differentiate = torch.is_grad_enabled() and u.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            v = u if differentiate else u.clone().detach().requires_grad_()
            numbers, logits = self.denoiser.parts(v, s, label)
            logs = [part.log_softmax(1) for part in logits]
            denoised = torch.cat([numbers, *(part.exp() for part in logs)], 1)
            pull = self.numbers.pull(denoised if differentiate else denoised.detach(), variance, self.sde)
            fits = (torch.cat([numbers, *logs], 1) * hots.nan_to_num(0.0)).sum()  # log p(k | u)
            ones = torch.ones_like(fits)
            (gradient,) = torch.autograd.grad([denoised, fits], v, [pull, ones], create_graph=differentiate)
            guided = denoised + s2 * gradient
        guided = torch.where(hots.isnan(), guided, hots)  # what the formula gives, without its rounding
        return guided if differentiate else guided.detach()
