"""The names of the cache and other arguments in calls of transformers."""

from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor, nn
from transformers import Qwen2Model, masking_utils

from holitom.hooks.call_names import cache_given, cache_in, check_call, release_names
from llava.errors import InputError


class _Renamed(nn.Module):
    def forward(self, hidden_states: Tensor, mask: Any = None, kv_cache: Any = None) -> Tensor:
        return hidden_states


class _Known(nn.Module):
    def forward(self, hidden_states: Tensor, attention_mask: Any = None, cache: Any = None) -> Tensor:
        return hidden_states


@pytest.fixture
def _looked_up_anew() -> Iterator[None]:
    release_names.cache_clear()
    yield
    release_names.cache_clear()


def _unknown(attention_mask: Any, kv_cache: Any) -> None: ...


@pytest.mark.parametrize(("owner", "name"), [(masking_utils, "create_causal_mask"), (Qwen2Model, "forward")])
@pytest.mark.usefixtures("_looked_up_anew")
def test_a_release_with_another_name_is_refused_when_hooks_are_put_on(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, _unknown)
    with pytest.raises(InputError, match=r"_unknown has no cache or past_key_values: install transformers >= 5\.17"):
        check_call(_Known(), "attention_mask")


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
