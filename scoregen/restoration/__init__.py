r"""Restoring files of images with speckle: units, pixels without data, kinds of files, scenes larger than memory."""

from scoregen.data.intensity import Unit
from scoregen.restoration.bands import Band, rows_of_bands
from scoregen.restoration.looks import estimate_looks
from scoregen.restoration.opening import open_scenes
from scoregen.restoration.page import write_review
from scoregen.restoration.restorer import Estimate, Restored, Restorer, Window
from scoregen.restoration.results import Missing, Results
from scoregen.restoration.review import Measures, Review
from scoregen.restoration.scenes import Plane, Scene
from scoregen.restoration.survey import Reading, Survey, check_scale, look
from scoregen.restoration.units import Units, units_of

__all__ = [
    "Band",
    "Estimate",
    "Measures",
    "Missing",
    "Plane",
    "Reading",
    "Restored",
    "Restorer",
    "Results",
    "Review",
    "Scene",
    "Survey",
    "Unit",
    "Units",
    "Window",
    "check_scale",
    "estimate_looks",
    "look",
    "open_scenes",
    "rows_of_bands",
    "units_of",
    "write_review",
]
