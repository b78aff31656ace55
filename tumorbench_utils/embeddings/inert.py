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
        "numpy.core.multiarray numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.numeric numpy._core.numeric": "_frombuffer",
        "numpy": "ndarray dtype",
        "builtins __builtin__": "slice bytearray",
        "_codecs": "encode",
        "pandas pandas.core.series": "Series",
        "pandas.core.internals.managers": "SingleBlockManager",
        "pandas.core.indexes.base": "_new_Index Index",
        "pandas": "Index StringDtype",
        "pandas.core.arrays.string_": "StringArray StringDtype",
        "pandas.core.arrays.string_arrow pandas.arrays": "ArrowStringArray",
        "pandas.arrays": "StringArray",
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


_MARK = Record("mark")


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


def _is_call(value, name: str, n: int = 0) -> bool:
    """Whether a value is the record of a call to this last name, of `n` arguments or more."""
    called = type(value) is Record and value.args is not None
    return called and value.name.rsplit(".", 1)[1] == name and len(value.args) >= n


def _state(value, name: str, kind: type, length: int = 0):
    """Return the state of the record of a call, after checking its type and least length."""
    right = _is_call(value, name) and type(value.state) is kind and len(value.state) >= length
    need(right, f"{name} was expected, {kind_of(value)} came")
    return value.state


def array(value) -> np.ndarray:
    """Return the array that a record stands for; numbers as bytes say, or Python objects.

    Raises
    ------
    UnsafeFileError
        If it stands for none, or its bytes do not fill its shape.
    """
    if _is_call(value, "_frombuffer", 4):
        raw, dtype, shape, order = value.args
    else:
        _, shape, dtype, order, raw = _state(value, "_reconstruct", tuple, 5)[:5]
    code, sizes = _dtype(dtype), shape if type(shape) is tuple else (-1,)
    # A size of 0 is not taken: it would let any other size pass.
    filled = len(sizes) <= 8 and all(type(n) is int and 0 < n < 2**31 for n in sizes)
    if code == "O":
        filled = filled and type(raw) is list and len(raw) == math.prod(sizes)
    else:
        raw = _bytes(raw)
        filled = filled and len(raw) == math.prod(sizes) * np.dtype(code).itemsize
    need(filled, f"the contents of an array do not fill its shape {str(shape)[:80]}")
    values = np.fromiter(raw, object) if code == "O" else np.frombuffer(raw, code)
    return values.reshape(sizes, order="F" if order is True or order == "F" else "C")


def _dtype(value) -> str:
    """Return the type code of a dtype record, ``"O"`` for objects."""
    code = value.args[0] if _is_call(value, "dtype", 1) else None
    if type(code) is str and code in ("O", "O8"):
        return "O"
    order = _state(value, "dtype", tuple, 2)[1]
    known = type(code) is type(order) is str and code in _NUMBERS and order in ("<", ">", "|", "=")
    need(known, "an array has a type of numbers that feature files do not have")
    return order + code


def _bytes(value) -> bytes:
    """Return the bytes of an array or buffer, which protocol 2 writes as text in Latin-1."""
    for name in ("py_buffer", "bytearray", "encode"):
        if _is_call(value, name, 1):
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
        If it is no Series with text labels.
    """
    manager = _state(value, "Series", dict).get("_mgr")
    axes, blocks = _state(manager, "SingleBlockManager", tuple, 2)[:2]
    single = all(type(part) is list and len(part) == 1 for part in (axes, blocks))
    need(single, "a row of a table has not one axis and one block")
    facts = axes[0].args[1] if _is_call(axes[0], "_new_Index", 2) else None
    need(type(facts) is dict and "data" in facts, "the labels of a row are not an index of names")
    labels, values = _column(facts["data"]), _column(blocks[0])
    named = len(labels) == len(values) and all(type(label) is str for label in labels)
    need(named, "a row of a table has not one label of text for each value")
    return dict(zip(labels, map(_scalar, values), strict=True))


def _column(value) -> list:
    """Return the values of a one-dimensional array, also of one of pandas' kinds of text."""
    if _is_call(value, "__pyx_unpickle_NDArrayBacked"):
        state = _state(value, "__pyx_unpickle_NDArrayBacked", tuple)
        value = next(
            (
                part
                for part in state
                if _is_call(part, "_reconstruct") or _is_call(part, "_frombuffer")
            ),
            None,
        )
    if _is_call(value, "ArrowStringArray"):
        return _arrow_text(_state(value, "ArrowStringArray", dict).get("_pa_array"))
    values = array(value)
    if values.ndim == 2 and values.shape[0] == 1:  # numbers of a row, as a block of a frame
        values = values[0]
    need(values.ndim == 1, "a row of a table is not one-dimensional")
    return values.tolist()


def _arrow_text(value) -> list:
    """Return the texts of an Arrow array, read off its buffers (validity, offsets, characters)."""
    parts = value.args if _is_call(value, "_restore_array") else ()
    facts = parts[0] if len(parts) == 1 and type(parts[0]) is tuple else parts
    sound = len(facts) >= 5 and type(facts[4]) is list and len(facts[4]) == 3
    sound = sound and all(type(n) is int and n >= 0 for n in (facts[1], facts[3]))
    need(sound, "a column of text is not laid out as Arrow lays it out")
    alias, length, _, offset, (valid, ends, characters) = facts[:5]
    wide = _is_call(alias, "type_for_alias") and alias.args == ("large_string",)
    ends = np.frombuffer(_bytes(ends), "<i8" if wide else "<i4")[offset : offset + length + 1]
    characters = b"" if characters is None else _bytes(characters)
    sound = len(ends) == length + 1 and ends[0] >= 0 and ends[-1] <= len(characters)
    need(sound and (np.diff(ends) >= 0).all(), "a column of text is cut off")
    texts = [characters[a:b].decode() for a, b in itertools.pairwise(ends)]
    if valid is None:
        return texts
    bits = np.unpackbits(np.frombuffer(_bytes(valid), np.uint8), bitorder="little")
    there = bits[offset : offset + length]
    need(len(there) == length, "a column of text is cut off")
    return [text if ok else None for text, ok in zip(texts, there, strict=True)]


def _scalar(value):
    if _is_call(value, "scalar", 2):
        code, raw = _dtype(value.args[0]), _bytes(value.args[1])
        fits = code != "O" and len(raw) == np.dtype(code).itemsize
        need(fits, "a number of a row is none")
        return np.frombuffer(raw, code)[0].item()
    return value if type(value) in (str, int, float, bool) else None


def kind_of(value) -> str:
    """Return what a value is, in words; never its contents."""
    return value.name if type(value) is Record else f"a value of type {type(value).__name__}"
