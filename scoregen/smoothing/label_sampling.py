r"""Labels drawn by a sampler given x, and votes of several draws.

A converged sampler that starts from noise draws the label from p(k | x), which is right with probability sum_k p_k^2.
The most likely class is right with probability max_k p_k, and votes bring the draw towards it. `NoPropClassifier`
itself starts from u = 0 and needs no votes; this is for comparing the two.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scoregen.checks import whole
from scoregen.keys import Keys
from scoregen.models import NoPropClassifier
from scoregen.rng import Stream
from scoregen.smoothing.purify import fingerprints


class SampledLabels(nn.Module):
    r"""f(x) = the class nearest to what a sampler of label embeddings ends at, from noise.

        The noise is keyed by the bits of the input, so that f is a function of x and can be certified.

    Args:
        classifier: has D(u, s | x).
        sampler: sampler(denoiser, shape, generator=...) -> labels (B, K) in data units, where one-hot ones are.
        votes: draws for each input; the majority counts, ties broken by the mean distance.
        seed: seed of the noise.

    Raises:
        ValueError: votes < 1, or a sampler whose labels depend on the rest of their batch.
    """

    def __init__(
        self, classifier: NoPropClassifier, sampler: Callable[..., Tensor], *, votes: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        whole(1, votes=votes)
        if getattr(sampler, "couples_batch", False):
            raise ValueError(
                f"sampler must draw each label by itself, got {type(sampler).__name__}, whose steps depend on the "
                "whole batch. Use Heun, DDIM or another sampler with a number of steps."
            )
        self.classifier, self.sampler, self.votes, self.seed = classifier, sampler, int(votes), seed
        self.training = classifier.training

    def extra_repr(self) -> str:
        steps = getattr(self.sampler, "steps", None)
        return f"sampler={type(self.sampler).__name__}(steps={steps}), votes={self.votes}, seed={self.seed}"

    def drawn(self, x: Tensor, vote: int = 0) -> Tensor:
        r"""Labels (B, K), in data units, of inputs x (B, *S); those of different numbers `vote` are independent."""
        keyed = Keys(self.seed, Stream.PURIFY, vote, lambda: fingerprints(x))
        return self.sampler(self.classifier.given(x), (len(x), self.classifier.num_classes), generator=keyed)

    def forward(self, x: Tensor) -> Tensor:
        r"""Logits (B, K) of inputs (B, *S): the votes of each class, and closeness, which decides between equals."""
        labels = torch.stack([self.drawn(x, vote) for vote in range(self.votes)])
        won = nn.functional.one_hot(labels.argmax(2), labels.shape[2]).sum(0)
        return won + 0.5 * labels.softmax(2).mean(0)
