"""A pickle reader that has no way to call anything.

A pickle is a program; the usual reader runs it. This one only follows how the program would
stack up its values: where it would import a name, an allow-list is asked, and where it would call
it, a :class:`Record` notes the name and the arguments. What the records mean (an array, a row of
a table) is worked out afterwards, from bytes and checked shapes.
"""

import itertools
import math
import pickletools
from typing import Any

import numpy as np


class UnsafeFileError(ValueError):
    """A file is not, byte for byte or in what it holds, a feature file that can be trusted."""


def _names(modules: tuple[str, ...], *names: str) -> set[str]:
    return {f"{module}.{name}" for module in modules for name in names}


_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = ("builtins", "__builtin__")
_MISSING_AND_TIMES = {
    "pandas._libs.tslibs.timestamps._unpickle_timestamp",
    "pandas._libs.tslibs.nattype._nat_unpickle",
    "pandas._libs.missing.NA",
}

#: Names that arrays and rows of a table need, as pandas 1.5 to 3 and numpy 1.26 to 2 write them.
ALLOWED = frozenset(
    _names(_CORE, "_reconstruct", "scalar")
    | _names(_NUMERIC, "_frombuffer")
    | _names(("numpy",), "ndarray", "dtype")
    | _names(_BUILTINS, "slice", "bytearray")
    | _names(("pandas", "pandas.core.series"), "Series")
    | _names(("pandas.core.internals.managers",), "SingleBlockManager")
    | _names(("pandas.core.indexes.base",), "_new_Index", "Index")
    | _names(("pandas",), "Index", "StringDtype")
    | _names(("pandas.core.arrays.string_",), "StringArray", "StringDtype")
    | _names(("pandas.core.arrays.string_arrow", "pandas.arrays"), "ArrowStringArray")
    | _names(("pandas.arrays",), "StringArray")
    | _names(("pandas._libs.arrays",), "__pyx_unpickle_NDArrayBacked")
    | _names(("pyarrow.lib",), "_restore_array", "type_for_alias", "py_buffer")
    | {"_codecs.encode"}
    | _MISSING_AND_TIMES
)


class Name:
    """A name that a pickle refers to; never looked up."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text


class Record:
    """A call that a pickle asks for and that is not made: its name, arguments and state."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple):
        self.name, self.args, self.state = name, args, None


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 "
    "SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8".split()
)


def read_inert(content: bytes) -> Any:
    """Return what a pickle holds, with a :class:`Record` for everything that it would call.

    Parameters
    ----------
    content : bytes
        One whole pickle, protocol 2 to 5.

    Returns
    -------
    object
        Made of None, bool, int, float, str, bytes, list, tuple, dict, Name and Record.

    Raises
    ------
    UnsafeFileError
        If it refers to a name that is not in :data:`ALLOWED`, uses an instruction that feature
        files do not need, is cut off, or is no pickle.
    """
    reader, last, position = _Reader(), None, -1
    try:
        for opcode, value, position in pickletools.genops(content):
            reader.step(opcode.name, value, position)
            last = opcode.name
        if last != "STOP" or len(reader.stack) != 1:
            raise ValueError("it does not end where it should")
        if position + 1 != len(content):
            raise ValueError(f"{len(content) - position - 1} bytes follow its end")
    except UnsafeFileError:
        raise
    # A broken stream can break the reader anywhere; none of it is more than a broken file.
    except Exception as error:
        raise UnsafeFileError(
            f"not a whole pickle (byte {max(position, 0)} of {len(content)}): {error}"
        ) from None
    return reader.stack[0]


