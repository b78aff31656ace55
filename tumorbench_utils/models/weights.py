"""Released checkpoints: where they are, what they are allowed for, and whether they changed.

Nothing is downloaded unless it is asked for by name. Files lie in ``TUMORBENCH_WEIGHTS`` (a folder
you filled yourself; nothing is ever written there) or in ``weights/KEY/`` of the cache. The SHA-256
of every file is written down when it is first seen, and a file that differs later is refused.
"""

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import filelock
import pandas as pd

from tumorbench_utils import digests, files, models, settings
from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.models.checkpoint import CheckpointError, refuse_other_content


class WeightsError(RuntimeError):
    """Weights are absent, cannot be fetched, or are not those that were there before."""


def offline_dir() -> Path | None:
    """Return the folder named by ``TUMORBENCH_WEIGHTS``, or None if it is not set.

    Raises
    ------
    FileNotFoundError
        If the variable is set but names no folder.
    """
    value = os.environ.get("TUMORBENCH_WEIGHTS")
    if not value:
        return None
    folder = Path(value).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"TUMORBENCH_WEIGHTS names {value!r}, which is not a folder; set it to the folder with "
            "the checkpoints or unset it"
        )
    return folder


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
    """
    card = models.get_model(name).card
    folder = offline_dir() or _cache()
    base = PurePosixPath(card.file).name
    places = (f"{name}/{card.file}", f"{name}/{base}", card.file, base)
    return next((p for p in (folder / place for place in places) if p.is_file()), None)


def fetch(name: str, *, progress: bool = True) -> Path:
    """Return the path of a model's checkpoint; download it if it is not here.

    An interrupted download goes on where it stopped. The file is held against the lock file.

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
        again. Also if it is not the file that was recorded.
    """
    model = models.get_model(name)
    path = find(name)
    if path is None:
        if folder := offline_dir():
            raise WeightsError(
                f"TUMORBENCH_WEIGHTS ({folder}) does not hold the weights of {name}. Get "
                f"{model.card.file!r} from {model.card.source} and put it into {folder / name}, "
                "or unset the variable to download"
            )
        path = _download(model, progress)
    state = verify(name)
    if state == "changed":
        raise WeightsError(_changed(name, path))
    return path


def verify(name: str) -> str:
    """Hold a checkpoint against the lock file; record it there if it is new.

    Returns
    -------
    {"absent", "recorded", "unchanged", "changed"}

    Raises
    ------
    KeyError
        If there is no such model.
    WeightsError
        If the lock file cannot be read.
    """
    path = find(name)
    if path is None:
        return "absent"
    digest = digests.of_file(path)
    lock = lock_file()
    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{lock}.guard"):
        records = _records()
        if name in records:
            return "unchanged" if records[name]["sha256"] == digest else "changed"
        card = models.get_model(name).card
        records[name] = {
            "sha256": digest,
            "bytes": path.stat().st_size,
            "file": card.file,
            "source": card.source,
            "recorded": datetime.date.today().isoformat(),
        }
        with files.atomic_path(lock) as part:
            part.write_text(json.dumps(records, indent=2, sort_keys=True), encoding="utf-8")
    return "recorded"


def overview() -> pd.DataFrame:
    """Return one row per model: source, file, size, licence, what it allows, gate, presence.

    Returns
    -------
    DataFrame
        Index ``model``; columns ``file, source, bytes, encoder_bytes, access, gate, licence,
        allows, here``. ``bytes`` is the size of the file here, else that on the card, else missing;
        ``encoder_bytes`` is what the encoder's part of it needs in 32-bit numbers.
    """
    rows = {}
    for name, model in models.MODELS.items():
        card, path = model.card, find(name)
        size = path.stat().st_size if path else card.file_bytes
        rows[name] = {
            "file": card.file,
            "source": card.source,
            "bytes": size,
            "encoder_bytes": 4 * card.parameters,
            "access": card.access,
            "gate": card.gate,
            "licence": card.licence,
            "allows": card.allows,
            "here": path is not None,
        }
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return frame.astype({"bytes": "Int64"})


def _cache() -> Path:
    return settings.cache_dir() / "weights"


def _records() -> dict:
    path = lock_file()
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"the lock file {path} is not JSON; repair or remove it") from error


def _changed(name: str, path: Path) -> str:
    record = _records()[name]
    return (
        f"{path} is not the file that was recorded for {name} on {record['recorded']} (sha256 "
        f"{record['sha256'][:16]}..., {record['bytes']} bytes). If the source has published a new "
        f"one on purpose, remove {name!r} from {lock_file()}; else remove the file and run: "
        f"tumorbench weights fetch {name}"
    )


def _download(model: FoundationModel, progress: bool) -> Path:
    """Download a checkpoint into the cache and return its path."""
    card, folder = model.card, _cache() / model.key
    if card.repo is None and card.url is None:
        raise WeightsError(_by_hand(model, "the address of its file is not known to this book"))
    get = _from_hub if card.repo else _from_url
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".guard"):
        try:
            path = get(card, folder, progress)
        except Exception as error:
            # Hub, proxy and network fail in many ways; all of them end in the same advice.
            raise WeightsError(_by_hand(model, _why(error, card))) from error
    with open(path, "rb") as stream:
        head = stream.read(512)
    try:
        refuse_other_content(path, head, path.stat().st_size)
    except CheckpointError as error:
        path.unlink()
        raise WeightsError(_by_hand(model, str(error))) from error
    return path


def _from_hub(card: ModelCard, folder: Path, progress: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    (enable_progress_bars if progress else disable_progress_bars)()
    return Path(
        huggingface_hub.hf_hub_download(
            card.repo, card.file, repo_type=card.repo_type, local_dir=folder
        )
    )


def _from_url(card: ModelCard, folder: Path, progress: bool) -> Path:
    """Download over HTTP(S) into ``FILE.part``; a part that is there already is continued."""
    from pooch import HTTPDownloader

    path = folder / PurePosixPath(card.file).name
    part = path.with_name(path.name + ".part")
    with open(part, "ab") as stream:
        options = {}
        if done := stream.tell():
            options["headers"] = {"Range": f"bytes={done}-"}
            options["hooks"] = {"response": _start_over_unless_partial(stream)}
        HTTPDownloader(progressbar=progress, **options)(card.url, stream, None)
    os.replace(part, path)
    return path


def _start_over_unless_partial(stream) -> Callable:
    def check(response, *args, **kwargs):
        # 200: the server sends all of it again. 416: what is here is not a part of its file.
        if response.status_code in (200, 416):
            stream.truncate(0)

    return check


def _why(error: Exception, card: ModelCard) -> str:
    name = type(error).__name__
    if name == "GatedRepoError" or "401" in str(error) or "403" in str(error):
        return "the file is behind a gate: its terms must be accepted with an account"
    if name in ("RepositoryNotFoundError", "RemoteEntryNotFoundError", "EntryNotFoundError"):
        return f"the source has no {card.file!r} (any more), or shows it to members only"
    first = (str(error).strip() or name).splitlines()[0][:160]
    return f"the download failed ({first})"


def _by_hand(model: FoundationModel, reason: str) -> str:
    card = model.card
    gate = f" {card.gate.rstrip('.')}." if card.gate else ""
    return (
        f"no weights for {model.key}: {reason}.{gate} Visit {card.source} ({card.file!r}), then "
        f"run again: tumorbench weights fetch {model.key}. Or save the file by hand into a folder "
        "and name it in TUMORBENCH_WEIGHTS"
    )
