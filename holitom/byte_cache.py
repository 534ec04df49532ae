"""A cache bounded in bytes; who was asked for longest ago goes first. Any thread may use it."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

from holitom.errors import InputError

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Values by key.

    Args:
        limit: bytes that the values may take together; 0 keeps none.

    Attributes:
        bytes: that they take.

    Raises:
        InputError: for a negative limit.
    """

    def __init__(self, limit: int) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise InputError(f"cache_bytes = {limit!r} is out of range: it must be an integer of at least 0")
        self.limit, self.bytes = limit, 0
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._values

    def get(self, key: Hashable) -> Value | None:
        """The value, which now was used last; None if it is not here."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of so many bytes, unless it is larger than all the room there is."""
        with self._lock:
            old = self._values.pop(key, None)
            self.bytes -= 0 if old is None else old[1]
            if size > self.limit:
                return
            self._values[key] = (value, size)
            self.bytes += size
            while self.bytes > self.limit:
                _, (_, freed) = self._values.popitem(last=False)
                self.bytes -= freed