class _Reader:
    """The stack and the memo of a pickle; :meth:`step` follows one instruction."""

    def __init__(self):
        self.stack: list = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, value, position: int) -> None:
        stack = self.stack
        if name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[value])
        elif name in _VALUES:
            stack.append(bytes(value) if isinstance(value, bytearray) else value)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[value] = stack[-1]
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self._wrap(self._pop(_TUPLES[name]))
        elif name == "TUPLE":
            self._wrap(self._pop_to_mark())
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._pop_to_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            self._set(self._pop(2) if name == "SETITEM" else self._pop_to_mark())
        elif name in ("REDUCE", "NEWOBJ"):
            self._call(*self._pop(2))
        elif name == "BUILD":
            (state,) = self._pop(1)
            self._top(Record).state = state
        elif name == "STACK_GLOBAL":
            self._name(*self._pop(2), position)
        elif name == "GLOBAL":
            self._name(*value.split(" ", 1), position)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise UnsafeFileError(
                f"it uses the pickle instruction {name} at byte {position}, which a feature file "
                "does not need; do not open it with pickle or pandas"
            )

    def _pop(self, count: int) -> list:
        if len(self.stack) < count or any(item is _MARK for item in self.stack[-count:]):
            raise ValueError("it takes more values than it has put")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _pop_to_mark(self) -> list:
        stack = self.stack
        start = len(stack) - 1
        while stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise ValueError("it takes more values than it has put")
        items = stack[start + 1 :]
        del stack[start:]
        return items

    def _top(self, kind: type):
        if not self.stack or type(self.stack[-1]) is not kind:
            raise ValueError(f"it changes something that is no {kind.__name__}")
        return self.stack[-1]

    def _wrap(self, items: list) -> None:
        self.stack.append(tuple(items))

    def _set(self, items: list) -> None:
        target = self._top(dict)
        if len(items) % 2 or not all(type(key) in (str, int) for key in items[::2]):
            raise ValueError("a key is neither text nor a whole number")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _name(self, module, name, position: int) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name is not text")
        text = f"{module}.{name}"
        if text not in ALLOWED:
            raise UnsafeFileError(
                f"it refers to {text[:200]!r} at byte {position}, which has no place in a feature "
                "file and could run code; do not open it with pickle or pandas"
            )
        self.stack.append(Name(text))

    def _call(self, name, args) -> None:
        if type(name) is not Name or type(args) is not tuple:
            raise UnsafeFileError("it calls something that is not a name")
        self.stack.append(Record(name.text, args))


# -- what records mean -------------------------------------------------------------------------

_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}


def is_record(value, *names: str) -> bool:
    """Whether a value is the record of a call to something with one of these last names."""
    return type(value) is Record and value.name.rsplit(".", 1)[1] in names


def array(value) -> np.ndarray:
    """Return the array that a record stands for; numbers as bytes say, or Python objects.

    Raises
    ------
    UnsafeFileError
        If it stands for none, or its bytes do not fill its shape.
    """
    if is_record(value, "_reconstruct") and type(value.state) is tuple and len(value.state) == 5:
        _, shape, dtype, fortran, raw = value.state
    elif is_record(value, "_frombuffer") and len(value.args) == 4:
        raw, dtype, shape, order = value.args
        fortran = order == "F" if type(order) is str else False
    else:
        raise UnsafeFileError(f"an array was expected, {kind_of(value)} came")
    sizes = shape if type(shape) is tuple else ()
    if len(sizes) > 8 or not all(type(n) is int and 0 <= n < 2**31 for n in sizes):
        raise UnsafeFileError("the shape of an array is not one")
    code, order = _dtype(dtype), "F" if fortran is True else "C"
    if code == "O":
        if type(raw) is not list or len(raw) != math.prod(sizes):
            raise UnsafeFileError(f"the contents of an array do not fill its shape {sizes}")
        values = np.empty(len(raw), dtype=object)
        values[:] = raw
    else:
        raw, numbers = _raw(raw), np.dtype(code)
        if len(raw) != math.prod(sizes) * numbers.itemsize:
            raise UnsafeFileError(f"the contents of an array do not fill its shape {sizes}")
        values = np.frombuffer(raw, numbers)
    return values.reshape(sizes, order=order)


def _dtype(value) -> str:
    """Return the type code of a dtype record, ``"O"`` for objects."""
    code = value.args[0] if is_record(value, "dtype") and value.args else None
    if type(code) is str and code in ("O", "O8"):
        return "O"
    state = value.state if is_record(value, "dtype") else None
    order = state[1] if type(state) is tuple and len(state) > 1 else "|"
    if type(code) is not str or code not in _NUMBERS or order not in ("<", ">", "|", "="):
        raise UnsafeFileError("an array has a type of numbers that feature files do not have")
    return f"{order}{code}"


def _raw(value) -> bytes:
    """Return the bytes of an array or buffer, which protocol 2 writes as text in Latin-1."""
    if is_record(value, "encode", "bytearray", "py_buffer") and value.args:
        inner = value.args[0]
        try:
            return inner.encode("latin-1") if type(inner) is str else _raw(inner)
        except UnicodeEncodeError:
            raise UnsafeFileError("an array holds text where bytes belong") from None
    if type(value) is not bytes:
        raise UnsafeFileError(f"bytes of an array were expected, {kind_of(value)} came")
    return value


