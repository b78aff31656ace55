"""Reading checkpoints that somebody else wrote: tensors only, or a clear refusal.

A released checkpoint is a file from the internet. It may be a web page saved under the name of
the weights, half a download, the weights of another network, or a pickle that runs a program.
Nothing here unpickles freely: zip and legacy torch files go through
``torch.load(weights_only=True)``, safetensors files are told by their content, not their suffix.
torch itself does not compare the checksums of a zip file; that is done here before it reads one.
"""

import _codecs
import fnmatch
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from tumorbench_utils.models.base import CheckpointError, FoundationModel, LoadReport

#: Top-level keys under which training code commonly keeps the weights.
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network")

#: What data-parallel training and ``torch.compile`` put before the names of a network.
WRAPPERS = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")

#: Numbers of numpy beside the tensors are let in: training code keeps losses and epochs so. Only
#: the numeric types are named; an object, a string or a structure is refused still.
_NUMBERS = [
    *((np.float64(0).__reduce__()[0], f"numpy.{c}.multiarray.scalar") for c in ("core", "_core")),
    (np.dtype, "numpy.dtype"),
    *{type(np.dtype(c)) for c in "?bBhHiIlLqQefd"},
    _codecs.encode,
]

_DAMAGED = r"central directory|zip archive|end of file|EOF|Ran out of input|too small|truncated"
_DAMAGED += r"|not fully covered|InvalidHeader|IncompleteMetadata|unexpected pos|out of bounds"


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a tensor name matches one of some shell-style patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def read(path: str | os.PathLike) -> Mapping:
    """Read the contents of a checkpoint file without running anything in it.

    Parameters
    ----------
    path : path-like
        A torch zip file, a legacy torch file or a safetensors file, whatever its suffix.

    Returns
    -------
    mapping
        Names to tensors (on the CPU), possibly nested in the container that was saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file (a folder: IsADirectoryError).
    CheckpointError
        If it is empty, a web page, truncated, damaged, of another format, or a pickle
        that asks for anything but tensors, numbers and plain containers.
    """
    path = Path(path)
    with open(path, "rb") as stream:
        head = stream.read(512)
    if problem := _other_content(head):
        raise CheckpointError(f"{path} {problem}")
    try:
        if head[8:9] == b"{":  # a safetensors file: eight bytes of length, then JSON
            return safetensors.torch.load_file(path)
        zipped = head.startswith(b"PK\x03\x04")
        if zipped and (member := zipfile.ZipFile(path).testzip()):
            raise EOFError(f"the checksum of {member} is wrong")
        # Memory-mapped, a checkpoint is never held twice; only the zip format can be.
        with torch.serialization.safe_globals(_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make the readers fail in any way
        raise CheckpointError(f"{path} {_why_unreadable(error)}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, no dictionary of tensors")
    return content


def _other_content(head: bytes) -> str:
    """Return what is often saved under the name of weights and is none; empty if it may be some."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    # At most one character is cut in two at the end; a binary file loses more, or cannot be shown.
    text = head.decode(encoding, errors="replace").rstrip("\ufffd").strip()
    if not head.strip(b"\0"):
        return "is empty or begins with zeros: a download that broke off; download it again"
    if text.lower().startswith(("<!", "<html", "<?xml", "<head", "<body")):
        return (
            "is a web page, not weights: the download was answered with a login, licence or error "
            "page; open the source in a browser, accept its terms, and download again"
        )
    if text.startswith("version https://git-lfs"):
        return "is a Git LFS pointer, not weights; fetch the file itself (git lfs pull)"
    plain = "\ufffd" not in text and all(c.isprintable() or c.isspace() for c in text)
    # A pickle of the oldest protocol is text too.
    if plain and not re.match(rb"\(?c[\w.]+\r?\n[\w.]+\r?\n|\([ld]p\d+\r?\n", head):
        return f"is a text file, not weights; it begins with {text[:120]!r}"
    return ""


def _why_unreadable(error: Exception) -> str:
    message = str(error).strip() or type(error).__name__
    reason = message.splitlines()[0][:160]
    if isinstance(error, EOFError | zipfile.BadZipFile) or re.search(_DAMAGED, message):
        return f"is truncated or damaged ({reason}); download it again"
    if re.search("Unpickler|GLOBAL|TorchScript", message):
        asked = re.search(r"GLOBAL ([\w.]+)", message)
        what = f"asks to run {asked[1]!r} when it is opened" if asked else "holds no plain tensors"
        return (
            f"{what} and is refused: only tensors and plain containers are read. If you trust its "
            "source, save its weights as safetensors in a separate environment"
        )
    return f"is not a torch or safetensors checkpoint: {reason}"


def flatten(content: Mapping, containers: Iterable[str], seen: tuple = ()) -> dict:
    """Return the tensors of the innermost container that has some, by name.

    Parameters
    ----------
    content : mapping
        What the file held, or a state dict.
    containers : iterable of str
        Keys under which the state dict may lie, the most specific first.
    seen : tuple of int
        Mappings around this one: some hold themselves.
    """
    for inner in map(content.get, containers):
        if isinstance(inner, Mapping) and id(inner) not in seen:
            if tensors := flatten(inner, containers, (*seen, id(content))):
                return tensors
    tensors = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.itemsize <= 8:
            value = torch.tensor(value.astype(value.dtype.newbyteorder("=")))
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            tensors[name] = value
    return tensors


def load(model: FoundationModel, module: torch.nn.Module, source) -> LoadReport:
    """Fill a network from a checkpoint; see :meth:`FoundationModel.load_checkpoint`."""
    where, content = "the state dict", source
    if not isinstance(source, Mapping):
        where, content = os.fspath(source), read(source)
    released = flatten(content, (*model.containers, *CONTAINERS))
    own = module.state_dict()
    names, prefix = _pair(model, own, released)
    needed = [name for name in own if not matches(name, model.optional)]
    missing = [name for name in needed if name not in names]
    if len(missing) == len(needed):
        want = f"names like {prefix + needed[0]!r} are expected" if needed else "it has no weights"
        came = f"{len(released)} tensors came, {list(released or content)[:6]}"
        raise CheckpointError(f"{where} is no checkpoint of {model.key}: {want} and {came}")
    unusable = {n: why for n, r in names.items() if (why := _unusable(own[n], released[r]))}
    problems = [f"missing: {prefix + name}" for name in missing]
    problems += [f"{names[name]}: {unusable[name]}" for name in needed if name in unusable]
    if problems:
        count = f"{len(missing)} of {len(own)} tensors missing, {len(problems)} problems"
        what = f"{where} does not fit this {model.key} encoder ({count})"
        raise CheckpointError(f"{what}: {'; '.join(problems[:20])}")
    # What nobody reads does no harm in any shape, and no good either.
    loaded = {name: r for name, r in names.items() if name not in unusable}
    with torch.no_grad():
        for name, released_name in loaded.items():
            own[name].copy_(released[released_name])
    left = [name for name in released if name not in loaded.values()]
    useless = {names[name] for name in unusable}
    ignored = [name for name in left if name in useless or matches(name, model.unused)]
    return LoadReport(
        matched=list(loaded.values()),
        missing=[name for name in own if name not in loaded],
        unexpected=[name for name in left if name not in ignored],
        ignored=ignored,
    )


def _pair(model: FoundationModel, own: Mapping, released: Mapping) -> tuple[dict[str, str], str]:
    """Return {own name: released name} under the prefix that explains most, and that prefix."""
    prefixes = [outer + p for p in model.prefixes for outer in WRAPPERS]
    # Not "module." alone: what a model keeps under another prefix is another's under this one.
    found = {}
    for prefix in (*prefixes, "", "_orig_mod."):
        pairs = {model.own_name(name, prefix): name for name in reversed(released)}
        found[prefix] = {name: pairs[name] for name in own if name in pairs}
    best = max(found, key=lambda prefix: len(found[prefix]))  # the first of equals
    return found[best], best


def _unusable(want: torch.Tensor, came: torch.Tensor) -> str:
    """Return why a released tensor cannot be copied into the encoder's; empty if it can."""
    if came.layout != torch.strided or came.is_quantized or came.is_nested:
        return "a dense tensor is expected, a sparse, quantized or nested one came"
    if want.shape != came.shape:
        return f"shape {tuple(want.shape)} expected, {tuple(came.shape)} came"
    if want.is_floating_point() != came.is_floating_point() or came.is_complex():
        return f"type {want.dtype} expected, {came.dtype} came"
    if came.is_meta and not want.is_meta:
        return "has a shape and no values (meta device)"
    # Converted first: what is finite in 64 bits need not be in 32.
    if not want.is_meta and not torch.isfinite(came.to(want.dtype)).all():
        return f"holds values that are not finite as {want.dtype}"
    return ""
