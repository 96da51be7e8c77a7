r"""Networks of diffusers: what their schedulers and configurations say, in the terms of this package."""

from scoregen.models.interop.folder import Folder
from scoregen.models.interop.schedulers import Process, process_of
from scoregen.models.interop.wrapping import from_diffusers

__all__ = ["Folder", "Process", "from_diffusers", "process_of"]
