"""What a video file's own structure says of its damage: sizes, checksums, nesting and counters, without decoding.

A container reader goes on behind damage: FFmpeg looks for the next thing it knows and tells nobody, so that frames are
lost and every later one has another index. Each container has something that must add up, and here it is added up.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

_CHECKSUM = bytes.fromhex("bf84")  # its identifier and its length, 4
_SEGMENT = bytes.fromhex("18538067")  # Matroska's identifier of the element that holds all others
_CLUSTER = bytes.fromhex("1f43b675")  # and of one that holds frames
_IN_CLUSTER = frozenset(bytes.fromhex(name) for name in ("e7", "a7", "ab", "a3", "a0", "bf", "ec", "5854", "af"))

_SYNC, _PACKET = 0x47, 188  # an MPEG transport stream's packets: their first byte and their length
_AVI_CHUNK = re.compile(rb"(\d\d|ix)[0-9a-z]{2}|JUNK|LIST", re.IGNORECASE)  # what a list of frames may hold


def missing_bytes(path: Path) -> int:
    """How many bytes the file lacks of the size that its own head states (Matroska, WebM, AVI); 0 if it states none."""
    with path.open("rb") as file:
        head = file.read(4096)
    end = 0
    if head[:4] == b"RIFF":
        end = 8 + int.from_bytes(head[4:8], "little")
    elif (place := head.find(_SEGMENT)) >= 0 and head[:4] == bytes.fromhex("1a45dfa3"):
        start = place + 4
        length = 9 - head[start].bit_length()  # a variable-length integer: the first set bit tells its bytes
        size = int.from_bytes(head[start : start + length], "big") & ((1 << 7 * length) - 1)
        end = start + length + size if size != (1 << 7 * length) - 1 else 0  # all ones: unknown, a live recording
    return max(end - path.stat().st_size, 0)


def structure_fault(path: Path, container: str, stream_id: int) -> str | None:
    """The first thing that does not add up, in words; None if all does or this container has nothing to add up.

    Args:
        path: the file.
        container: "matroska", "avi", "mpegts", or any other, which has nothing.
        stream_id: the container's own number of the video stream; of a transport stream, its packet identifier.
    """
    if container == "matroska":
        return _matroska_fault(path)
    if container == "avi":
        return _avi_fault(path)
    return _transport_fault(path, stream_id) if container == "mpegts" else None


def _matroska_fault(path: Path) -> str | None:
    """A checksum that its bytes do not give, or a cluster whose elements do not fill it.

    Elements of the second level (clusters above all) may begin with a CRC-32 of the rest of them (RFC 8794, 11.3.1):
    FFmpeg writes it in Matroska, not in WebM, and compares none. An element of unknown length ends the comparison.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        place, summed = 0, False
        while place < size:
            file.seek(place)
            name, length, start = _element(file.read(16))
            if length is None:  # unknown, as in a live recording, or no element
                return f"the part at byte {place} has no head" if summed else None
            if name == _SEGMENT:
                place += start
                continue
            file.seek(place + start)
            head = file.read(6)
            if head[:2] == _CHECKSUM:
                summed = True
                if _crc32(file, length - 6) != int.from_bytes(head[2:], "little"):
                    return f"the {length} bytes from byte {place} on do not give their checksum"
            if name == _CLUSTER and (bad := _cluster_fault(file, place + start, place + start + length)) is not None:
                return f"the group of frames at byte {place} breaks off at byte {bad}"
            place += start + length
    return None


def _cluster_fault(file: BinaryIO, place: int, end: int) -> int | None:
    """Where the elements of a cluster stop to fill it; None if they do to the end."""
    while place < end:
        file.seek(place)
        name, length, start = _element(file.read(16))
        if length is None or name not in _IN_CLUSTER or place + start + length > end:
            return place
        place += start + length
    return None


def _crc32(file: BinaryIO, length: int) -> int:
    found = 0
    while length > 0 and (part := file.read(min(length, 1 << 20))):
        found = zlib.crc32(part, found)
        length -= len(part)
    return found


def _element(head: bytes) -> tuple[bytes, int | None, int]:
    """Name, length of the content (None: unknown) and length of the head of the EBML element that begins so."""
    width = 9 - head[0].bit_length() if head else 1
    name, rest = head[:width], head[width:]
    count = 9 - rest[0].bit_length() if rest else 9
    if count > 8 or len(rest) < count:
        return name, None, 0
    size = int.from_bytes(rest[:count], "big") & ((1 << 7 * count) - 1)
    return name, None if size == (1 << 7 * count) - 1 else size, width + count


