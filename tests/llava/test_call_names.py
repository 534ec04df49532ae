"""The names of the cache and other arguments in calls of transformers."""

from typing import Any

import pytest
from torch import Tensor, nn

from holitom.hooks.call_names import cache_given, cache_in, check_call
from holitom.hooks.hook_set import refuse_compiled
from llava.errors import InputError


class _Renamed(nn.Module):
    def forward(self, hidden_states: Tensor, mask: Any = None, kv_cache: Any = None) -> Tensor:
        return hidden_states


class _Known(nn.Module):
    def forward(self, hidden_states: Tensor, attention_mask: Any = None, cache: Any = None) -> Tensor:
        return hidden_states


def test_a_renamed_argument_is_refused_with_the_versions_that_work() -> None:
    check_call(_Known(), "attention_mask")
    with pytest.raises(InputError, match=r"cache or past_key_values.*transformers >= 5\.17"):
        check_call(_Renamed())
    with pytest.raises(InputError, match="no position_ids"):
        check_call(_Known(), "position_ids")


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_cache_is_found_under_both_names(name: str) -> None:
    cache = object()
    assert cache_in({name: cache}) is cache
    assert cache_given({name: None}) is None


def test_a_vanished_cache_argument_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no cache or past_key_values"):
        cache_given({"kv_cache": object()})


def test_a_module_that_was_compiled_in_place_is_refused() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    refuse_compiled(model)
    model[0].compile(backend="eager")
    with pytest.raises(InputError, match="compiled"):
        refuse_compiled(model)
