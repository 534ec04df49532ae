"""An attribute that every thread has for itself, so that calls of one model in several threads do not mix."""

from threading import get_ident
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class PerThread(Generic[Value]):
    """Descriptor: None in every thread until it is set there; setting None frees it.

    Kept in the instance's dictionary by thread number, so that the instance can still be copied, which it could not
    with ``threading.local``.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"{name}_by_thread"

    def __get__(self, instance: Any, owner: type | None = None) -> Value | None:
        return instance.__dict__.get(self.name, {}).get(get_ident())

    def __set__(self, instance: Any, value: Value | None) -> None:
        values = instance.__dict__.setdefault(self.name, {})
        if value is None:
            values.pop(get_ident(), None)
        else:
            values[get_ident()] = value
