"""A pickle reader that has no way to call anything.

A pickle is a program; the usual reader runs it. This one only follows how the program would
stack up its values: where it would import a name, an allow-list is asked, and where it would call
it, a :class:`Record` notes the name and the arguments. What the records mean (an array, a row of
a table) is worked out afterwards, from bytes and checked shapes. Nothing is allocated because a
file says so: a size that is declared counts only if the bytes for it are there.
"""

import functools
import io
import itertools
import math
import pickle
import pickletools
import struct
from typing import Any

import numpy as np

from tumorbench_utils.checks import InputError, require


class UnsafeFileError(InputError):
    """A file is not, byte for byte or in what it holds, a feature file that can be trusted."""


need = functools.partial(require, error=UnsafeFileError)


#: Names that arrays and rows of a table need, as pandas 1.5 to 3 and numpy 1.26 to 2 write them.
ALLOWED = frozenset(
    f"{module}.{name}"
    for modules, names in {
        "numpy": "ndarray dtype",
        "numpy.core.multiarray numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.numeric numpy._core.numeric": "_frombuffer",
        "builtins __builtin__": "slice bytearray",
        "_codecs": "encode",
        "pandas pandas.core.series": "Series",
        "pandas.core.internals.managers": "SingleBlockManager",
        "pandas pandas.core.indexes.base": "_new_Index Index",
        "pandas pandas.arrays pandas.core.arrays.string_": "StringArray StringDtype",
        "pandas.arrays pandas.core.arrays.string_arrow": "ArrowStringArray",
        "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
        "pandas._libs.missing": "NA",
        "pandas._libs.tslibs.nattype": "_nat_unpickle",
        "pandas._libs.tslibs.timestamps": "_unpickle_timestamp",
        "pyarrow.lib": "_restore_array type_for_alias py_buffer",
    }.items()
    for module in modules.split()
    for name in names.split()
)


