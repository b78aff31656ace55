"""A pickle reader that has no way to call anything.

A pickle is a program; the usual reader runs it. This one only follows how the program would
stack up its values: where it would import a name, an allow-list is asked, and where it would call
it, a :class:`Record` notes the name and the arguments. What the records mean (an array, a row of
a table) is worked out afterwards, from bytes and checked shapes. Nothing is allocated because a
file says so: a size that is declared counts only if the bytes for it are there.
"""

import itertools
import math
import pickletools
from typing import Any

import numpy as np

from tumorbench_utils.checks import InputError


class UnsafeFileError(InputError):
    """A file is not, byte for byte or in what it holds, a feature file that can be trusted."""


def need(condition, reason: str) -> None:
    """Raise :class:`UnsafeFileError` with `reason` unless `condition` holds."""
    if not condition:
        raise UnsafeFileError(reason)


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
    reader, name, position = _Reader(), None, 0
    try:
        for opcode, value, at in pickletools.genops(content):
            name, position = opcode.name, at
            if name not in _STEPS:
                raise UnsafeFileError(
                    f"it uses the pickle instruction {name}, which a feature file does not need; "
                    "do not open it with pickle or pandas"
                )
            _STEPS[name](reader, value)
        need(name == "STOP" and len(reader.stack) == 1, "it does not end where it should")
        need(position + 1 == len(content), "other bytes follow its end")
    # A broken stream can break the reader anywhere; none of it is more than a broken file.
    except Exception as error:
        kind = "" if isinstance(error, UnsafeFileError) else "not a whole pickle: "
        where = f"byte {position} of {len(content)}"
        raise UnsafeFileError(f"{kind}{str(error)[:300]} ({where})") from None
    return reader.stack[0]


_MARK = Record("a.mark")


class _Reader:
    """The stack and the memo of a pickle."""

    def __init__(self):
        self.stack: list = []
        self.memo: dict[int, Any] = {}

    def push(self, value) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list:
        """Take values off the stack."""
        items = self.stack[-count:]
        need(len(items) == count and _MARK not in items, "it takes more values than it has put")
        del self.stack[-count:]
        return items

    def pop_to_mark(self) -> list:
        start = next(n for n in reversed(range(len(self.stack))) if self.stack[n] is _MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def extend(self, items: list) -> None:
        need(type(self.stack[-1]) is list, "it appends to something that is no list")
        self.stack[-1].extend(items)

    def update(self, items: list) -> None:
        need(type(self.stack[-1]) is dict, "it sets an item of something that is no dictionary")
        # Whole numbers can be chosen so that all of them collide, and dictionaries then crawl.
        need(all(type(key) is str for key in items[::2]), "a key is not text")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def name(self, module, name) -> None:
        text = f"{module}.{name}" if type(module) is type(name) is str else ""
        if text not in ALLOWED:
            raise UnsafeFileError(
                f"it refers to {text[:200]!r}, which has no place in a feature file and could run "
                "code; do not open it with pickle or pandas"
            )
        self.push(Record(text))

    def call(self, name, args) -> None:
        named = type(name) is Record and name.args is None and type(args) is tuple
        need(named, "it calls something that is not a name")
        self.push(Record(name.name, args))

    def build(self, state) -> None:
        record = self.stack[-1]
        need(type(record) is Record and record.args is not None, "it sets the state of no object")
        record.state = state


_STEPS = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda r, _: None),
    **dict.fromkeys(
        "BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 "
        "SHORT_BINBYTES BINBYTES BINBYTES8".split(),
        _Reader.push,
    ),
    "BYTEARRAY8": lambda r, value: r.push(bytes(value)),
    "NONE": lambda r, _: r.push(None),
    "NEWTRUE": lambda r, _: r.push(True),
    "NEWFALSE": lambda r, _: r.push(False),
    "EMPTY_LIST": lambda r, _: r.push([]),
    "EMPTY_TUPLE": lambda r, _: r.push(()),
    "EMPTY_DICT": lambda r, _: r.push({}),
    "MARK": lambda r, _: r.push(_MARK),
    "TUPLE1": lambda r, _: r.push(tuple(r.pop(1))),
    "TUPLE2": lambda r, _: r.push(tuple(r.pop(2))),
    "TUPLE3": lambda r, _: r.push(tuple(r.pop(3))),
    "TUPLE": lambda r, _: r.push(tuple(r.pop_to_mark())),
    "APPEND": lambda r, _: r.extend(r.pop(1)),
    "APPENDS": lambda r, _: r.extend(r.pop_to_mark()),
    "SETITEM": lambda r, _: r.update(r.pop(2)),
    "SETITEMS": lambda r, _: r.update(r.pop_to_mark()),
    "MEMOIZE": lambda r, _: r.memo.update({len(r.memo): r.stack[-1]}),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda r, n: r.memo.update({n: r.stack[-1]})),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda r, n: r.push(r.memo[n])),
    "GLOBAL": lambda r, text: r.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda r, _: r.name(*r.pop(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda r, _: r.call(*r.pop(2))),
    "BUILD": lambda r, _: r.build(*r.pop(1)),
}


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
