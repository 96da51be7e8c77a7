r"""Jobs: typed descriptions of work, each of which owns one folder."""

from scoregen.jobs.base_classifier import Purify
from scoregen.jobs.certify import Certify
from scoregen.jobs.compare import Compare
from scoregen.jobs.demo import Demo
from scoregen.jobs.dual import Dual
from scoregen.jobs.evaluate import Evaluate
from scoregen.jobs.export import Export
from scoregen.jobs.fit_grid import FitGrid
from scoregen.jobs.gallery import Gallery
from scoregen.jobs.impute import Impute
from scoregen.jobs.interpolate import Interpolate
from scoregen.jobs.job import Job, Plan
from scoregen.jobs.predict import Predict
from scoregen.jobs.restore import Restore
from scoregen.jobs.sample import Sample
from scoregen.jobs.smoothness import Smoothness
from scoregen.jobs.sweep import Sweep
from scoregen.jobs.table_model import TableModel
from scoregen.jobs.targets import Targets
from scoregen.jobs.train import Train

__all__ = [
    "Certify",
    "Compare",
    "Demo",
    "Dual",
    "Evaluate",
    "Export",
    "FitGrid",
    "Gallery",
    "Impute",
    "Interpolate",
    "Job",
    "Plan",
    "Predict",
    "Purify",
    "Restore",
    "Sample",
    "Smoothness",
    "Sweep",
    "TableModel",
    "Targets",
    "Train",
]