class Record:
    """A name that a pickle refers to or, with arguments and state, a call that is not made."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple | None = None):
        self.name, self.args, self.state = name, args, None


def read_inert(content: bytes) -> Any:
    """Return what a pickle holds, with a :class:`Record` for everything that it would call.

    Parameters
    ----------
    content : bytes
        One whole pickle, protocol 2 to 5.

    Returns
    -------
    object
        Made of None, bool, int, float, str, bytes, list, tuple, dict (its keys are text) and
        Record.

    Raises
    ------
    UnsafeFileError
        If it refers to a name that is not in :data:`ALLOWED`, uses an instruction that feature
        files do not need, is cut off, or is no pickle.

    References
    ----------
    .. [1] Python documentation, ``pickle``: "It is possible to construct malicious pickle data
       which will execute arbitrary code during unpickling."
    """
    stream = io.BytesIO(content)
    reader = _Reader(stream)
    try:
        value = reader.load()
        need(not reader.stack and not reader.metastack, "it does not end where it should")
        need(not stream.read(1), "other bytes follow its end")
    # A broken stream can break the reader anywhere; none of it is more than a broken file.
    except Exception as error:
        kind = "" if isinstance(error, UnsafeFileError) else "not a whole pickle: "
        raise UnsafeFileError(f"{kind}{str(error)[:300]}") from None
    return value


class _Steps(dict):
    """What each instruction does; all others are refused."""

    def __missing__(self, code: int):
        known = pickletools.code2op.get(chr(code))
        name = known.name if known else code
        raise UnsafeFileError(f"it uses the instruction {name}, which a feature file does not need")


class _Reader(pickle._Unpickler):
    """Python's own reader of pickles with the harmless instructions only.

    Those that import, call or assign, and those that allocate what is declared before it is read,
    are other ones.
    """

    dispatch = _Steps(
        (getattr(pickle, name)[0], pickle._Unpickler.dispatch[getattr(pickle, name)[0]])
        for name in (
            "PROTO FRAME STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
            "SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 EMPTY_LIST "
            "EMPTY_TUPLE EMPTY_DICT MARK TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS MEMOIZE BINPUT "
            "LONG_BINPUT BINGET LONG_BINGET GLOBAL STACK_GLOBAL"
        ).split()
    )

    def find_class(self, module: str, name: str) -> Record:
        """Return a record of a name in place of what it names."""
        text = f"{module}.{name}"
        what = (
            f"it refers to {text[:200]!r}, which has no place in a feature file and could run code"
        )
        need(text in ALLOWED, f"{what}; do not open it with pickle or pandas")
        return Record(text)

    def _call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        named = type(name) is Record and name.args is None and type(args) is tuple
        need(named, "it calls something that is not a name")
        self.stack.append(Record(name.name, args))

    def _build(self) -> None:
        state = self.stack.pop()
        need(type(self.stack[-1]) is Record, "it sets the state of no object")
        self.stack[-1].state = state

    def _set(self, items: list) -> None:
        # Whole numbers can be chosen so that all of them collide, and dictionaries then crawl.
        need(all(type(key) is str for key in items[::2]), "a key is not text")
        need(type(self.stack[-1]) is dict, "it sets an item of something that is no dictionary")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _bytearray(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.stack.append(self.read(length))

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _call
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = lambda self: self._set([self.stack.pop(), self.stack.pop()][::-1])
    dispatch[pickle.SETITEMS[0]] = lambda self: self._set(self.pop_mark())
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray


# -- what records mean -------------------------------------------------------------------------

_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}


def _is(value, *names: str) -> bool:
    """Whether a value is a record whose last name is one of these."""
    return type(value) is Record and value.name.rsplit(".", 1)[1] in names


def array(value) -> np.ndarray:
    """Return the array that a record stands for; numbers as bytes say, or Python objects.

    Raises
    ------
    UnsafeFileError
        If it stands for none, or its bytes do not fill its shape. Records that are laid out in
        another way can raise anything.
    """
    if _is(value, "_frombuffer"):
        raw, dtype, shape, order = value.args
    else:
        need(_is(value, "_reconstruct"), f"an array was expected, {kind_of(value)} came")
        _, shape, dtype, order, raw = value.state
    code = _dtype(dtype)
    if code != "O":
        raw = np.frombuffer(_bytes(raw), code)
    # What is declared must be there. A size of 0 is not taken: it would let any other size pass.
    sound = len(shape) <= 8 and all(type(n) is int and 0 < n < 2**31 for n in shape)
    filled = sound and type(raw) in (list, np.ndarray) and len(raw) == math.prod(shape)
    need(filled, f"the contents of an array do not fill its shape {str(shape)[:80]}")
    values = np.fromiter(raw, object) if code == "O" else raw
    return values.reshape(shape, order="F" if order is True or order == "F" else "C")


def _dtype(value) -> str:
    """Return the type code of a dtype record, ``"O"`` for objects."""
    need(_is(value, "dtype"), f"a type of numbers was expected, {kind_of(value)} came")
    code = value.args[0]
    if code in ("O", "O8"):
        return "O"
    known = code in _NUMBERS and value.state[1] in ("<", ">", "|", "=")
    need(known, "an array has a type of numbers that feature files do not have")
    return value.state[1] + code


def _bytes(value) -> bytes:
    """Return the bytes of an array or buffer, which protocol 2 writes as text in Latin-1."""
    for name in ("py_buffer", "bytearray", "encode"):
        if _is(value, name):
            value = value.args[0]
    value = value.encode("latin-1") if type(value) is str else value
    need(type(value) is bytes, f"bytes of an array were expected, {kind_of(value)} came")
    return value


def series(value) -> dict[str, Any]:
    """Return the labels and values of a pandas Series record.

    Numbers become int or float, text stays text, anything else becomes None.

    Raises
    ------
    UnsafeFileError
        If it is no Series with text labels. Records that are laid out in another way can raise
        anything.
    """
    need(_is(value, "Series"), f"a row of a table was expected, {kind_of(value)} came")
    (axis,), (block,) = value.state["_mgr"].state[:2]
    labels, values = _column(axis.args[1]["data"]), _column(block)
    need(all(type(label) is str for label in labels), "the labels of a row are not text")
    return dict(zip(labels, map(_scalar, values), strict=True))


def _column(value) -> list:
    """Return the values of a one-dimensional array, also of one of pandas' kinds of text."""
    if _is(value, "__pyx_unpickle_NDArrayBacked"):
        value = next(part for part in value.state if _is(part, "_reconstruct", "_frombuffer"))
    if _is(value, "ArrowStringArray"):
        return _arrow_text(value.state["_pa_array"].args)
    values = array(value)
    if values.ndim == 2 and values.shape[0] == 1:  # numbers of a row, as a block of a frame
        values = values[0]
    need(values.ndim == 1, "a row of a table is not one-dimensional")
    return values.tolist()


def _arrow_text(facts: tuple) -> list:
    """Return the texts of an Arrow array, read off its buffers (validity, offsets, characters)."""
    facts = facts[0] if len(facts) == 1 else facts
    alias, length, _, offset, (valid, ends, characters) = facts[:5]
    kind = np.dtype("<i8" if alias.args == ("large_string",) else "<i4")
    ends = np.frombuffer(_bytes(ends), kind, length + 1, offset * kind.itemsize)
    characters = b"" if characters is None else _bytes(characters)
    inside = (ends >= 0) & (ends <= len(characters))
    need(inside.all() and (np.diff(ends) >= 0).all(), "a column of text is cut off")
    texts = [characters[a:b].decode() for a, b in itertools.pairwise(ends)]
    if valid is not None:
        bits = np.unpackbits(np.frombuffer(_bytes(valid), np.uint8), bitorder="little")
        there = bits[offset : offset + length]
        texts = [text if ok else None for text, ok in zip(texts, there, strict=True)]
    return texts


def _scalar(value):
    if _is(value, "scalar"):
        dtype, raw = value.args
        (number,) = np.frombuffer(_bytes(raw), _dtype(dtype))
        return number.item()
    return value if type(value) in (str, int, float, bool) else None


def kind_of(value) -> str:
    """Return what a value is, in words; never its contents."""
    return value.name if type(value) is Record else f"a value of type {type(value).__name__}"
