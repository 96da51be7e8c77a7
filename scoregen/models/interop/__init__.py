r"""Networks of diffusers: what their schedulers and configurations say, in the terms of this package."""

from scoregen.models.interop.families import Family, family_of
from scoregen.models.interop.folder import Folder
from scoregen.models.interop.schedulers import SCHEDULERS, Process, process_of
from scoregen.models.interop.wrapping import from_diffusers

__all__ = ["SCHEDULERS", "Family", "Folder", "Process", "family_of", "from_diffusers", "process_of"]
