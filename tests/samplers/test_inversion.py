r"""Encoding, decoding, interpolation and editing against flow maps in closed form."""

import math

import pytest
import torch
from oracles import gaussian, gaussian_flow, standard_mixture

from scoregen.samplers import DDIM, RK2, RK4, decode, edit, encode, interpolate, slerp, variance_preserving
from scoregen.sde import EDM, Affine, GeometricBrownianMotion

MEAN = torch.tensor([0.3, -0.2]).double()
COVARIANCE = torch.tensor([[0.2, 0.05], [0.05, 0.1]]).double()


class TwoNormals:
    r"""Labels 0 and 1: normal laws of one variance and two means."""

    num_classes = 2

    def __init__(self, variance: float, means: tuple[float, float], sde=None) -> None:
        eye = variance * torch.eye(2).double()
        self.parts = [gaussian(torch.full((2,), m).double(), eye, sde) for m in means]
        self.sde = self.parts[0].sde

    def __call__(self, u, s, label):
        first, second = (part(u, s) for part in self.parts)
        return torch.where(label[:, None] == 0, first, second)


@pytest.fixture
def points() -> torch.Tensor:
    return standard_mixture().sample(64, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("chart", [Affine(), Affine(2.0, -1.0)], ids=["identity", "affine"])
def test_encoding_of_normal_data_is_the_flow_map(points, chart):
    normal = gaussian(MEAN, COVARIANCE, EDM(0.01, 20.0, chart=chart))
    u = encode(normal, chart.inverse(points), s=5.0, solver=RK4(128))
    torch.testing.assert_close(u, gaussian_flow(MEAN, COVARIANCE, points, 0.01, 5.0), atol=1e-6, rtol=1e-6)
    x = decode(normal, u, s=5.0, solver=RK4(128))
    torch.testing.assert_close(x, chart.inverse(points), atol=1e-7, rtol=0)


def test_decoding_is_what_a_sampler_does_with_the_latent(points):
    mixture = standard_mixture()
    u = encode(mixture, points, solver=RK4(128))
    t = mixture.sde.time_of(mixture.sde.s_max)
    sampled = DDIM(4000)(mixture, start=(mixture.sde.from_u(u[:4], t), t))
    # DDIM of order 1, 3.5e-3 a point at 512 steps
    assert (sampled - points[:4]).square().mean().sqrt() < 5e-3


@pytest.mark.parametrize(("solver", "order"), [(RK2, 2), (RK4, 4)], ids=["rk2", "rk4"])
def test_round_trip_error_falls_with_the_order_of_the_solver(points, solver, order):
    mixture = standard_mixture()

    def error(steps: int) -> torch.Tensor:
        u = encode(mixture, points, solver=solver(steps))
        return (decode(mixture, u, solver=solver(steps)) - points).square().mean().sqrt().log2()

    slope = (error(128) - error(512)) / 2
    # the errors of the two directions cancel in part, so the slope may be above the order, not below
    assert order - 0.3 < slope < order + 1.6


def test_round_trip_through_a_log_chart(points):
    x = points[:, :1].exp()
    normal = gaussian(torch.zeros(1).double(), 0.3 * torch.eye(1).double(), GeometricBrownianMotion(3.0))
    torch.testing.assert_close(decode(normal, encode(normal, x, solver=RK4(64)), solver=RK4(64)), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_slerp_walks_the_great_circle_at_constant_speed(weight):
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 3, 4, generator=g).double(), torch.randn(5, 3, 4, generator=g).double()
    a, b = (2 * v / v.flatten(1).norm(dim=1)[:, None, None] for v in (a, b))
    c = slerp(a, b, weight)
    torch.testing.assert_close(c.flatten(1).norm(dim=1), torch.full((5,), 2.0).double())

    def angle(p, q):
        return ((p * q).flatten(1).sum(1) / 4).clamp(-1, 1).acos()

    torch.testing.assert_close(angle(a, c), weight * angle(a, b), atol=1e-7, rtol=0)


def test_slerp_takes_norms_linearly_and_parallel_vectors():
    a = torch.tensor([[1.0, 0.0]]).double()
    torch.testing.assert_close(slerp(a, 3 * a, 0.25), 1.5 * a)
    b = torch.tensor([[0.0, 3.0]]).double()
    torch.testing.assert_close(slerp(a, b, 0.5).norm(), torch.tensor(2.0).double())


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_variance_preserving_blend_keeps_the_norm_of_orthogonal_vectors(weight):
    a, b = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    torch.testing.assert_close(variance_preserving(a, b, weight).norm(), torch.tensor(1.0).double())
    torch.testing.assert_close(variance_preserving(a, b, 0.0), a)


@pytest.mark.parametrize("blend", [slerp, variance_preserving])
def test_interpolation_starts_at_a_and_ends_at_b(points, blend):
    mixture = standard_mixture()
    path = interpolate(mixture, points[:3], points[3:6], steps=5, solver=RK4(256), blend=blend)
    assert path.shape == (5, 3, 2)
    torch.testing.assert_close(path[0], points[:3], atol=1e-4, rtol=0)
    torch.testing.assert_close(path[-1], points[3:6], atol=1e-4, rtol=0)


def test_interpolation_between_normal_data_blends_their_standardised_values():
    # N(mean, var): the flow map is affine, so the standardised blend of the latents is that of the data
    variance = 0.25
    normal = gaussian(MEAN, variance * torch.eye(2).double(), EDM(0.01, 20.0))
    normal.sde.with_moments(MEAN, variance)
    a, b = MEAN + torch.tensor([[0.3, 0.0]]).double(), MEAN + torch.tensor([[0.0, 0.4]]).double()
    path = interpolate(normal, a, b, steps=3, solver=RK4(64))
    torch.testing.assert_close(path[1], MEAN + slerp(a - MEAN, b - MEAN, 0.5), atol=1e-5, rtol=0)


def test_editing_shifts_normal_data_by_the_part_of_the_means_that_time_erased(points):
    variance, s = 0.25, 2.0
    denoiser = TwoNormals(variance, (0.0, 1.0), EDM(0.01, 20.0))
    t = denoiser.sde.time_of(s).item()
    zeros, ones = torch.zeros(64).long(), torch.ones(64).long()
    edited = edit(denoiser, points, t, source=zeros, target=ones, solver=RK4(128))
    shrink = math.sqrt((variance + 0.01**2) / (variance + s**2))
    torch.testing.assert_close(edited, points + (1 - shrink), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        edit(denoiser, points, t, source=ones, target=ones, solver=RK4(64)), points, atol=1e-6, rtol=0
    )


def test_bad_arguments_are_refused(points):
    mixture = standard_mixture()
    with pytest.raises(ValueError, match="steps must be a whole number >= 2"):
        interpolate(mixture, points, points, steps=1)
    with pytest.raises(ValueError, match=r"same shape, got \(3, 2\) and \(4, 2\)"):
        interpolate(mixture, points[:3], points[:4])
    with pytest.raises(ValueError, match="0 < s_min < s_max"):
        encode(mixture, points, s=1e-4)
    with pytest.raises(ValueError, match=r"label must lie in 0\.\.1"):
        encode(TwoNormals(0.2, (0.0, 1.0)), points, label=torch.full((64,), 2))
