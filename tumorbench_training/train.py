"""The training loop: seeded, resumable, on the CPU or a GPU."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from tumorbench_training.data import Phantoms
from tumorbench_training.objectives import Objective
from tumorbench_utils.files import atomic_path
from tumorbench_utils.models import FoundationModel

#: Steps after which a run is saved, so that it can go on from there.
SAVE_EVERY = 50

_WARM_UP = 10


def rate_at(step: int, steps: int) -> float:
    """Return the share of the largest learning rate: a short rise, then half a cosine to 0."""
    rise = min((step + 1) / _WARM_UP, 1.0)
    return float(rise * 0.5 * (1 + np.cos(np.pi * step / steps)))


def fit(
    objective: Objective,
    model: FoundationModel,
    module: nn.Module,
    phantoms: Phantoms,
    *,
    steps: int | None = None,
    seed: int = 0,
    frozen: bool = False,
    state: str | os.PathLike | None = None,
    progress: str = "",
    **draw,
) -> tuple[nn.Module, list[float]]:
    """Train an encoder on an objective, in place.

    Every step draws from a generator made of `seed` and the number of the step, so that a run that
    was interrupted goes on as if it had not been. On one machine with one number of threads the
    same call gives the same weights, bit by bit.

    Parameters
    ----------
    objective : Objective
    model : FoundationModel
    module : torch.nn.Module
        As made by ``model.build("compact", seed=...)``, on the device to train on.
    phantoms : Phantoms
    steps : int, optional
        If None, those of the objective.
    seed : int
    frozen : bool
        Train the head alone and leave the encoder as it is: what an untrained twin gets.
    state : path-like, optional
        Where the run is kept every :data:`SAVE_EVERY` steps. If the file is there, the run goes on
        from it.
    progress : str
        What to write beside the bar; no bar if empty.
    **draw
        Handed to ``objective.draw``.

    Returns
    -------
    head : torch.nn.Module
        What was trained beside the encoder.
    losses : list of float
        One per step.

    Raises
    ------
    FloatingPointError
        If the loss is no longer a number.
    """
    steps = objective.steps if steps is None else steps
    device = next(module.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = objective.head(model, module, frozen).to(device)
    trained = [*head.parameters(), *(() if frozen else module.parameters())]
    losses: list[float] = []
    if not trained:
        return head, losses
    optimiser = torch.optim.AdamW(trained, lr=objective.rate, weight_decay=0.01)
    if state is not None and Path(state).exists():
        losses = _resume(state, module, head, optimiser, device)
    module.requires_grad_(not frozen).train(not frozen)
    head.train()
    shown = phantoms.of_organs(objective.organs)
    bar = tqdm(total=steps, initial=len(losses), desc=progress, unit="step", disable=not progress)
    with bar:
        for step in range(len(losses), steps):
            rng = np.random.default_rng([seed, step])
            chosen = rng.choice(shown, min(objective.batch, len(shown)), replace=False)
            batch = objective.draw(model, phantoms, chosen, rng, **draw)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            for group in optimiser.param_groups:
                group["lr"] = objective.rate * rate_at(step, steps)
            loss = objective.loss(module, head, batch)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the loss of {model.key} is {loss.item()} at step {step}; take a smaller rate"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{np.mean(losses[-10:]):.3f}", refresh=False)
            bar.update()
            if state is not None and (step + 1) % SAVE_EVERY == 0 and step + 1 < steps:
                _save(state, module, head, optimiser, losses)
    module.requires_grad_(True).eval()
    head.eval()
    return head, losses


def _save(path, module, head, optimiser, losses) -> None:
    content = {
        "module": module.state_dict(),
        "head": head.state_dict(),
        "optimiser": optimiser.state_dict(),
        "losses": losses,
    }
    with atomic_path(path) as part:
        torch.save(content, part)


def _resume(path, module, head, optimiser, device) -> list[float]:
    """Put a run back to where it was saved and return its losses."""
    content = torch.load(path, map_location=device, weights_only=True)
    module.load_state_dict(content["module"])
    head.load_state_dict(content["head"])
    optimiser.load_state_dict(content["optimiser"])
    return content["losses"]
