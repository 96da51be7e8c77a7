r"""Solvers of dy/dtau = f(tau, y) for the probability-flow ODE in tau = log s, in either direction.

In tau the flow du/dtau = u - D(u, e^tau) has coefficients of order one at every noise ratio, so equal steps suit it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import comb

import torch
from torch import Tensor

from scoregen.checks import inside, positive, whole

Field = Callable[[float, Tensor], Tensor]
FieldAndRate = Callable[[float, Tensor], tuple[Tensor, Tensor]]
_GREGORY = (1 / 12, 1 / 24, 19 / 720, 3 / 160)  # of the differences at the ends
# stage times c, stage weights a (row i has i entries), weights b
Tableau = tuple[tuple[float, ...], tuple[tuple[float, ...], ...], tuple[float, ...]]


class ODESolver(ABC):
    r"""A rule that carries y from tau = start to tau = end."""

    @abstractmethod
    def __call__(self, field: Field, y: Tensor, start: float, end: float) -> Tensor:
        r"""Solves the ODE.

        Args:
            field: f(tau, y), shaped as y.
            y: state (B, N) at `start`.
            start, end: from and to, in either order.

        Returns:
            The state at `end`, (B, N).
        """

    def with_integral(
        self, field: Field, both: FieldAndRate, state: tuple[Tensor, Tensor], start: float, end: float
    ) -> tuple[Tensor, Tensor]:
        r"""Solves the ODE together with the integral of a rate along it, which does not act on y.

        Args:
            field, start, end: as of a call.
            both: (tau, y) -> f(tau, y) and the rate (B, K), which may cost far more than f alone.
            state: y (B, N) and the integral (B, K) at `start`.

        Returns:
            The state at `end` (B, N), and the integral (B, K).
        """
        count = state[0].shape[1]

        def joint(tau: float, whole: Tensor) -> Tensor:
            return torch.cat(both(tau, whole[:, :count]), 1)

        found = self(joint, torch.cat(state, 1), start, end)
        return found[:, :count], found[:, count:]


def _stages(
    field: Field, tau: float, y: Tensor, h: float, tableau: Tableau, first: Tensor | None = None
) -> list[Tensor]:
    slopes = [field(tau, y) if first is None else first]
    for c, row in zip(tableau[0][1:], tableau[1][1:], strict=True):
        slopes.append(field(tau + c * h, y + h * _combine(row, slopes)))
    return slopes


def _combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    terms = [w * k for w, k in zip(weights, slopes, strict=True) if w]
    return sum(terms[1:], start=terms[0])


class _FixedStep(ODESolver):
    r"""Equal steps of an explicit Runge-Kutta method.

    Args:
        steps: number of steps, >= 1.
    """

    tableau: Tableau

    def __init__(self, steps: int) -> None:
        whole(1, steps=steps)
        self.steps = int(steps)

    def __call__(self, field: Field, y: Tensor, start: float, end: float) -> Tensor:
        h = (end - start) / self.steps
        for i in range(self.steps):
            y = y + h * _combine(self.tableau[2], _stages(field, start + i * h, y, h, self.tableau))
        return y


class RK2(_FixedStep):
    r"""Heun's method: order 2, two calls a step.

    Args:
        steps: number of steps, >= 1.
    """

    tableau = ((0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2))

    def __init__(self, steps: int = 64) -> None:
        super().__init__(steps)


class RK4(_FixedStep):
    r"""The classical Runge-Kutta method: order 4, four calls a step.

    Args:
        steps: number of steps, >= 1.
    """

    tableau = ((0.0, 1 / 2, 1 / 2, 1.0), ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))

    def __init__(self, steps: int = 64) -> None:
        super().__init__(steps)

    def with_integral(
        self, field: Field, both: FieldAndRate, state: tuple[Tensor, Tensor], start: float, end: float
    ) -> tuple[Tensor, Tensor]:
        if self.steps < 2 * len(_GREGORY):
            return super().with_integral(field, both, state, start, end)
        # the rate does not act on y: a rule of order 6 needs it at the ends of the steps alone, not at their stages
        h, (y, total) = (end - start) / self.steps, state
        for i, weight in enumerate(gregory_weights(self.steps)):
            tau = start + i * h
            slope, rate = both(tau, y)
            total = total + h * weight * rate
            if i < self.steps:
                y = y + h * _combine(self.tableau[2], _stages(field, tau, y, h, self.tableau, slope))
        return y, total


def gregory_weights(steps: int) -> list[float]:
    r"""Weights of the values at the ends of equal steps, exact for polynomials of degree 5: 1 but for 5 at each end.

    Reference: Phillips (1972), "Gregory's method for numerical integration", Amer. Math. Monthly 79.
    """
    weights = [0.5, *[1.0] * (steps - 1), 0.5]
    for j in range(len(_GREGORY) + 1):
        change = -((-1) ** j) * sum(c * comb(k, j) for k, c in enumerate(_GREGORY, 1))
        weights[j] += change
        weights[-1 - j] += change
    return weights


class RK45(ODESolver):
    r"""Dormand and Prince's pair with steps that keep the local error of every sample below the tolerance; six calls a
    step.

        error = max over samples of rms(error estimate / (tolerance + tolerance |y|))

        The step is shared by the batch, so a sample's result depends on its batch within the tolerance.

    Args:
        tolerance: relative and absolute, > 0.
        first_step: first step as a fraction of the interval.

    Reference: Dormand & Prince (1980), J. Comput. Appl. Math. 6, table 2.
    """

    tableau = (
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    )
    error_weights = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

    def __init__(self, tolerance: float = 1e-5, first_step: float = 0.05) -> None:
        positive(tolerance=tolerance)
        inside(0, 1, "(]", first_step=first_step)
        self.tolerance, self.first_step = float(tolerance), float(first_step)

    def __call__(self, field: Field, y: Tensor, start: float, end: float) -> Tensor:
        tau, h, slope = start, (end - start) * self.first_step, field(start, y)
        while abs(end - tau) > 1e-12 * abs(end - start):
            last = abs(h) >= abs(end - tau)
            h = end - tau if last else h
            slopes = _stages(field, tau, y, h, self.tableau, slope)
            proposal = y + h * _combine(self.tableau[2], slopes)
            error = self._error(h * _combine(self.error_weights, slopes), y, proposal)
            if error <= 1:
                # the last stage stands at the end of the step and is the first of the next one
                tau, y, slope = end if last else tau + h, proposal, slopes[-1]
            elif abs(h) < 1e-8 * abs(end - start):
                raise RuntimeError(
                    f"the step of RK45 fell to {abs(h):.2g} at log s = {tau:.4g} without meeting "
                    f"tolerance={self.tolerance}. Use a larger tolerance, float64, or RK4."
                )
            h = h * min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2))
        return y

    def _error(self, estimate: Tensor, y: Tensor, proposal: Tensor) -> float:
        scale = self.tolerance * (1 + torch.maximum(y.abs(), proposal.abs()))
        error = (estimate / scale).flatten(1).square().mean(1).sqrt().amax().item()
        return error if error == error else float("inf")
