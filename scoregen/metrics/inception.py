r"""The features of the Inception network behind the FID: its weights are given or cached, never downloaded."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from scoregen import storage
from scoregen.compat import repair_torchvision
from scoregen.metrics.features import FeatureExtractor

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


class Inception(FeatureExtractor):
    r"""The 2048 pooled features of the Inception network of the FID, through torch-fidelity.

        Nothing is downloaded. Only with the published weights (known by their SHA-256) are the numbers called FID and
        KID; with other weights they are FD-inception and KD-inception.

    Args:
        weights: path of the weights file, or None for the copy in torch's hub cache.

    Raises:
        ValueError: there are no weights, or the file holds more than tensors.
        ImportError: torch-fidelity is not installed.

    Reference: Heusel et al. (2017), arXiv 1706.08500; weights as converted for torch-fidelity.
    """

    def __init__(self, weights: str | Path | None = None):
        super().__init__("inception")
        self.weights = weights
        path = Path(weights) if weights is not None else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
        if not path.is_file():
            raise ValueError(
                f"Inception features need their weights, got no file at {path}. Download {INCEPTION_FILE} from the "
                "releases of torch-fidelity and set features.weights=PATH, or use features=classifier "
                "(reported as FD, not FID)."
            )
        _refuse_code(path)
        self.network = _inception_network(path)
        published = INCEPTION_FILE.removesuffix(".pth").rsplit("-", 1)[1]
        self._published = storage.digest(path).startswith(published)

    @property
    def frechet_name(self) -> str:
        return "FID" if self._published else super().frechet_name

    @property
    def kernel_name(self) -> str:
        return "KID" if self._published else super().kernel_name

    def extract(self, images: Tensor) -> Tensor:
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        pooled: Tensor = self.network((images * 255).round().clamp(0, 255).to(torch.uint8))[0]
        return pooled


def _refuse_code(path: Path) -> None:
    r"""Reads the file as tensors only, before torch-fidelity unpickles it without restriction."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"features.weights must be a file of tensors saved by torch.save, got {path}, which holds something else. "
            f"Download {INCEPTION_FILE} from the releases of torch-fidelity."
        ) from error


def _inception_network(path: Path) -> nn.Module:
    repair_torchvision()
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError("Inception features need torch-fidelity: pip install torch-fidelity.") from error
    network: nn.Module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
    return network
