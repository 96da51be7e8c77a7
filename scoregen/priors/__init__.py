r"""A trained denoiser as a term of your own optimisation problem."""

from scoregen.priors.fixed_point import fixed_point, reliability, residual_mask
from scoregen.priors.gaussian import GaussianDenoiser
from scoregen.priors.levels import Annealed
from scoregen.priors.score_prior import ScorePrior

__all__ = ["Annealed", "GaussianDenoiser", "ScorePrior", "fixed_point", "reliability", "residual_mask"]
