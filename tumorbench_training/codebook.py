"""The codebook of CT-ViT: its rows follow the tokens, they are not trained by gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CodebookMeans(nn.Module):
    """Move the rows of a codebook to the means of their tokens (van den Oord et al. 2017).

    Parameters
    ----------
    module : CTViT
        Its codebook is changed in place at every call.
    decay : float
        How much of a row stays at a step.
    patience : int
        Steps after which a row that no token has taken is put onto a random token.
    """

    def __init__(self, module: nn.Module, decay: float = 0.8, patience: int = 20):
        super().__init__()
        self.decay, self.patience = decay, patience
        rows = module.vq["_codebook"].embed.shape[1]
        # All rows are overdue at first: they start on tokens of the first batch.
        self.register_buffer("idle", torch.full((rows,), patience + 1))

    def forward(self, module: nn.Module, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings, and the loss that keeps tokens near their rows."""
        tokens = module.tokens(patches)
        book = module.vq["_codebook"]
        unit = F.normalize(tokens, dim=-1)
        self._move(book, unit.detach().flatten(0, 1))
        nearest = F.normalize(book.embed[0][book.nearest(tokens.detach())], dim=-1)
        apart = 1 - (unit * nearest).sum(-1).mean()
        return module.head(book(tokens).mean(dim=1)), 0.25 * apart

    @torch.no_grad()
    def _move(self, book: nn.Module, unit: Tensor) -> None:
        overdue = torch.nonzero(self.idle > self.patience)[:, 0]
        picked = torch.linspace(0, len(unit) - 1, len(overdue), device=unit.device).long()
        book.embed[0, overdue] = unit[picked]
        self.idle[overdue] = 0
        row = book.nearest(unit)
        count = torch.bincount(row, minlength=len(self.idle))
        taken = count > 0
        means = torch.zeros_like(book.embed[0]).index_add_(0, row, unit)[taken]
        means /= count[taken, None]
        book.embed[0, taken] = self.decay * book.embed[0, taken] + (1 - self.decay) * means
        self.idle += 1
        self.idle[taken] = 0
