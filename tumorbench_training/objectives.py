"""What each family of encoders was trained to do, small: one class an objective.

An objective draws batches, gives a loss, and scores a network on phantoms it has not seen, one
number per phantom. Where a decoder or a text tower is needed, ``head`` makes it; it is trained with
the encoder and then thrown away.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import ContrastiveLoss, DiceCELoss
from torch import Tensor, nn

from tumorbench_training import findings, views
from tumorbench_training.codebook import CodebookMeans
from tumorbench_training.data import TISSUES, Phantoms
from tumorbench_training.decoders import MAPS, Decoder, with_maps
from tumorbench_utils.models import FoundationModel

#: The four quarters of the axial plane and the eight corners of a cube, as signs along S, P and L.
QUARTERS = np.array([[0, b, c] for b in (-1, 1) for c in (-1, 1)])
CORNERS = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What all objectives have.

    Attributes
    ----------
    steps : int
        Batches of the shipped training.
    batch : int
        Phantoms in a batch.
    rate : float
        Largest learning rate.
    organs : tuple of str
        Which phantoms are shown: what the big sister was trained on.
    side : int or None
        Voxels a side of the patches in training, if not those of the benchmark. The networks take
        any size, and smaller patches are cheaper.
    held_out : int
        Most phantoms on which the score is taken.
    """

    steps: int = 250
    batch: int = 8
    rate: float = 2e-3
    organs: tuple[str, ...] = ("lung", "kidney", "liver")
    side: int | None = 40
    held_out: int = 360

    name = ""
    citation = ""
    #: What the score is, in words, whether more of it is better, and what guessing gives where that
    #: can be said without the data.
    measure = ""
    higher_is_better = True
    chance = None

    def head(self, model: FoundationModel, module: nn.Module, frozen: bool = False) -> nn.Module:
        """Return what is trained beside the encoder; empty if nothing is.

        `frozen` tells that the encoder will not be trained: the head of an untrained twin.
        """
        return nn.Module()

    def draw(self, model, phantoms: Phantoms, indices, rng: np.random.Generator) -> dict:
        """Return a batch: tensors by name."""
        raise NotImplementedError

    def loss(self, module: nn.Module, head: nn.Module, batch: dict) -> Tensor:
        """Return the loss of a batch."""
        raise NotImplementedError

    def scores(self, model, module, head, phantoms: Phantoms, indices, rng) -> np.ndarray:
        """Return one number per phantom for a network in evaluation mode."""
        raise NotImplementedError


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _embed(module: nn.Module, patches: Tensor, size: int = 32) -> Tensor:
    """Return embeddings without gradients, on the CPU."""
    with torch.inference_mode():
        parts = [module(part.to(_device(module))).float().cpu() for part in patches.split(size)]
    return torch.cat(parts)


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return cosines of all rows of (..., n, d) with all rows of (..., m, d)."""
    return F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).transpose(-1, -2)


@dataclass(frozen=True, kw_only=True)
class LesionContrast(Objective):
    """Two views of a lesion are to be nearer to each other than to other lesions (FMCIB).

    Pai et al. 2024; the loss is that of Chen et al. 2020 (SimCLR).
    """

    reach: int = 6
    temperature: float = 0.1

    name = "lesion contrast"
    citation = "pai2024fmcib"
    measure = "another view of the lesion is the nearest of all"

    def draw(self, model, phantoms, indices, rng, change=None) -> dict:
        """Return two views of each lesion; `change` is what makes them differ."""
        change = change or views.lesion_views()
        pair = []
        for _ in range(2):
            shifts = rng.integers(-self.reach, self.reach + 1, (len(indices), 3))
            patches = phantoms.batch(indices, model.spec, shifts, self.side)
            pair.append(views.changed(patches, change, rng))
        return {"first": pair[0], "second": pair[1]}

    def loss(self, module, head, batch) -> Tensor:
        """Return the contrastive loss."""
        n = len(batch["first"])
        embedded = module(torch.cat([batch["first"], batch["second"]]))
        return ContrastiveLoss(self.temperature)(embedded[:n], embedded[n:])

    def scores(self, model, module, head, phantoms, indices, rng) -> np.ndarray:
        """Return whether the second view of each lesion is found with the first."""
        batch = self.draw(model, phantoms, indices, rng)
        near = _cosines(_embed(module, batch["first"]), _embed(module, batch["second"]))
        return (near.argmax(1) == torch.arange(len(near))).double().numpy()


@dataclass(frozen=True, kw_only=True)
class ScanContrast(Objective):
    """Two views of a place are to be nearer than other places of the same scan (CT-FM).

    Pai et al. 2025: the negatives come from the scan itself, so that scanner and patient are no
    help.
    """

    temperature: float = 0.1
    side: int = 32
    held_out: int = 120

    name = "intra-scan contrast"
    citation = "pai2025ctfm"
    measure = "another view of the place is the nearest in the scan"
    chance = 1 / len(CORNERS)

    def draw(self, model, phantoms, indices, rng) -> dict:
        """Return two views (n * 8, ...) of eight places in each scan, up to 4 mm apart."""
        pair = []
        for _ in range(2):
            shifts = [16 * CORNERS + rng.integers(-2, 3, CORNERS.shape) for _ in indices]
            crops = phantoms.batch(
                np.repeat(indices, len(CORNERS)), model.spec, np.concatenate(shifts), self.side
            )
            pair.append(views.changed(crops, views.scan_views(), rng))
        return {"first": pair[0], "second": pair[1]}

    def loss(self, module, head, batch) -> Tensor:
        """Return the contrastive loss within scans, averaged over them."""
        embedded = module(torch.cat([batch["first"], batch["second"]]))
        first, second = embedded.reshape(2, -1, len(CORNERS), embedded.shape[1])
        contrast = ContrastiveLoss(self.temperature)
        return torch.stack([contrast(a, b) for a, b in zip(first, second, strict=True)]).mean()

    def scores(self, model, module, head, phantoms, indices, rng) -> np.ndarray:
        """Return the share of the places of each scan that are found again."""
        batch = self.draw(model, phantoms, indices, rng)
        first, second = (
            _embed(module, batch[k], 64).unflatten(0, (-1, len(CORNERS)))
            for k in ("first", "second")
        )
        found = _cosines(first, second).argmax(2) == torch.arange(len(CORNERS))
        return found.double().mean(1).numpy()


@dataclass(frozen=True, kw_only=True)
class PositionContrast(Objective):
    """Say how much a crop overlaps with each of four base crops of the volume (VoCo).

    Wu et al. 2024: base crops tile the axial plane; the predicted overlap is the cosine of the
    embeddings (below 0 counts as 0), and base crops are pushed apart. The crops are enlarged to the
    size that the network takes.
    """

    crops: int = 3
    side: int = 36

    name = "volume position contrast"
    citation = "wu2024voco"
    measure = "the base crop with the largest overlap is the nearest"
    chance = 1 / len(QUARTERS)

    def draw(self, model, phantoms, indices, rng) -> dict:
        """Return base and random crops, and the share of each random crop in each base."""
        half = self.side // 2
        places = rng.integers(-half, half + 1, (len(indices), self.crops, 3))
        places[..., 0] = 0
        bases = half * QUARTERS
        apart = np.abs(places[:, :, None] - bases)
        overlap = (np.clip(self.side - apart, 0, None) / self.side).prod(-1)
        shifts = np.concatenate([np.broadcast_to(bases, (len(indices), *bases.shape)), places], 1)
        owners = np.repeat(indices, shifts.shape[1])
        crops = phantoms.batch(owners, model.spec, shifts.reshape(-1, 3), self.side)
        crops = F.interpolate(crops, size=model.spec.size, mode="trilinear", align_corners=False)
        return {"crops": crops, "overlap": torch.from_numpy(overlap).float()}

    def _predicted(self, embedded: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return the cosines of crops with bases and of bases among each other."""
        embedded = embedded.unflatten(0, (n, -1))
        bases, crops = embedded[:, : len(QUARTERS)], embedded[:, len(QUARTERS) :]
        return _cosines(crops, bases), _cosines(bases, bases)

    def loss(self, module, head, batch) -> Tensor:
        """Return the loss of the overlaps plus the similarity of different bases."""
        overlap = batch["overlap"]
        near, among = self._predicted(module(batch["crops"]), len(overlap))
        wrong = (near.clamp(min=0) - overlap).abs().clamp(max=0.999)
        others = ~torch.eye(len(QUARTERS), dtype=torch.bool, device=among.device)
        return -torch.log(1 - wrong).mean() + among[:, others].abs().mean()

    def scores(self, model, module, head, phantoms, indices, rng) -> np.ndarray:
        """Return the share of random crops of each volume that are put into the right base."""
        batch = self.draw(model, phantoms, indices, rng)
        near, _ = self._predicted(_embed(module, batch["crops"]), len(indices))
        # Where two bases are overlapped alike, either is right.
        best = batch["overlap"].amax(2, keepdim=True)
        chosen = batch["overlap"].gather(2, near.argmax(2, keepdim=True))
        return (chosen >= best - 1e-6).double().mean((1, 2)).numpy()


