"""The cache is bounded, and forgets in the order of use."""

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holitom.byte_cache import ByteCache
from llava.errors import InputError

STEPS = st.lists(st.tuples(st.sampled_from("gp"), st.integers(0, 5), st.integers(0, 12)), max_size=60)


@given(STEPS, st.integers(0, 20))
def test_it_does_what_a_list_of_its_uses_says(steps: list[tuple[str, int, int]], limit: int) -> None:
    cache: ByteCache[int] = ByteCache(limit)
    used: OrderedDict[int, tuple[int, int]] = OrderedDict()
    for number, (step, key, size) in enumerate(steps):
        if step == "g":
            assert cache.get(key) == (used[key][0] if key in used else None)
            if key in used:
                used.move_to_end(key)
            continue
        cache.put(key, number, size)
        used.pop(key, None)
        if size <= limit:
            used[key] = (number, size)
        while sum(each for _, each in used.values()) > limit:
            used.pop(next(iter(used)))
        assert cache.bytes == sum(each for _, each in used.values()) <= limit
        assert len(cache) == len(used)


@pytest.mark.parametrize("limit", [-1, 1.5, True, "4"])
def test_a_limit_is_a_number_of_bytes(limit: object) -> None:
    with pytest.raises(InputError, match="cache_bytes"):
        ByteCache(limit)  # type: ignore[arg-type]
