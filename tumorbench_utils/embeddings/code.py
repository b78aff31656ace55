"""The version of the code that decides what an embedding is, the book's and the user's own."""

import dis
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping

import numpy as np

from tumorbench_utils import digests


def made_by(model_class: type) -> dict[str, str]:
    """Return what an entry says about the code that made it: ``class`` and ``code``.

    ``code`` is a digest of the module of the model's class, of what that imports from the package,
    and of ``patches``; a change elsewhere leaves it as it is. Of a class of a user it holds what
    :func:`own_code` finds.
    """
    name = f"{model_class.__module__}.{model_class.__qualname__}"
    return {"class": name, "code": code_version(model_class)}


def code_version(model_class: type) -> str:
    """Return the digest of :func:`made_by`, 16 hexadecimal digits."""
    modules = sorted({cls.__module__ for cls in model_class.__mro__})
    return digests.of(_package_code(*modules), own_code(*model_class.__mro__))[:16]


@functools.lru_cache(maxsize=256)
def _package_code(*modules: str) -> str:
    return digests.of_code("tumorbench_utils.patches", *modules)


def code_is_current(model: str, meta: Mapping) -> bool:
    """Whether the entry of `model` was made by the code of today, as far as can be said.

    True if the entry does not depend on code (imported features), or if `model` is not in the
    registry or is another class there.
    """
    from tumorbench_utils.models import MODELS

    if "code" not in meta or model not in MODELS:
        return True
    now = made_by(type(MODELS[model]))
    return now["class"] != meta["class"] or now["code"] == meta["code"]


def is_own(thing) -> bool:
    """Whether a class, a function or a module is a user's: of no library and not of the book."""
    top = (getattr(thing, "__module__", None) or thing.__name__).split(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    library = top in (*digests.PACKAGES, *sys.stdlib_module_names) or "-packages" in file
    return top == "__main__" or not library


def own_code(*things) -> list[str]:
    """Return the source of a user's classes and functions, and of what of theirs these name.

    Followed are functions, classes and modules; constants count by their value if they are
    numbers, texts, tuples or arrays that no function assigns to. Lists and dictionaries do not
    count, for they may be changed while a run goes on.
    """
    todo, found = list(things), {}
    while todo:
        thing = todo.pop()
        if not isinstance(thing, type | type(is_own) | type(dis)) or id(thing) in found:
            continue
        if not is_own(thing):
            continue
        try:
            found[id(thing)] = inspect.getsource(thing)
        except (OSError, TypeError):  # typed at a prompt: no file, but its functions may have one
            found[id(thing)] = thing.__name__
        parts = [thing] if inspect.isfunction(thing) else vars(thing).values()
        todo += [part for part in parts if part is not thing]
        for part in parts:
            function = getattr(part, "__func__", part)
            for name in _loaded(getattr(function, "__code__", None)):
                value = function.__globals__.get(name)
                if isinstance(value, int | float | str | bytes | tuple | np.ndarray):
                    found[name] = f"{name} = {digests.of(value)}"
                todo.append(value)
            cells = inspect.getclosurevars(function).nonlocals if inspect.isfunction(part) else {}
            todo += cells.values()
    return sorted(found.values())


def _loaded(code) -> Iterator[str]:
    """Give the global names that a code object reads and does not assign."""
    steps = list(dis.get_instructions(code)) if code else []
    stored = {step.argval for step in steps if step.opname == "STORE_GLOBAL"}
    for step in steps:
        if step.opname == "LOAD_GLOBAL" and step.argval not in stored:
            yield step.argval
        elif inspect.iscode(step.argval):
            yield from _loaded(step.argval)
