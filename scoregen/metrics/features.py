r"""Feature extractors: images in [0, 1] to vectors in which distances are taken.

A number means nothing without its extractor, so each has a name and a hash of everything that determines its output.
Only Inception with the published weights gives numbers called FID and KID; all others are FD-<name> and KD-<name>.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoregen.checks import whole
from scoregen.config import Config
from scoregen.data import identity
from scoregen.errors import UserError
from scoregen.models.classifier import Classifier
from scoregen.pictures import UNIT, Range, has_ends
from scoregen.rng import Stream, generator


class FeatureExtractor(nn.Module, ABC):
    r"""Images (B, C, H, W) in [0, 1] -> features (B, D).

    Args:
        name: short name, as in "FD-<name>".
        resize: side to which images are resized first (bilinear, antialiased), or None.
    """

    def __init__(self, name: str, resize: int | None = None) -> None:
        super().__init__()
        if resize is not None:
            whole(1, resize=resize)
        self.name, self.resize = name, resize

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        r"""Features (B, D) of checked and resized images."""

    def logits(self, features: Tensor) -> Tensor | None:
        r"""Class logits (B, K) of features, or None if the extractor is no classifier."""
        return None

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                "images must be floating point of shape (B, C, H, W) in [0, 1], "
                f"got {images.dtype} {tuple(images.shape)}. Use as_unit for uint8."
            )
        if self.resize is not None and images.shape[-2:] != (self.resize, self.resize):
            size = (self.resize, self.resize)
            images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return self.extract(images)

    @property
    def frechet_name(self) -> str:
        r"""The name of the Frechet distance in these features."""
        return f"FD-{self.name}"

    @property
    def kernel_name(self) -> str:
        r"""The name of the kernel distance in these features."""
        return f"KD-{self.name}"

    @property
    def hash(self) -> str:
        r"""16 hexadecimal digits that change with the kind, the resize and the weights."""
        digest = hashlib.sha256(f"{type(self).__name__} resize={self.resize}".encode())
        for key, value in sorted(self.state_dict().items()):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class Pixels(FeatureExtractor):
    r"""The flattened image itself; vectors (B, D) as they are."""

    def __init__(self, resize: int | None = None) -> None:
        super().__init__("pixels", resize)

    def forward(self, images: Tensor) -> Tensor:
        return images if images.ndim == 2 else super().forward(images)

    def extract(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class RandomConvolution(FeatureExtractor):
    r"""Features of an untrained convolutional network, the same on every machine; for tests, since it needs no weights.

    Args:
        channels: channels of the images.
        features: their number D.
        seed: seed of the weights.
        resize: as in `FeatureExtractor`.
    """

    weight_0: Tensor
    weight_1: Tensor

    def __init__(self, channels: int, features: int = 64, seed: int = 0, resize: int | None = None) -> None:
        super().__init__("random", resize)
        whole(1, channels=channels, features=features)
        self.channels, self.features, self.seed = channels, features, seed
        draws = generator(seed, Stream.WEIGHTS, channels, features)  # not the key of a network's first weights
        widths = (channels, 32, features)
        for i in range(2):
            shape = (widths[i + 1], widths[i], 3, 3)
            weight = torch.randn(shape, generator=draws) * math.sqrt(2 / math.prod(shape[1:]))
            self.register_buffer(f"weight_{i}", weight)

    def extract(self, images: Tensor) -> Tensor:
        x = functional.conv2d(2 * images - 1, self.weight_0, stride=2, padding=1).relu()
        return functional.conv2d(x, self.weight_1, stride=2, padding=1).relu().mean((2, 3))


class AbstractClassifierFeatures(FeatureExtractor):
    r"""The penultimate layer of a trained classifier.

    Args:
        model: the classifier, put into evaluation mode.
        name: by convention that of its data: "mnist" gives "FD-mnist".
        resize: as in `FeatureExtractor`.
        units: lowest and highest value of the data that it was trained on, where they are not 0 and 1.
    """

    units: Tensor

    def __init__(self, model: Classifier, name: str, resize: int | None, units: Range = UNIT) -> None:
        super().__init__(name, resize)
        self.classifier = model.eval().requires_grad_(False)
        self.register_buffer("units", torch.tensor(units), persistent=units != UNIT)  # what persists is in the hash

    def train(self, mode: bool = True) -> Self:
        r"""Stays in evaluation mode: features of an image must not depend on its batch."""
        return super().train(False)

    def extract(self, images: Tensor) -> Tensor:
        low, high = self.units
        return self.classifier.features(low + (high - low) * images)

    def logits(self, features: Tensor) -> Tensor:
        return self.classifier.classify(features)


class ClassifierFeatures(AbstractClassifierFeatures):
    r"""The penultimate layer of a trained classifier.

    Args:
        classifier: trained; put into evaluation mode.
        name: by convention that of its data: "mnist" gives "FD-mnist".
        resize: as in `FeatureExtractor`.
    """

    def __init__(self, classifier: Classifier, name: str, resize: int | None = None) -> None:
        super().__init__(classifier, name, resize)


class CheckpointFeatures(AbstractClassifierFeatures):
    r"""The penultimate layer of the classifier in a checkpoint.

    Args:
        checkpoint: its folder, or the run folder.
        name: as in `ClassifierFeatures`; None: that of the data it was trained on.
        weights: "ema" or "model".
        resize: as in `FeatureExtractor`.
        trust: as in `scoregen.load`; None: nothing.

    Raises:
        UserError: the checkpoint is not that of a classifier.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        name: str | None = None,
        weights: str = "ema",
        resize: int | None = None,
        trust: list[str] | None = None,
    ) -> None:
        from scoregen.checkpoint import find, load, read_config

        model = load(checkpoint, weights, trust=trust or ())
        if not isinstance(model, Classifier):
            raise UserError(
                f"features.checkpoint: '{checkpoint}' must hold a classifier, got a {type(model).__name__}. Train one "
                "with an experiment of the folder classifier/."
            )
        config = read_config(find(checkpoint))
        known = identity.known(config, f"'{checkpoint}'")
        if known.range is None or not has_ends(known.range):
            raise UserError(
                f"features.checkpoint: '{checkpoint}' was trained on data whose range has no ends. Choose another."
            )
        super().__init__(model, name or _data_name(config), resize, known.range)
        self.checkpoint, self.weights, self.trust = checkpoint, weights, trust


def _data_name(config: Config) -> str:
    r"""The name of the data in a run's configuration: the file's, or the class's."""
    from scoregen import data

    node = config.get("data", {})
    name = str(node.get("_target_", "classifier")).rpartition(".")[2]
    known = getattr(data, name, None) if name in data.__all__ else None
    return Path(node["path"]).stem if "path" in node else getattr(known, "name", name.lower())
