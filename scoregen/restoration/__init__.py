r"""Restoring files of images with speckle: units, pixels without data, kinds of files, scenes larger than memory."""

from scoregen.restoration.bands import Band
from scoregen.restoration.clean import Clean
from scoregen.restoration.looks import estimate_looks
from scoregen.restoration.noise import Counts, Noise, Speckle
from scoregen.restoration.opening import open_scenes
from scoregen.restoration.restorer import Estimate, Restored, Restorer
from scoregen.restoration.results import Results
from scoregen.restoration.scenes import Scene
from scoregen.restoration.survey import Reading
from scoregen.restoration.units import Units, units_of

__all__ = [
    "Band",
    "Clean",
    "Counts",
    "Estimate",
    "Noise",
    "Reading",
    "Restored",
    "Restorer",
    "Results",
    "Scene",
    "Speckle",
    "Units",
    "estimate_looks",
    "open_scenes",
    "units_of",
]