class _WithDecoder(Objective):
    """Objectives that draw something on the grid of the patch."""

    outputs = 1
    fine = False

    def head(self, model, module, frozen=False) -> Decoder:
        """Return a decoder for the maps of the network."""
        module.eval()
        with torch.no_grad():
            patch = torch.zeros(1, 1, *(self.side or model.spec.size[0],) * 3)
            patch = patch.to(_device(module))
            _, maps = with_maps(module, patch, MAPS[model.key])
        shapes = [(m.shape[1], m.shape[-1]) for m in maps]
        decoder = Decoder(shapes, model.dim, self.outputs, patch.shape[-1], self.fine)
        decoder.names = MAPS[model.key]
        return decoder

    def _drawn(self, module, head, x: Tensor) -> Tensor:
        return head(*with_maps(module, x, head.names))

    def _predicted(self, module, head, patches: Tensor) -> Tensor:
        """Return what is drawn of patches, without gradients, on the CPU."""
        device = _device(module)
        with torch.inference_mode():
            parts = [self._drawn(module, head, x.to(device)).cpu() for x in patches.split(16)]
        return torch.cat(parts)

    def _shifts(self, n: int, rng) -> np.ndarray:
        """Return random even moves, so that label maps move with the patch."""
        return 2 * rng.integers(-4, 5, (n, 3))

    def _patches_and_maps(self, kind, model, phantoms, indices, rng) -> tuple[Tensor, np.ndarray]:
        """Return moved patches and their label maps (n, 1, ...)."""
        shifts = self._shifts(len(indices), rng)
        pairs = zip(indices, shifts, strict=True)
        maps = [phantoms.labels(kind, i, model.spec, s, self.side) for i, s in pairs]
        return phantoms.batch(indices, model.spec, shifts, self.side), np.stack(maps)[:, None]


