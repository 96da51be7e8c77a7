r"""Geometric Brownian motion on log-normal data, for the tests of its samplers."""

from oracles import Independent

from scoregen.sde import GeometricBrownianMotion

GBM = GeometricBrownianMotion(0.8)
DATA = Independent(0.3, 0.25, GBM)