def series(value) -> dict[str, Any]:
    """Return the labels and values of a pandas Series record.

    Numbers become int or float, text stays text, anything else becomes None.

    Raises
    ------
    UnsafeFileError
        If it is no Series with text labels.
    """
    manager = value.state.get("_mgr") if _is_state(value, "Series", dict) else None
    if not _is_state(manager, "SingleBlockManager", tuple) or len(manager.state) < 2:
        raise UnsafeFileError(f"a row of a table was expected, {kind_of(value)} came")
    axes, blocks = manager.state[:2]
    if not all(type(part) is list and len(part) == 1 for part in (axes, blocks)):
        raise UnsafeFileError("a row of a table has not one axis and one block")
    labels, values = _labels(axes[0]), _column(blocks[0])
    if len(labels) != len(values) or not all(type(label) is str for label in labels):
        raise UnsafeFileError("a row of a table has not one label of text for each value")
    return dict(zip(labels, map(_scalar, values), strict=True))


def _is_state(value, name: str, kind: type) -> bool:
    return is_record(value, name) and type(value.state) is kind


def _labels(value) -> list:
    facts = value.args[1] if is_record(value, "_new_Index") and len(value.args) == 2 else None
    if type(facts) is not dict or "data" not in facts:
        raise UnsafeFileError("the labels of a row are not an index of names")
    return _column(facts["data"])


def _column(value) -> list:
    """Return the values of a one-dimensional array, also of one of pandas' kinds of text."""
    if is_record(value, "__pyx_unpickle_NDArrayBacked") and type(value.state) is tuple:
        inner = [part for part in value.state if is_record(part, "_reconstruct", "_frombuffer")]
        value = inner[0] if inner else None
    if _is_state(value, "ArrowStringArray", dict):
        return _arrow_text(value.state.get("_pa_array"))
    values = array(value)
    if values.ndim == 2 and values.shape[0] == 1:  # numbers of a row, as a block of a frame
        values = values[0]
    if values.ndim != 1:
        raise UnsafeFileError("a row of a table is not one-dimensional")
    return values.tolist()


def _arrow_text(value) -> list:
    """Return the texts of an Arrow array, read off its buffers (validity, offsets, characters)."""
    parts = value.args if is_record(value, "_restore_array") else ()
    facts = parts[0] if len(parts) == 1 and type(parts[0]) is tuple else parts
    if len(facts) < 5 or type(facts[4]) is not list or len(facts[4]) != 3:
        raise UnsafeFileError("a column of text is not laid out as Arrow lays it out")
    alias, length, _, offset, buffers = facts[:5]
    wide = is_record(alias, "type_for_alias") and alias.args == ("large_string",)
    if type(length) is not int or type(offset) is not int or length < 0 or offset < 0:
        raise UnsafeFileError("a column of text has no length")
    ends = np.frombuffer(_raw(buffers[1]), "<i8" if wide else "<i4")[offset : offset + length + 1]
    characters = b"" if buffers[2] is None else _raw(buffers[2])
    if len(ends) != length + 1 or (np.diff(ends) < 0).any():
        raise UnsafeFileError("a column of text is cut off")
    if ends[0] < 0 or ends[-1] > len(characters):
        raise UnsafeFileError("a column of text is cut off")
    texts = [characters[a:b].decode() for a, b in itertools.pairwise(ends)]
    if buffers[0] is not None:
        bits = np.unpackbits(np.frombuffer(_raw(buffers[0]), np.uint8), bitorder="little")
        there = bits[offset : offset + length]
        if len(there) != length:
            raise UnsafeFileError("a column of text is cut off")
        texts = [text if ok else None for text, ok in zip(texts, there, strict=True)]
    return texts


def _scalar(value):
    if is_record(value, "scalar") and len(value.args) == 2:
        code, raw = _dtype(value.args[0]), _raw(value.args[1])
        if code == "O" or len(raw) != np.dtype(code).itemsize:
            raise UnsafeFileError("a number of a row is none")
        return np.frombuffer(raw, code)[0].item()
    return value if type(value) in (str, int, float, bool) else None


def kind_of(value) -> str:
    """Return what a value is, in words; never its contents."""
    if type(value) in (Record, Name):
        return f"something of {value.name if type(value) is Record else value.text}"
    return f"a value of type {type(value).__name__}"
