"""H.264 and HEVC data that no encoder writes, and keyframes that are not read to the end of their data.

FFmpeg does not check where a slice's arithmetic code ends (but that H.264's does not need more than there is), nor
whether bytes that may not stand in a NAL unit cut it off, so that damage gives another picture without an error. The
decoder itself tells where it stops reading, by what changes the picture: bytes behind a slice must not, and its last
bytes must. What follows a keyframe needs its references to be decoded, and is not looked at this way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# H.264 7.4.1 and H.265 7.4.2: an encoder writes 00 00 03 instead, and a decoder ends the unit there
_FORBIDDEN = re.compile(rb"\x00\x00[\x00-\x02]")
_START = re.compile(rb"\x00\x00\x01")
_HEAD = 6  # bytes of a unit that are left alone: its header, and the first of its slice's
_TAIL = 12  # bytes; the last two hold the end itself, whose change alters no sample
# Each by chance gives the picture of one intact flat keyframe in 150: damage is what none of them shows.
_CHANGES = (0xFF, 0xA5, 0x5A, 0x3C, 0xC3, 0x0F)
_BEHIND = b"\xa5\x5a" * 16


class SliceChecker:
    """What the data of a stream's slices say of damage, beside the decoder.

    Args:
        codec: "h264" or "hevc"; others are not looked at.
        context: the stream's codec context, for its parameter sets.
        options: those of its decoder.
    """

    def __init__(self, codec: str, context: Any, options: dict[str, str]) -> None:
        self._codec = codec
        self._extradata = bytes(context.extradata or b"")
        self._options = options
        # ISO 14496-15: the configuration's first byte is its version, 1, and a start code stands where there is none
        place = {"h264": 4, "hevc": 21}.get(codec, 0)
        configured = self._extradata[:1] == b"\1" and len(self._extradata) > place
        self._length = (self._extradata[place] & 3) + 1 if configured else 0

    def fault(self, packet: Any) -> str | None:
        """What is wrong with a packet, in words, or None."""
        if self._codec not in {"h264", "hevc"}:
            return None
        units = [(unit, self._is_slice(unit)) for unit in self._units(bytes(packet))]
        if self._length and any(is_slice and _FORBIDDEN.search(unit.rstrip(b"\0")) for unit, is_slice in units):
            return "its data hold bytes that no encoder writes"
        if packet.is_keyframe and not self._read_to_the_end(units):
            return "its keyframe ends elsewhere than its data"
        return None

    def _units(self, data: bytes) -> Iterator[bytes]:
        """The NAL units of a packet, by their lengths or by the start codes between them."""
        if not self._length:
            yield from (unit for unit in _START.split(data)[1:] if unit)
            return
        place = 0
        while place + self._length < len(data):
            start = place + self._length
            place = start + int.from_bytes(data[place:start], "big")
            yield data[start:place]

    def _is_slice(self, unit: bytes) -> bool:
        if not unit:
            return False
        return unit[0] >> 1 & 63 < 32 if self._codec == "hevc" else unit[0] & 31 in range(1, 6)

    def _read_to_the_end(self, units: list[tuple[bytes, bool]]) -> bool:
        """Whether a keyframe's slices are read to the last byte and not beyond; True if it is no picture by itself."""
        whole = [_without_zero_words(unit) if is_slice else unit for unit, is_slice in units]
        slices = [place for place, (_, is_slice) in enumerate(units) if is_slice]
        picture = self._picture(whole)
        if picture is None:
            return True
        longer = [unit + _BEHIND if is_slice else unit for unit, (_, is_slice) in zip(whole, units, strict=True)]
        ends = self._codec == "h264" or picture == self._picture(longer)
        if ends and all(self._reads_end(whole, place, picture) for place in slices):
            return True
        return picture != self._picture(whole)  # a picture that is never the same twice tells nothing

    def _reads_end(self, units: list[bytes], place: int, picture: list[bytes]) -> bool:
        """Whether the end of a slice has a say in the picture; True of one that is hardly more than its head."""
        if len(units[place]) < _HEAD + _TAIL:
            return True
        return not all(
            picture == self._picture([*units[:place], _changed(units[place], mask), *units[place + 1 :]])
            for mask in _CHANGES
        )

    def _picture(self, units: Sequence[bytes]) -> list[bytes] | None:
        """Digests of the planes of the one picture that the units give to a new decoder; None if they give none."""
        import av  # noqa: PLC0415

        if self._length:
            data = b"".join(len(unit).to_bytes(self._length, "big") + unit for unit in units)
        else:
            data = b"".join(b"\0\0\1" + unit for unit in units)
        decoder: Any = av.CodecContext.create(self._codec, "r")
        decoder.extradata, decoder.options, decoder.thread_type = self._extradata or None, self._options, "NONE"
        try:
            frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
        except av.error.FFmpegError:
            return None
        if len(frames) != 1:
            return None
        size = (frames[0].format.components[0].bits + 7) // 8
        planes = [np.ascontiguousarray(plane_samples(plane, size)) for plane in frames[0].planes]
        return [hashlib.blake2b(plane.data).digest() for plane in planes]


def plane_samples(plane: Any, size: int) -> np.ndarray:
    """Bytes of a plane whose samples have ``size`` each, without the padding of its lines, (height, width x size)."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width * size]


def _changed(unit: bytes, mask: int) -> bytes:
    """The unit with its last bytes changed."""
    place = max(len(unit) - _TAIL, _HEAD)
    return unit[:place] + bytes(byte ^ mask for byte in unit[place:])


def _without_zero_words(unit: bytes) -> bytes:
    """The unit without the zeros that may follow a slice (cabac_zero_words, H.265 7.3.2.11)."""
    while unit.endswith((b"\0", b"\0\0\3")):
        unit = unit[: -3 if unit.endswith(b"\3") else -1]
    return unit
