"""A function of one patch as a network of no weights."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class PatchFunction(nn.Module):
    """Calls a function for every patch; its name and the digest of its source are printed."""

    def __init__(self, function: Callable, name: str, digest: str):
        super().__init__()
        self.function, self.name, self.digest = function, name, digest

    def extra_repr(self) -> str:
        """Return what tells this function from another: the key of stored embeddings has it."""
        return f"{self.name}, {self.digest}"

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to features (n, dim)."""
        rows = np.stack([self.function(patch.copy()) for patch in x[:, 0].cpu().numpy()])
        # "same_kind" refuses text, objects and complex numbers.
        return torch.from_numpy(rows.astype(np.float32, casting="same_kind")).to(x.device)
