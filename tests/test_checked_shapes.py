"""One checker for a function that is made in every call: it still refuses, and it is not another function's."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("beartype")
from jaxtyping import Float, jaxtyped
from torch import Tensor, ones

from tests.checked_shapes import checker_of

# written inside a function they would be other types in every call, and have other checkers
Matrix, Row, Column = Float[Tensor, "rows dim"], Float[Tensor, " dim"], Float[Tensor, " rows"]


def made(fault: object = None) -> Callable[..., Any]:
    @jaxtyped(typechecker=checker_of)
    def summed(one: Matrix, other: Row) -> Column:
        return one @ other if fault is None else fault

    return summed


def made_elsewhere() -> Callable[..., Any]:
    def made() -> Callable[..., Any]:
        @jaxtyped(typechecker=checker_of)
        def summed(one: int, other: int) -> int:
            return one + other

        return summed

    return made()


@pytest.mark.parametrize("time", [1, 2])
def test_every_one_is_checked(time: int) -> None:
    assert made()(ones(2, 3), ones(3)).shape == (2,)
    for wrong in ((ones(2, 3), ones(2)), (ones(2), ones(2)), (ones(2, 3), 1)):
        with pytest.raises(Exception, match="Type-check error whilst checking the parameters"):
            made()(*wrong)
    with pytest.raises(Exception, match="Type-check error whilst checking the return value"):
        made(ones(3))(ones(2, 3), ones(3))


def test_another_function_of_the_name_has_its_own() -> None:
    made()(ones(2, 3), ones(3))
    assert made_elsewhere()(1, 2) == 3
    with pytest.raises(Exception, match="Type-check error"):
        made_elsewhere()(ones(2, 3), ones(3))


def test_the_second_costs_no_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    made()
    monkeypatch.setattr("beartype.beartype", None)
    assert made()(ones(2, 3), ones(3)).shape == (2,)
