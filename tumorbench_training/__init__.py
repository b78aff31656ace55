"""Teaching encoders: compact networks trained on phantoms the way their big sisters were.

Each encoder of the benchmark has a compact relative (``model.build("compact")``) that was trained
with the objective of its family on phantoms whose seeds occur in no cohort. The weights and a card
for each lie in ``data/encoders``; ``tumorbench encoders NAME`` makes them again.

>>> from tumorbench_utils import models, pretraining
>>> model = models.get_model("pasta")
>>> module = model.build("compact", seed=0)                       # untrained
>>> shown = pretraining.phantoms_of("train", {"dlcs": 8})         # doctest: +SKIP
>>> objective = pretraining.RECIPES["pasta"]
>>> head, losses = pretraining.fit(objective, model, module, shown, steps=5)  # doctest: +SKIP
"""

from tumorbench_training.data import (
    HELD_OUT,
    TISSUES,
    TRAIN,
    Phantoms,
    phantoms_of,
    seeds,
)
from tumorbench_training.findings import finding
from tumorbench_training.make import (
    make_encoder,
    missing,
    own_table,
    phenotype_table,
    read_cards,
)
from tumorbench_training.recipes import RECIPES
from tumorbench_training.train import fit

__all__ = [
    "HELD_OUT",
    "RECIPES",
    "TISSUES",
    "TRAIN",
    "Phantoms",
    "finding",
    "fit",
    "make_encoder",
    "missing",
    "own_table",
    "phantoms_of",
    "phenotype_table",
    "read_cards",
    "seeds",
]
