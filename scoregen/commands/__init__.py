r"""The commands: build from a configuration and run."""

from scoregen.commands.sample import main as sample
from scoregen.commands.train import main as train

__all__ = ["sample", "train"]
