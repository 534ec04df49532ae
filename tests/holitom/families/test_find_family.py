"""The folder of model families: every file has what its protocol asks; an unknown class is told where to add one."""

import importlib
import pkgutil
import re

import pytest
import transformers
from torch import nn

from holitom import families
from llava.errors import InputError

FILES = [info.name for info in pkgutil.iter_modules(families.__path__)]
FUNCTIONS = ("decoder", "entrance", "matches", "recorder", "set_slot", "slot", "tower_places")


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_what_the_protocol_asks(name: str) -> None:
    family = importlib.import_module(f"holitom.families.{name}")
    assert {each for each in vars(families.Family) if not each.startswith("_")} == set(FUNCTIONS)
    assert all(callable(getattr(family, each)) for each in FUNCTIONS)
    package, _, model = family.NAME.partition(".")
    assert package == "llava" or hasattr(transformers, model)
    assert not family.matches(nn.Linear(1, 1))


def test_an_unknown_class_is_told_what_is_served_and_where_to_add_it() -> None:
    with pytest.raises(InputError) as error:
        families.find_family(nn.Linear(1, 1))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("models of class Linear are not supported")
    for name in FILES:
        assert importlib.import_module(f"holitom.families.{name}").NAME in message
    assert re.search(r"add holitom/families/<name>.py with NAME, (\w+, )+as holitom.families.Family says", message)
    assert all(re.search(rf"\b{each}\b", message) for each in FUNCTIONS)
