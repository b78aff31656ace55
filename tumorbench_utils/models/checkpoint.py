"""Reading checkpoints that somebody else wrote: tensors only, or a clear refusal.

A released checkpoint is a file from the internet. It may be a web page saved under the name of
the weights, half a download, the weights of another network, or a pickle that runs a program.
Nothing here unpickles freely: zip and legacy torch files go through
``torch.load(weights_only=True)``, safetensors files are told by their content, not their suffix.
"""

import _codecs
import fnmatch
import os
import re
import struct
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

#: Top-level keys under which training code commonly keeps the weights.
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network")

#: What data-parallel training and ``torch.compile`` put before the names of a network.
WRAPPERS = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")

#: First bytes of files that are taken for weights, and what they are.
_OTHER_FORMATS = (
    (b"\x1f\x8b", "a gzip archive (unpack it and name the checkpoint in it)"),
    (b"BZh", "a bzip2 archive (unpack it and name the checkpoint in it)"),
    (b"\xfd7zXZ\x00", "an xz archive (unpack it and name the checkpoint in it)"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive (unpack it and name the checkpoint in it)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it and name the checkpoint in it)"),
    (b"Rar!", "a RAR archive (unpack it and name the checkpoint in it)"),
    (b"\x89HDF", "an HDF5 file (Keras keeps weights so; these encoders are torch)"),
    (b"\x93NUMPY", "a numpy array"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)

#: How a pickle of the oldest protocol begins, which is text.
_PICKLE = re.compile(rb"\(?c[\w.]+\r?\n[\w.]+\r?\n|\([ld]p\d+\r?\n")

_SHOWN = 6

_REFUSED = (
    "and is refused: only tensors and plain containers are read. If you trust its source, save its "
    "weights as safetensors in a separate environment"
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not hold the weights of the encoder."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a checkpoint.

    Attributes
    ----------
    matched : list of str
        Tensors that were loaded, by their names in the checkpoint.
    missing : list of str
        Tensors of the encoder that the checkpoint does not have, or not usably, and that no
        forward pass reads (counters and unused running statistics), by their names in the encoder.
        A tensor that is read and missing is an error.
    unexpected : list of str
        Tensors of the checkpoint that nobody knows.
    ignored : list of str
        Tensors of the checkpoint that belong to parts the encoder does not have (decoders, heads,
        text towers) or that the encoder computes itself.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    ignored: list[str]

    def __str__(self) -> str:
        counts = ", ".join(f"{len(names)} {field}" for field, names in vars(self).items())
        return f"LoadReport({counts})"


def some(names: Iterable[str]) -> str:
    """Return the first few of many names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a tensor name matches one of some shell-style patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def unusable(want: torch.Tensor, came: torch.Tensor) -> str:
    """Return why a released tensor cannot be copied into the encoder's; empty if it can."""
    if came.is_nested or came.is_quantized or came.layout != torch.strided:
        kind = "nested" if came.is_nested else "quantized" if came.is_quantized else "sparse"
        return f"a dense tensor expected, a {kind} one came"
    if want.shape != came.shape:
        return f"shape {tuple(want.shape)} expected, {tuple(came.shape)} came"
    if want.is_floating_point() != came.is_floating_point() or came.is_complex():
        return f"type {want.dtype} expected, {came.dtype} came"
    if want.is_meta:
        return ""
    if came.is_meta:
        return "has a shape and no values (meta device)"
    if not torch.isfinite(came.to(want.dtype)).all():  # in 64 bits it may have been
        return f"holds values that are not finite as {want.dtype}"
    return ""


def refuse_other_content(path: Path, head: bytes, size: int) -> None:
    """Raise a CheckpointError for what is often saved under the name of weights and is none.

    Parameters
    ----------
    path : Path
        For the message.
    head : bytes
        The first bytes of the file.
    size : int
        Bytes of the whole file.
    """
    text = _text(head)
    start = text.lstrip().lower()
    if size == 0:
        problem = "is empty; download it again"
    elif not head.strip(b"\0"):
        problem = "begins with zeros: a download that broke off; download it again"
    elif start.startswith(("<!doctype", "<html", "<?xml", "<head", "<body", "<!--")):
        problem = (
            "is a web page, not weights: the download was answered with a login, licence or error "
            "page; open the source in a browser, accept its terms, and download again"
        )
    elif start.startswith("version https://git-lfs"):
        problem = "is a Git LFS pointer, not weights; fetch the file itself (git lfs pull)"
    elif start.startswith(('{"error', '{"message', '{"status', '{"detail')):
        problem = f"is an error message of a server, not weights: {text.strip()[:120]}"
    elif start.startswith(("{", "[")):
        problem = f"is a JSON or text file, not weights; it begins with {text.strip()[:60]!r}"
    elif start and not _PICKLE.match(head):
        problem = f"is a text file, not weights; it begins with {text.strip()[:60]!r}"
    elif kind := next((what for magic, what in _OTHER_FORMATS if head.startswith(magic)), None):
        problem = f"is {kind}, not weights"
    else:
        return
    raise CheckpointError(f"{path} {problem}")


def _text(head: bytes) -> str:
    """Return the beginning of a text file, or nothing if it is not one."""
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig")):
        if head.startswith(mark):
            # The last character may be cut in two.
            text = head.decode(encoding, errors="ignore")
            break
    lost = len(head) - len(text.encode(encoding)) if encoding == "utf-8-sig" else 0
    plain = all(c.isprintable() or c.isspace() for c in text)
    return text if plain and lost <= 3 else ""


def _is_safetensors(head: bytes, size: int) -> bool:
    """Tell a safetensors file by its header: length, then a JSON object."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    # A truncated file still starts like this, so the length is not held against the size here.
    return length < 100_000_000


def read_checkpoint(path: str | os.PathLike) -> Mapping:
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
        If there is no such file.
    CheckpointError
        If it is a folder, empty, a web page, truncated, of another format, or a pickle that asks
        for anything but tensors, numbers and plain containers.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "is not a file"
        raise CheckpointError(f"{path} {kind}; name the checkpoint file itself")
    size = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(512)
    refuse_other_content(path, head, size)
    try:
        if _is_safetensors(head, size):
            return safetensors.torch.load_file(path, device="cpu")
        zipped = head.startswith(b"PK\x03\x04")
        # Memory-mapped, a checkpoint is never held twice; only the zip format can be.
        with _numpy_scalars():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError:
        raise
    except Exception as error:
        # A damaged file can make the readers fail in any way; none of them is the user's fault.
        raise CheckpointError(_why_unreadable(path, size, str(error))) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a dictionary of tensors"
        )
    return content


def _numpy_scalars():
    """Allow numbers of numpy beside the tensors: training code keeps losses and epochs so.

    Only the numeric types are named; an object, a string or a structure is refused still.
    """
    if torch.__version__ < "2.6":  # takes no names of older numpy versions
        return nullcontext()
    scalar = np.float64(0).__reduce__()[0]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    allowed = [*((scalar, f"{module}.scalar") for module in modules), (np.dtype, "numpy.dtype")]
    return torch.serialization.safe_globals(
        [*allowed, _codecs.encode, *{type(np.dtype(c)) for c in "?bBhHiIlLqQefd"}]
    )


def _why_unreadable(path: Path, size: int, message: str) -> str:
    if named := re.search(r"GLOBAL ([\w.]+)", message):
        return f"{path} asks to run {named[1]!r} when it is opened {_REFUSED}"
    if "Unpickler" in message:
        return f"{path} is a pickle of other things than tensors {_REFUSED}"
    if "TorchScript" in message:
        return f"{path} is a TorchScript program {_REFUSED}"
    if "legacy .tar" in message:
        return f"{path} is a tar archive, not weights"
    if "in archive is not in a subdirectory" in message:
        return f"{path} is a zip archive of other things than tensors"
    if re.search(
        r"central directory|zip archive|end of file|EOF|Ran out of input|too small|truncated"
        r"|not fully covered|InvalidHeader|IncompleteMetadata|unexpected pos|out of bounds",
        message,
    ):
        return f"{path} is truncated or damaged ({size} bytes); download it again"
    reason = message.strip().splitlines()[0][:160] if message.strip() else "unknown format"
    return f"{path} is not a torch or safetensors checkpoint: {reason}"


def flatten(content: Mapping, containers: Iterable[str]) -> dict[str, torch.Tensor]:
    """Find the state dict in what was saved and drop everything that is not a tensor.

    Parameters
    ----------
    content : mapping
        What the file held, or a state dict.
    containers : iterable of str
        Keys under which the state dict may lie, the most specific first.

    Raises
    ------
    CheckpointError
        If there is no tensor in it.
    """
    containers = (*containers, *CONTAINERS)
    tensors = _inside(content, containers, set())
    if not tensors:
        raise CheckpointError(
            f"no tensors found; top-level entries are {some(map(repr, content)) or 'none'}, "
            f"and weights were looked for under {some(map(repr, containers))}"
        )
    return tensors


def _inside(content: Mapping, containers: tuple[str, ...], seen: set[int]) -> dict:
    """Return the tensors of the innermost container that has some."""
    seen.add(id(content))
    for key in containers:
        inner = content.get(key)
        if isinstance(inner, Mapping) and id(inner) not in seen:
            if tensors := _inside(inner, containers, seen):
                return tensors
    tensors = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            native = value.astype(value.dtype.newbyteorder("="), copy=False)
            if native.dtype.itemsize <= 8:  # torch has no longer numbers
                value = torch.from_numpy(np.require(native, requirements=["C", "W"]))
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            tensors[name] = value
    return tensors
