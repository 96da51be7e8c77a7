r"""Dry run: counts network calls and checks that sampler and process fit."""

import copy
import warnings
from typing import Any

import torch

from scoregen.errors import UserError


def check_sampler(sampler: Any, model: Any, where: str = "sampler") -> None:
    r"""Refuses a sampler that the kind of a model does not suit.

    Raises:
        UserError: a consistency function and a sampler of posterior means.
    """
    from scoregen.samplers.base import check_suits

    try:
        check_suits(sampler, model)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def network_calls(sampler: Any, sde: Any, where: str = "sampler") -> int:
    r"""How often a sampler calls the denoiser for an image.

    Args:
        sampler: it is run. sde: the process. where: what the sampler is called in messages.

    Raises:
        UserError: the sampler does not suit the process.
    """
    from scoregen.samplers.base import CountingZeroDenoiser
    from scoregen.sde import Affine, Columns

    # samples of these charts have a shape of their own, and the steps do not see the chart
    if not sde.chart.elementwise or isinstance(sde.chart, Columns):
        sde = copy.copy(sde)
        sde.chart = Affine()
    counter = CountingZeroDenoiser(sde)
    shape = tuple(sde.data_mean.shape or (1,))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of samples that mean nothing
            sampler(counter, (1, *shape), generator=torch.Generator().manual_seed(0))
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {type(sampler).__name__} does not fit {type(sde).__name__}: {error}") from error
    return counter.calls
