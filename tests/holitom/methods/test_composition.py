"""A method gives its stages and rules as values: no class of it inherits from the hooks or from another method."""

import ast

import pytest

from tests.test_layers import FILES

# What every hook on a decoder shares is how it is put on and taken off; DyCoke's acts in decode steps and is no stage.
ON_AND_OFF = {("holitom.methods.dycoke.decode.DycokeDecodePruning", "holitom.hooks.hook_set.HookSet")}


def inherited(module: str, source: str) -> set[tuple[str, str]]:
    """Class and base of every class whose base is imported from the hooks or from a method."""
    tree = ast.parse(source)
    origin = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = set()
    for node in ast.walk(tree):
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
            full = origin.get(name.partition(".")[0], "")
            if full.startswith(("holitom.hooks.", "holitom.methods.")):
                found.add((f"{module}.{node.name}", full))
    return found


def test_methods_are_composed() -> None:
    methods = {name: path.read_text() for name, path in FILES.items() if name.startswith("holitom.methods.")}
    assert set().union(*(inherited(name, source) for name, source in methods.items())) == ON_AND_OFF


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from holitom.hooks.decoder.staged import StagedCompression", "StagedCompression"),
        ("from holitom.hooks.decoder import staged", "staged.StagedCompression"),
        ("from holitom.methods.fastv import FastvConfig as Base", "Base[int]"),
    ],
)
def test_the_net_catches_a_stage_that_is_the_machinery(line: str, name: str) -> None:
    ((found, base),) = inherited("holitom.methods.new", f"{line}\nclass NewInner({name}):\n    pass\n")
    assert found == "holitom.methods.new.NewInner"
    assert base == line.split(" as ")[0].replace("from ", "").replace(" import ", ".")
    assert (
        inherited("holitom.methods.new", "from holitom.ops.selection import PlainDetails\nclass New(PlainDetails): ...")
        == set()
    )
