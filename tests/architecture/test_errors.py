"""The tree of errors: every one survives pickling, has a code of its own and a sentence for people."""

from __future__ import annotations

import ast
import importlib
import pickle
from collections import Counter

from core.errors import BailiwickError
from tests.architecture.tree import modules


def all_errors() -> list[type[BailiwickError]]:
    """The whole tree, once every module that adds to it is imported."""
    names = {"BailiwickError"}
    while True:
        found = {
            (path, node.name)
            for path, tree in modules()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and {base.id for base in node.bases if isinstance(base, ast.Name)} & names
        }
        if {name for _, name in found} <= names:
            break
        names |= {name for _, name in found}
    for path in {path for path, _ in found}:
        importlib.import_module(path.removesuffix(".py").replace("/", "."))
    errors: list[type[BailiwickError]] = [BailiwickError]
    for error in errors:
        errors += [child for child in error.__subclasses__() if child not in errors]
    return errors


def test_every_error_comes_back_whole_from_a_pickle() -> None:
    for kind in all_errors():
        error = kind("A sentence.", retry_after_s=2.5, limit=7, name="x")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (again.message, again.retry_after_s, again.details) == ("A sentence.", 2.5, {"limit": 7, "name": "x"})


def test_every_error_has_a_code_of_its_own_and_says_what_it_means() -> None:
    kinds = all_errors()
    assert len(kinds) > 15
    codes = Counter(kind.code for kind in kinds)
    assert [code for code, times in codes.items() if times > 1] == []
    assert [kind.__name__ for kind in kinds if not kind().message.endswith(".")] == []