@dataclass(frozen=True, kw_only=True)
class Restoration(_WithDecoder):
    """Undo damage: bent grey values, shuffled voxels, painted-over regions (Models Genesis).

    Zhou et al. 2021; the loss is the squared error to the patch before the damage.
    """

    name = "restoration"
    citation = "zhou2021genesis"
    measure = "error of the restored patch (HU, root mean square)"
    higher_is_better = False
    fine = True

    def draw(self, model, phantoms, indices, rng) -> dict:
        """Return whole and damaged patches."""
        shifts = self._shifts(len(indices), rng)
        whole = phantoms.batch(indices, model.spec, shifts, self.side)
        return {"whole": whole, "damaged": views.changed(whole, views.damage(), rng)}

    def loss(self, module, head, batch) -> Tensor:
        """Return the mean squared error, in units of 100 HU at the usual window."""
        scale = 30.72
        drawn = self._drawn(module, head, batch["damaged"])
        return F.mse_loss(scale * drawn, scale * batch["whole"])

    def scores(self, model, module, head, phantoms, indices, rng) -> np.ndarray:
        """Return the root mean square error of each patch in HU."""
        batch = self.draw(model, phantoms, indices, rng)
        low, high = model.spec.window_hu
        drawn = self._predicted(module, head, batch["damaged"])
        errors = (drawn - batch["whole"]).square().mean((1, 2, 3, 4)).sqrt() * (high - low)
        return errors.double().numpy()


def _dice(drawn: Tensor, true: Tensor) -> Tensor:
    """Return the Dice coefficient of boolean maps (n, ...); NaN where nothing is to be found."""
    axes = tuple(range(1, true.ndim))
    total = drawn.sum(axes) + true.sum(axes)
    dice = 2 * (drawn & true).sum(axes) / total
    return torch.where(true.flatten(1).any(1), dice, torch.nan)


