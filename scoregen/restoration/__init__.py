r"""Restoring files of images with speckle: units, pixels without data, kinds of files, scenes larger than memory."""

from scoregen.data.intensity import Unit
from scoregen.restoration.altered import Altered
from scoregen.restoration.bands import Band, rows_of_bands
from scoregen.restoration.clean import Clean, check_clean, open_clean
from scoregen.restoration.looks import estimate_looks
from scoregen.restoration.noise import Counts, Noise, Speckle
from scoregen.restoration.opening import changes, open_scenes
from scoregen.restoration.page import write_review
from scoregen.restoration.restorer import Estimate, Restored, Restorer, on_observed
from scoregen.restoration.results import Missing, Results
from scoregen.restoration.review import Measures, Review
from scoregen.restoration.scenes import Plane, Scene
from scoregen.restoration.survey import Reading, Survey, check_scale, check_values, look
from scoregen.restoration.units import Units, units_of

__all__ = [
    "Altered",
    "Band",
    "Clean",
    "Counts",
    "Estimate",
    "Measures",
    "Missing",
    "Noise",
    "Plane",
    "Reading",
    "Restored",
    "Restorer",
    "Results",
    "Review",
    "Scene",
    "Speckle",
    "Survey",
    "Unit",
    "Units",
    "changes",
    "check_clean",
    "check_scale",
    "check_values",
    "estimate_looks",
    "look",
    "on_observed",
    "open_clean",
    "open_scenes",
    "rows_of_bands",
    "units_of",
    "write_review",
]
