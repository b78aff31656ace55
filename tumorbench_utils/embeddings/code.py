"""The version of the code that decides what an embedding is: a digest of its source files."""

import ast
import functools
import hashlib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path

_PACKAGE = "tumorbench_utils"


@functools.lru_cache(maxsize=256)
def code_version(model_class: type) -> str:
    """Return a digest of the source that turns a scan into an embedding.

    It covers the module of the model's class, what that imports from the package, and ``patches``;
    a change elsewhere leaves it as it is.

    Parameters
    ----------
    model_class : type
        Class of a ``FoundationModel``.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    todo = {cls.__module__ for cls in model_class.__mro__}
    todo = {m for m in todo if m.split(".")[0] == _PACKAGE} | {f"{_PACKAGE}.patches.extract"}
    sources = [class_source(cls) for cls in model_class.__mro__ if _is_own(cls)]
    seen = set()
    while todo:
        module = todo.pop()
        seen.add(module)
        text = _module_source(module)
        sources.append(f"{module}\n{text}")
        todo |= _imports(text) - seen
    return hashlib.sha256("\n".join(sorted(sources)).encode()).hexdigest()[:16]


def made_by(model_class: type) -> dict[str, str]:
    """Return what an entry says about the code that made it: ``class`` and ``code``."""
    name = f"{model_class.__module__}.{model_class.__qualname__}"
    return {"class": name, "code": code_version(model_class)}


def code_is_current(model: str, meta: Mapping) -> bool:
    """Whether the entry of `model` was made by the code of today, as far as can be said.

    True if the entry does not depend on code (imported features), or if `model` is not in the
    registry or is another class there.
    """
    if "code" not in meta:
        return True
    from tumorbench_utils.models import MODELS

    now = made_by(type(MODELS[model])) if model in MODELS else {}
    return now.get("class") != meta.get("class") or now.get("code") == meta["code"]


def _is_own(cls: type) -> bool:
    """Whether a class of a user stands in the line of a model."""
    return cls.__module__.split(".")[0] not in (_PACKAGE, "builtins", "abc")


def class_source(cls: type) -> str:
    """Return the source of a class, or of its methods where the class has no file (notebooks)."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    functions = [cls, *(part for part in vars(cls).values() if inspect.isfunction(part))]
    sources = []
    for part in functions:
        try:
            sources.append(inspect.getsource(part))
        except (OSError, TypeError):  # typed at a prompt: no file to look at
            continue
        if part is cls:
            break
    return "\n".join([name, *sources])


def _module_source(module: str) -> str:
    """Return the code of a module; comments, docstrings and layout do not count."""
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant):
                body[0].value.value = ""
    return ast.unparse(tree)


def _imports(text: str) -> set[str]:
    """Return the modules of ``patches`` and ``models`` that `text` names in import statements."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found.update(n for n in names if n.startswith((f"{_PACKAGE}.models.", f"{_PACKAGE}.patch")))
    return {name for name in found if _exists(name)}


@functools.cache
def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a class or function inside a module
        return False
