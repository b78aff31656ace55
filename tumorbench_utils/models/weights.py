"""Released checkpoints: where they are, what they are allowed for, and whether they changed.

Nothing is downloaded unless it is asked for by name. Files lie in ``TUMORBENCH_WEIGHTS`` (a folder
you filled yourself; nothing is ever written there) or in ``weights/KEY/`` of the cache. The SHA-256
of every file is written down when it is first seen whole, and a file that differs later is refused.
"""

import datetime
import functools
import json
import os
from pathlib import Path, PurePosixPath

import filelock
import pandas as pd
import yaml

from tumorbench_utils import digests, downloads, files, models, settings
from tumorbench_utils.models.base import CheckpointError


class WeightsError(RuntimeError):
    """Weights are absent, cannot be fetched, or are not those that were there before."""


@functools.cache
def addresses() -> dict[str, dict]:
    """Return where each checkpoint is fetched from: ``url``, or ``repo`` and ``repo_type``."""
    path = settings.BOOK_ROOT / "data" / "downloads.yml"
    return yaml.safe_load(path.read_text("utf-8"))["weights"]


def lock_file() -> Path:
    """Return the path of the record of checksums (JSON); the file may not exist yet."""
    return settings.cache_dir() / "weights.lock.json"


def find(name: str) -> Path | None:
    """Return the path of a model's checkpoint, or None if it is not here.

    ``TUMORBENCH_WEIGHTS`` is searched if it is set, the cache otherwise. In the folder the file
    may lie under the model's key, with or without the folders it has at its source.

    Raises
    ------
    KeyError
        If there is no such model.
    FileNotFoundError
        If ``TUMORBENCH_WEIGHTS`` names no folder.
    """
    file, folder = models.get_model(name).card.file, _folder()
    base = PurePosixPath(file).name
    places = [folder / place for place in (f"{name}/{file}", f"{name}/{base}", file, base)]
    return next((path for path in places if path.is_file()), None)


def fetch(name: str, *, progress: bool = True) -> Path:
    """Return the path of a model's checkpoint; download it if it is not here.

    Parameters
    ----------
    name : str
        Key of the model.
    progress : bool
        Show a progress bar on stderr.

    Raises
    ------
    KeyError
        If there is no such model.
    WeightsError
        If the file cannot be had: the message names the page to visit and the command to run
        again. Also if it is damaged, or not the file that was recorded.
    """
    path = find(name)
    new = path is None
    path = _download(name, progress) if new else path
    try:
        state = verify(name)
    except WeightsError:
        if new:
            path.unlink()
        raise
    if state == "changed":
        cure = f"remove it and run: tumorbench weights fetch {name}. If a new file was published "
        cure += f"on purpose, remove {name!r} from {lock_file()}"
        raise WeightsError(f"{path} is not the file recorded, {_records()[name]}: {cure}")
    return path


def verify(name: str) -> str:
    """Hold a checkpoint against the lock file; record it there if it is new and whole.

    Returns
    -------
    {"absent", "recorded", "unchanged", "changed"}

    Raises
    ------
    KeyError
        If there is no such model.
    WeightsError
        If the file is new and cannot be read, or the lock file is no JSON.
    """
    from tumorbench_utils.models import checkpoint

    path = find(name)
    if path is None:
        return "absent"
    lock_file().parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{lock_file()}.guard"):
        records, digest = _records(), digests.of_file(path)
        if name in records:
            return "unchanged" if records[name]["sha256"] == digest else "changed"
        try:  # the first checksum of a damaged file would be that of the damage
            checkpoint.read(path)
        except CheckpointError as error:
            raise WeightsError(_by_hand(name, str(error))) from error
        today = datetime.date.today().isoformat()
        records[name] = {"sha256": digest, "bytes": path.stat().st_size, "recorded": today}
        with files.atomic_path(lock_file()) as part:
            part.write_text(json.dumps(records, indent=2, sort_keys=True), encoding="utf-8")
    return "recorded"


def overview() -> pd.DataFrame:
    """Return one row per model: source, file, size, licence, what it allows, gate, presence.

    Returns
    -------
    DataFrame
        Index ``model``; columns ``file, source, access, gate, licence, allows, bytes,
        encoder_bytes, here``. ``bytes`` is the size of the file here, else missing;
        ``encoder_bytes`` is what the encoder's part of it needs in 32-bit numbers.
    """
    rows = {}
    for name, model in models.MODELS.items():
        card, path = model.card, find(name)
        facts = ("file", "source", "access", "gate", "licence", "allows")
        rows[name] = {fact: getattr(card, fact) for fact in facts}
        size = path.stat().st_size if path else None
        rows[name] |= {"bytes": size, "encoder_bytes": 4 * card.parameters, "here": bool(path)}
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return frame.astype({"bytes": "Int64"})


def _folder() -> Path:
    own = settings.named_folder("TUMORBENCH_WEIGHTS", "the checkpoints")
    return own or settings.cache_dir() / "weights"


def _records() -> dict:
    try:
        return json.loads(lock_file().read_text("utf-8")) if lock_file().exists() else {}
    except ValueError as error:
        raise WeightsError(f"{lock_file()} is not JSON; repair or remove it") from error


def _download(name: str, progress: bool) -> Path:
    """Download a checkpoint into the cache and return its path."""
    card, address = models.get_model(name).card, addresses().get(name)
    if address is None or os.environ.get("TUMORBENCH_WEIGHTS"):
        why = "the address is not known" if address is None else f"{_folder()} does not hold them"
        raise WeightsError(_by_hand(name, why))
    folder = _folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / ".guard"):
            if "url" in address:
                path = folder / PurePosixPath(card.file).name
                downloads.fetch(**address, path=path, progress=progress)
            else:
                path = _from_hub(address, card.file, folder, progress)
    except Exception as error:
        # Hub, proxy and network fail in many ways; all of them end in the same advice.
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise WeightsError(_by_hand(name, f"the download failed ({first})")) from error
    return path


def _from_hub(address: dict, file: str, folder: Path, progress: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    (enable_progress_bars if progress else disable_progress_bars)()
    kind = address.get("repo_type", "model")
    return Path(
        huggingface_hub.hf_hub_download(address["repo"], file, repo_type=kind, local_dir=folder)
    )


def _by_hand(name: str, reason: str) -> str:
    card = models.get_model(name).card
    gate = f" The file is behind a gate: {card.gate.rstrip('.')}." if card.gate else ""
    return (
        f"no weights for {name}: {reason}.{gate} Visit {card.source} ({card.file!r}), then run "
        f"again: tumorbench weights fetch {name}. Or save the file by hand into a folder and name "
        "it in TUMORBENCH_WEIGHTS"
    )
