r"""What is known about the data: linear observations z = A x + noise and their pull-back into chart coordinates.

    pull(D, r^2) = A_y' (R + r^2 A_y A_y')^{-1} (z - A D),        A_y = A in chart coordinates, R = covariance of the
    noise

is the gradient in D of log N(z; A D, R + r^2 A_y A_y'), which Pi-GDM needs.

For affine charts (identity, images in [-1, 1]) everything is exact. For a log chart single values stay single values,
so an `Inpainting` is exact up to its noise, which is carried over to first order (noise / (x + offset)); sums of values
are not linear in log x, so that other observations are refused there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from scoregen.checks import at_least
from scoregen.sde.process import SDE


class Observation(ABC):
    r"""An observation of the data, in data units."""

    @abstractmethod
    def pull(self, denoised: Tensor, variance: float, sde: SDE) -> Tensor:
        r"""A_y' (R + variance A_y A_y')^{-1} (z - A D), in chart coordinates.

        Args:
            denoised: D (B, *S) in chart coordinates. variance: r^2 in chart coordinates. sde: gives the chart.
        """


class Inpainting(Observation):
    r"""Some of the values are known.

    Args:
        x: the known values in data units, (B, *S) or a shape that broadcasts to it; what stands elsewhere is ignored.
        mask: true where a value is known, a shape that broadcasts to x.
        noise: standard deviation of their noise in data units, >= 0.

    Raises:
        ValueError: negative noise, shapes that do not broadcast; in use, known values outside the chart (x + offset <=
            0).
    """

    def __init__(self, x: Tensor, mask: Tensor, noise: float = 0.0) -> None:
        self.noise = check_noise(noise)
        try:
            self.mask = mask.to(torch.bool) | torch.zeros(x.shape, dtype=torch.bool, device=mask.device)
        except RuntimeError as error:
            raise ValueError(
                f"mask must broadcast to x, got mask of shape {tuple(mask.shape)} and x of shape {tuple(x.shape)}."
            ) from error
        self.x = x

    def in_chart(self, like: Tensor, sde: SDE) -> tuple[Tensor, Tensor, Tensor]:
        r"""Mask, known values and variance of their noise in chart coordinates, on the device of a state (B, *S)."""
        if self.x.ndim == like.ndim:
            check_batch(self.x, like)
        self.mask, self.x = self.mask.to(like.device), self.x.to(like.device)  # once, not at every call
        mask, x = self.mask, self.x.to(like)
        # a value that is valid in every chart stands in for the unknown ones, which may be anything
        neutral = sde.from_chart(torch.zeros_like(x))
        y = sde.to_chart(torch.where(mask, x, neutral))
        slope, _ = sde.chart.inverse_derivatives(y)
        return mask, y, (self.noise / slope) ** 2

    def pull(self, denoised: Tensor, variance: float, sde: SDE) -> Tensor:
        mask, y, noise = self.in_chart(denoised, sde)
        return torch.where(mask, (y - denoised) / (noise + variance), 0.0)


class _Linear(Observation):
    r"""z = A x + noise with a general A."""

    def __init__(self, z: Tensor, noise: float) -> None:
        self.z, self.noise = z, check_noise(noise)

    def pull(self, denoised: Tensor, variance: float, sde: SDE) -> Tensor:
        chart = sde.chart.as_affine()
        if chart is None:
            raise TypeError(
                f"{type(self).__name__} needs an affine chart (A x is not linear in log x), got the chart of "
                f"{type(sde).__name__}. Use Inpainting, or an additive process."
            )
        if self.z.ndim > 1:
            check_batch(self.z, denoised)
        slope = 1 / chart.scale  # dx = slope dy
        self.z = self.z.to(denoised.device)  # once, not at every call
        residual = self.z.to(denoised) - self.forward(sde.from_chart(denoised))
        pulled = self.adjoint(self.solve(residual, self.noise**2, variance * slope**2))
        return slope * pulled.reshape(denoised.shape)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        r"""A x, (B, *M)."""

    @abstractmethod
    def adjoint(self, z: Tensor) -> Tensor:
        r"""A' z, (B, *S) or flattened."""

    @abstractmethod
    def solve(self, residual: Tensor, noise: float, variance: float) -> Tensor:
        r"""(noise I + variance A A')^{-1} residual, (B, *M)."""


