r"""The grid of flow maps: equal steps of the time of flow matching, so that no jump is longer than the others."""

from torch import Tensor

from scoregen.checks import positive
from scoregen.samplers.grids import Grid
from scoregen.sde.path import as_time
from scoregen.sde.process import SDE


class FlowTime(Grid):
    r"""tau = s/(c + s) in equal steps from s_max to 0: for a few exact jumps. The smallest level is not visited.

    Args:
        c: noise ratio in the middle, tau = 1/2; about the standard deviation of the data in model coordinates, > 0.
    """

    def __init__(self, c: float = 0.5) -> None:
        positive(c=c)
        self.c = float(c)

    def levels(self, sde: SDE, s_max: float, s_min: float, steps: int) -> Tensor:
        top = s_max / (self.c + s_max)
        times = [top * (1 - i / steps) for i in range(steps)]
        return as_time([s_max, *(self.c * tau / (1 - tau) for tau in times[1:])])
