"""Compiled models: what hooks do would be passed by, so they are refused in whatever order."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from holitom import holitom
from holitom.hooks.compiled import forget_compiled, refuse_compiled, refuse_tracing
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from tests.tiny_models import greedily, hugging_face_model, prompt, video

SETTINGS = {"retain_ratio": 0.2, "merge_layer": 4}
COMPILE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "decoder": lambda model: _in_place(model, model.get_decoder()),
    "layer": lambda model: _in_place(model, model.get_decoder().layers[5]),
    "model": lambda model: _in_place(model, model),
    "wrapper": lambda model: torch.compile(model, backend="eager"),
}


def _in_place(model: nn.Module, part: nn.Module) -> nn.Module:
    part.compile(backend="eager")
    return model


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> nn.Module:
    return load_pretrained_model(str(checkpoint), torch_dtype="float32")[1]


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> nn.Module:
    return hugging_face_model(checkpoint)


@pytest.mark.parametrize("what", COMPILE)
@pytest.mark.parametrize("family", ["ours", "theirs"])
def test_compressing_a_compiled_model_is_refused(what: str, family: str, request: pytest.FixtureRequest) -> None:
    model = COMPILE[what](copy.deepcopy(request.getfixturevalue(family)))
    with pytest.raises(InputError, match="compile"):
        holitom(model, **SETTINGS)


@pytest.mark.parametrize("what", ["decoder", "layer"])
def test_our_runtime_refuses_a_decoder_compiled_after(what: str, ours: nn.Module) -> None:
    model = copy.deepcopy(ours)
    holitom(model, **SETTINGS)
    COMPILE[what](model)
    with pytest.raises(InputError, match="compile"):
        greedily(model, prompt(5, "video", 3), 2, images=[video(2)], modalities=["video"])
    with pytest.raises(InputError, match="compile"):
        model(prompt(9))


@pytest.mark.parametrize("what", ["model", "wrapper"])
def test_our_runtime_refuses_a_model_compiled_after(what: str, ours: nn.Module) -> None:
    model = copy.deepcopy(ours)
    holitom(model, **SETTINGS)
    compiled = COMPILE[what](model)
    with pytest.raises(InputError, match="compile"):
        compiled(prompt(9))


@pytest.mark.parametrize("what", COMPILE)
def test_transformers_class_refuses_a_model_compiled_after(what: str, theirs: nn.Module) -> None:
    model = copy.deepcopy(theirs)
    holitom(model, **SETTINGS)
    compiled = COMPILE[what](model)
    with pytest.raises(InputError, match="compile"):
        compiled(prompt(9))


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(2, 2)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.inside(states) * 2


def _refusing(module: nn.Module) -> None:
    module.inside.register_forward_pre_hook(lambda *_: refuse_tracing())
    forget_compiled()


def test_code_compiled_before_the_hooks_came_is_traced_anew() -> None:
    module, states = _Twice(), torch.ones(1, 2)
    compiled = torch.compile(module, backend="eager")
    compiled(states)
    _refusing(module)
    with pytest.raises(InputError, match="compiled after"):
        compiled(states)


def test_code_compiled_for_a_model_without_hooks_is_not_used_for_one_with_hooks() -> None:
    module, states = _Twice(), torch.ones(1, 2)
    _refusing(module)
    torch.compile(_Twice(), backend="eager")(states)
    with pytest.raises(InputError, match="compiled after"):
        torch.compile(module, backend="eager")(states)


def test_a_module_that_was_compiled_in_place_is_refused() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    refuse_compiled(model)
    model[0].compile(backend="eager")
    with pytest.raises(InputError, match=r"compiled \(0\)"):
        refuse_compiled(model)