def _avi_fault(path: Path) -> str | None:
    """A list of frames ("movi") whose chunks do not fill it; of a recorder that broke off, which states 0, nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        place = 12  # behind the head of the first RIFF
        while place + 8 <= size:
            file.seek(place)
            name, length, kind = (head := file.read(12))[:4], int.from_bytes(head[4:8], "little"), head[8:]
            if name == b"RIFF":  # a further part of a large file
                place += 12
                continue
            if name == b"LIST" and kind == b"movi" and length > 4:
                bad = _chunks_fault(file, place + 12, place + 8 + length)
                if bad is not None:
                    return f"the list of frames at byte {place} breaks off at byte {bad}"
            place += 8 + length + length % 2
    return None


def _chunks_fault(file: BinaryIO, place: int, end: int) -> int | None:
    while place + 8 <= end:
        file.seek(place)
        name, length, kind = (head := file.read(12))[:4], int.from_bytes(head[4:8], "little"), head[8:]
        inside = 12 if name == b"LIST" and kind == b"rec " else 8 + length + length % 2
        if not _AVI_CHUNK.fullmatch(name) or place + inside > end + 1:  # the last one's padding may be left out
            return place
        place += inside
    return None


def _transport_fault(path: Path, identifier: int) -> str | None:
    """A packet of another length, one its sender marked, or a jump of the video packets' counter (ISO 13818-1, 2.4.3).

    A recording may be put together of several: the counter may begin anew where the tables that begin a stream precede
    a picture at which decoding can start.
    """
    last, table = None, False  # the video's counter, and whether tables followed it, in the part before
    for start, packets in _transport_packets(path):
        lost = np.flatnonzero(packets[:, 0] != _SYNC)
        if len(lost):
            return f"no packet begins at byte {start + int(lost[0]) * _PACKET}"
        pid = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
        rows = np.flatnonzero(pid == identifier)
        if not len(rows):
            continue
        counters = packets[rows, 3].astype(int) & 0x0F
        before = np.concatenate(([counters[0] if last is None else last], counters[:-1]))
        # a packet may be sent twice, and one without payload does not count
        payload = (packets[rows, 3] & 0x10) != 0
        counted = (counters == before) | (payload & (counters == (before + 1) % 16))
        tables = np.flatnonzero(pid == 0)
        for place in np.flatnonzero((packets[rows, 1] & 0x40) != 0).tolist():
            if not _begins_a_picture(packets[rows[place]]):
                return f"the picture that begins at byte {start + int(rows[place]) * _PACKET} has no head"
        for place in np.flatnonzero(~counted | ((packets[rows, 1] & 0x80) != 0)).tolist():
            row, previous = rows[place], rows[place - 1] if place else -1
            new = bool(np.any((tables > previous) & (tables < row))) or (place == 0 and table)
            if packets[row, 1] & 0x80 or not _begins_anew(packets[row], new):
                return f"packets are missing or damaged before byte {start + int(row) * _PACKET}"
        last, table = int(counters[-1]), bool(len(tables) and tables[-1] > rows[-1])
    return None


def _begins_a_picture(packet: np.ndarray) -> bool:
    """Whether the payload that is announced as a picture's begins with the start code of one (2.4.3.7)."""
    payload = 5 + int(packet[4]) if packet[3] & 0x20 else 4
    return payload > _PACKET - 3 or packet[payload : payload + 3].tobytes() == b"\0\0\1"


def _begins_anew(packet: np.ndarray, after_tables: bool) -> bool:
    flags = int(packet[5]) if packet[3] & 0x20 and packet[4] else 0
    return bool(flags & 0x80 or (after_tables and packet[1] & 0x40 and flags & 0x40))


def _transport_packets(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Where each part of the file begins, and its packets, (packets, 188); nothing of streams with longer packets."""
    with path.open("rb") as file:
        place = 0
        while len(data := file.read(_PACKET << 14)) >= _PACKET:
            if place == 0 and (data[0] != _SYNC or data[_PACKET : _PACKET + 1] not in {b"", b"G"}):
                return
            whole = len(data) // _PACKET
            yield place, np.frombuffer(data, np.uint8)[: whole * _PACKET].reshape(whole, _PACKET)
            place += len(data)