@dataclass(frozen=True, kw_only=True)
class TissueSegmentation(_WithDecoder):
    """Name the tissue of every voxel; a lesion counts as the tissue that it lies in (SuPreM).

    Li et al. 2024 segmented organs, lesions being part of them.
    """

    name = "segmentation of tissues"
    citation = "li2024suprem"
    measure = "Dice of the tissues that are there"
    outputs = len(TISSUES)

    def draw(self, model, phantoms, indices, rng) -> dict:
        """Return patches and the class of every voxel on the coarse grid."""
        patches, maps = self._patches_and_maps("tissue", model, phantoms, indices, rng)
        return {"patches": patches, "true": torch.from_numpy(maps).long()}

    def loss(self, module, head, batch) -> Tensor:
        """Return Dice loss plus cross-entropy."""
        # The Dice coefficient is taken over the batch: few patches hold all tissues.
        loss = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, batch=True)
        return loss(self._drawn(module, head, batch["patches"]), batch["true"])

    def scores(self, model, module, head, phantoms, indices, rng) -> np.ndarray:
        """Return the Dice coefficient of each patch, averaged over the classes in it."""
        batch = self.draw(model, phantoms, indices, rng)
        found = self._predicted(module, head, batch["patches"]).argmax(1, keepdim=True)
        dice = torch.stack([_dice(found == k, batch["true"] == k) for k in range(self.outputs)])
        return dice.nanmean(0).double().numpy()


@dataclass(frozen=True, kw_only=True)
class PromptedSegmentation(_WithDecoder):
    """Draw what is asked for: one of the tissues, or the lesion (VISTA3D).

    He et al. 2024 prompt by class or by points; here by class. As there, a class is a vector, and
    the answer is its product with the features of every voxel: the last layer holds the vectors.
    """

    name = "segmentation on demand"
    citation = "he2024vista3d"
    measure = "Dice of the things that are there, each asked for"
    outputs = len(TISSUES) + 1

    def draw(self, model, phantoms, indices, rng) -> dict:
        """Return patches, where every thing is in them, and which two things are asked for.

        The lesion is always one of the two, a tissue that is there the other.
        """
        shifts = self._shifts(len(indices), rng)
        maps, asked = [], np.zeros((len(indices), self.outputs), np.float32)
        asked[:, -1] = 1
        for row, (index, shift) in enumerate(zip(indices, shifts, strict=True)):
            maps.append(self._maps(model, phantoms, index, shift))
            there = np.flatnonzero(maps[-1][:-1].any((1, 2, 3)))
            asked[row, rng.choice(there) if there.size else -1] = 1
        return {
            "patches": phantoms.batch(indices, model.spec, shifts, self.side),
            "true": torch.from_numpy(np.stack(maps)).float(),
            "asked": torch.from_numpy(asked),
        }

    def _maps(self, model, phantoms, index, shift) -> np.ndarray:
        """Return where each thing is: (things, ...) of bool, tissues without the lesion."""
        lesion = phantoms.labels("lesion", index, model.spec, shift, self.side) >= 128
        tissue = phantoms.labels("tissue", index, model.spec, shift, self.side)
        parts = [(tissue == k) & ~lesion for k in range(len(TISSUES))]
        return np.stack([*parts, lesion])

    def loss(self, module, head, batch) -> Tensor:
        """Return Dice loss plus binary cross-entropy of the things that are asked for."""
        drawn = self._drawn(module, head, batch["patches"])
        asked = batch["asked"].bool()
        loss = DiceCELoss(sigmoid=True, squared_pred=True)
        return loss(drawn[asked][:, None], batch["true"][asked][:, None])

    def scores(self, model, module, head, phantoms, indices, rng) -> np.ndarray:
        """Return the Dice coefficient of each patch, averaged over the things in it."""
        batch = self.draw(model, phantoms, indices, rng)
        found, true = self._predicted(module, head, batch["patches"]) > 0, batch["true"] > 0.5
        dice = torch.stack([_dice(found[:, k], true[:, k]) for k in range(self.outputs)])
        return dice.nanmean(0).double().numpy()