class MatrixObservation(_Linear):
    r"""z = A x + noise with an explicit matrix, for few observed numbers.

    Args:
        z: observed numbers, (B, M) or (M,).
        matrix: A, (M, D) for samples of D numbers (images are flattened).
        noise: standard deviation in the units of z, >= 0; with 0 the rows of A must be independent.

    Raises:
        ValueError: negative noise, shapes that do not match.
    """

    def __init__(self, z: Tensor, matrix: Tensor, noise: float = 0.0) -> None:
        super().__init__(z, noise)
        if matrix.ndim != 2 or z.shape[-1] != matrix.shape[0]:
            raise ValueError(
                f"matrix must be (M, D) for z of shape (..., M), got {tuple(matrix.shape)} and {tuple(z.shape)}."
            )
        self.matrix = matrix
        self._vectors: Tensor
        values, self._vectors = torch.linalg.eigh(matrix.double().cpu() @ matrix.double().cpu().T)
        if noise == 0 and values[0] <= 1e-12 * values[-1]:
            raise ValueError(
                "matrix must have independent rows where noise is 0, got eigenvalues of A A' from "
                f"{values[0]:.3g} to {values[-1]:.3g}. Remove rows that depend on others, or give a noise."
            )
        self._values: Tensor = values.clamp_min(0)
        self._placed: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._like(x)[0].T

    def adjoint(self, z: Tensor) -> Tensor:
        return z @ self._like(z)[0]

    def solve(self, residual: Tensor, noise: float, variance: float) -> Tensor:
        _, vectors, values = self._like(residual)
        return (residual @ vectors / (noise + variance * values).to(residual)) @ vectors.T

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""A, and the eigenvectors and values of A A', on the device of x; copied there once."""
        if self._placed is None or self._placed[0].device != x.device or self._placed[0].dtype != x.dtype:
            self._placed = self.matrix.to(x), self._vectors.to(x), self._values.to(x.device)
        return self._placed


class LinearObservation(_Linear):
    r"""z = A x + noise with A and its adjoint as functions (blur, downsampling, projections), solved by conjugate
    gradients.

    Args:
        z: observed numbers, (B, *M).
        forward: A, (B, *S) -> (B, *M). adjoint: A', (B, *M) -> (B, *S).
        noise: standard deviation in the units of z, > 0: it bounds the condition number.
        tolerance: relative residual at which the solver stops. iterations: their largest number.

    Raises:
        ValueError: noise <= 0.
    """

    def __init__(
        self,
        z: Tensor,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
        noise: float,
        tolerance: float = 1e-5,
        iterations: int = 100,
    ) -> None:
        super().__init__(z, noise)
        if not noise > 0:
            raise ValueError(f"noise must be > 0 for conjugate gradients, got noise={noise}. Use a small value.")
        self._forward, self._adjoint, self.tolerance, self.iterations = forward, adjoint, tolerance, iterations

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(x)

    def adjoint(self, z: Tensor) -> Tensor:
        return self._adjoint(z)

    def solve(self, residual: Tensor, noise: float, variance: float) -> Tensor:
        return conjugate_gradients(
            lambda z: noise * z + variance * self._forward(self._adjoint(z)), residual, self.tolerance, self.iterations
        )


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor], target: Tensor, tolerance: float = 1e-5, iterations: int = 100
) -> Tensor:
    r"""The solution of operator(z) = target for a symmetric positive operator, every sample by itself.

    Args:
        operator: (B, *M) -> (B, *M), samples independent. target: (B, *M).
        tolerance: largest relative residual of a sample. iterations: their largest number.

    Reference: Hestenes & Stiefel (1952).
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))

    solution, residual = torch.zeros_like(target), target
    direction, power = residual, dot(residual, residual)
    goal, tiny = power * tolerance**2, torch.finfo(target.dtype).tiny
    for _ in range(iterations):
        if bool((power <= goal).all()):
            break
        image = operator(direction)
        length = power / dot(direction, image).clamp_min(tiny)
        solution, residual = solution + length * direction, residual - length * image
        before, power = power, dot(residual, residual)
        direction = residual + power / before.clamp_min(tiny) * direction
    return solution


def check_batch(observed: Tensor, state: Tensor) -> None:
    r"""Refuses an observation whose number of samples is neither 1 nor that of the state."""
    if len(observed) not in (1, len(state)):
        raise ValueError(
            f"the observation must be of 1 or {len(state)} samples, the batch of the denoiser, got {len(observed)}. "
            "Guidance doubles the batch, so it goes inside: PiGDM(ClassifierFreeGuidance(denoiser, ...), ...)."
        )


def check_noise(noise: float) -> float:
    r"""The standard deviation of an observation, if it is finite and not negative."""
    at_least(0, noise=noise)
    return float(noise)
