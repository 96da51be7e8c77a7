r"""Exponentiated gradient descent: multiplicative steps, which keep the sign of every parameter.

    |x| <- |x| exp(-lr d f/d|x|),   so   x <- x exp(-lr sign(x) grad f)

It is mirror descent, |x+| = argmin <d f/d|x|, z> lr + B(z, |x|), with the Bregman divergence B of
sum z log z - z, and the deterministic part of a Dale-Langevin step, X exp(dv (1 + h) + sqrt(dv) z).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from scoregen.checks import positive


class ExponentiatedGradient(torch.optim.Optimizer):
    r"""Gradient descent with factors in place of summands: x <- x exp(-lr sign(x) grad).

        No parameter changes its sign (Dale's law of neurons that excite or inhibit). Relative steps favour sparse
        solutions: what does not help shrinks by factors towards 0. A parameter that is 0 stays 0: layers and biases
        that start at zero do not learn.

    Args:
        params: parameters, or groups of them.
        lr: learning rate of the logarithm of a parameter, > 0.

    Raises:
        ValueError: lr <= 0.

    Reference: Kivinen & Warmuth (1997), Exponentiated gradient versus gradient descent for linear predictors; the
        motivation of Shetty, Prasath, Seelamantula (2025), arXiv 2510.02730.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.01) -> None:
        positive(lr=lr)
        super().__init__(params, {"lr": lr})
        self._step_supports_amp_scaling = True  # as torch's fused optimizers say that they take `found_inf`

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        r"""One step.

        Args:
            closure: computes the loss and its gradient again.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skipped: Tensor | None = getattr(self, "found_inf", None)  # 1 on the device leaves the step out
        for group in self.param_groups:
            for x in group["params"]:
                if x.grad is not None:
                    gradient = x.grad if skipped is None else torch.where(skipped > 0, 0.0, x.grad)
                    x.mul_((-group["lr"] * x.sign() * gradient).exp())
        return loss