@dataclass(frozen=True, kw_only=True)
class LesionSegmentation(_WithDecoder):
    """Draw the synthetic lesion (PASTA, Lei et al. 2025)."""

    name = "segmentation of synthetic lesions"
    citation = "lei2025pasta"
    measure = "Dice of the lesion"

    def draw(self, model, phantoms, indices, rng) -> dict:
        """Return patches and the lesion in them."""
        patches, maps = self._patches_and_maps("lesion", model, phantoms, indices, rng)
        return {"patches": patches, "true": torch.from_numpy(maps >= 128).float()}

    def loss(self, module, head, batch) -> Tensor:
        """Return Dice loss plus binary cross-entropy."""
        loss = DiceCELoss(sigmoid=True, squared_pred=True)
        return loss(self._drawn(module, head, batch["patches"]), batch["true"])

    def scores(self, model, module, head, phantoms, indices, rng) -> np.ndarray:
        """Return the Dice coefficient of each lesion; NaN if it fills no voxel of the grid."""
        batch = self.draw(model, phantoms, indices, rng)
        found = self._predicted(module, head, batch["patches"]) > 0
        return _dice(found, batch["true"] > 0.5).double().numpy()


@dataclass(frozen=True, kw_only=True)
class TextContrast(Objective):
    """An image is to be near its own finding and far from those of others.

    For CT-CLIP (Hamamci et al. 2024), Merlin (Blankemeier et al. 2024) and MedImageInsight (Codella
    et al. 2024); the loss is that of Radford et al. 2021 (CLIP). The findings are written from the
    phantom's phenotype.
    """

    paper: str = "hamamci2024ctclip"
    reach: int = 2
    batch: int = 16

    name = "image-text contrast"
    measure = "share of other findings that are further away than the own one"
    chance = 0.5

    @property
    def citation(self) -> str:
        """The paper of the model."""
        return self.paper

    def head(self, model, module, frozen=False) -> nn.Module:
        """Return the text tower, the temperature and what moves a codebook, if there is one.

        A frozen encoder cannot come towards the text, so it gets a linear layer that does.
        """
        parts = nn.Module()
        parts.text = findings.TextTower(model.dim)
        parts.image = nn.Identity()
        if frozen:
            scaled = nn.BatchNorm1d(model.dim, affine=False)
            parts.image = nn.Sequential(scaled, nn.Linear(model.dim, model.dim))
        parts.scale = nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))
        books = hasattr(module, "vq") and not frozen
        parts.codebook = CodebookMeans(module) if books else None
        return parts

    def draw(self, model, phantoms, indices, rng) -> dict:
        """Return patches and the words of their findings."""
        shifts = rng.integers(-self.reach, self.reach + 1, (len(indices), 3))
        patches = phantoms.batch(indices, model.spec, shifts, self.side)
        texts = [findings.finding(phantoms.table.loc[i]) for i in indices]
        return {"patches": patches, "words": findings.counts(texts)}

    def loss(self, module, head, batch) -> Tensor:
        """Return the mean of the two cross-entropies: finding of an image, image of a finding.

        Equal findings in a batch share the target.
        """
        patches, words = batch["patches"], batch["words"]
        extra = 0.0
        if head.codebook is not None:
            embedded, extra = head.codebook(module, patches)
        else:
            embedded = module(patches)
        near = _cosines(head.image(embedded), head.text(words)) * head.scale.exp().clamp(max=50)
        same = (words[:, None] == words[None]).all(2).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(near, target) + F.cross_entropy(near.T, target)) / 2 + extra

    def scores(self, model, module, head, phantoms, indices, rng) -> np.ndarray:
        """Return for each image the share of different findings that are further than its own."""
        batch = self.draw(model, phantoms, indices, rng)
        embedded = _embed(module, batch["patches"])
        with torch.inference_mode():
            words = batch["words"].to(_device(module))
            texts = head.text(words).cpu()
            near = _cosines(head.image(embedded.to(_device(module))).cpu(), texts)
        other = ~(batch["words"][:, None] == batch["words"][None]).all(2)
        own = near.diagonal()[:, None]
        further = ((near < own) + 0.5 * (near == own)) * other
        return (further.sum(1) / other.sum(1)).double().numpy()
