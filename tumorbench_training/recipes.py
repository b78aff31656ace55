"""Which encoder is trained with which objective on what: the choices of the shipped weights."""

from tumorbench_training.objectives import (
    LesionContrast,
    LesionSegmentation,
    Objective,
    PositionContrast,
    PromptedSegmentation,
    Restoration,
    ScanContrast,
    TextContrast,
    TissueSegmentation,
)

_CHEST, _ABDOMEN = ("lung",), ("kidney", "liver")

#: The objective of every encoder of the benchmark. Organs are those of the big sister's data;
#: abdominal scans such as SuPreM's hold the bases of the lungs.
RECIPES: dict[str, Objective] = {
    "fmcib": LesionContrast(batch=12, steps=400),
    "ct_fm": ScanContrast(batch=3, steps=320),
    "ct_clip_vit": TextContrast(
        paper="hamamci2024ctclip", organs=_CHEST, side=None, batch=24, steps=300, rate=1e-3
    ),
    "pasta": LesionSegmentation(batch=12, steps=240),
    "vista3d": PromptedSegmentation(batch=12, steps=240),
    "voco": PositionContrast(batch=2, steps=220, rate=1e-3),
    "suprem": TissueSegmentation(batch=12, steps=240),
    "merlin": TextContrast(paper="blankemeier2024merlin", organs=_ABDOMEN, batch=24, steps=240),
    "medimageinsight": TextContrast(
        paper="codella2024medimageinsight", side=None, batch=16, steps=480, rate=1e-3
    ),
    "models_genesis": Restoration(organs=_CHEST, batch=12, steps=240),
}
