"""Small video files made with PyAV for the tests: every frame carries its own number in large black and white cells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

NUMBER_BITS = 10
# Without these the same pictures give other bytes from run to run, and damage at a fixed place hits something else.
STEADY = {"libx264": {"x264-params": "mbtree=0:threads=1"}}


@dataclass(frozen=True)
class ClipSpec:
    """What ``write_clip`` writes; the defaults give a plain H.264 MP4 of 40 frames at 25 frames per second."""

    frames: int = 40
    width: int = 96
    height: int = 64
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    fps: int = 25
    gop: int = 10
    rotation: int = 0
    audio: bool = False
    ticks: Sequence[int] | None = None  # presentation time of each frame, in units of 1 / fps; None: one apart
    codec_options: dict[str, str] = field(default_factory=lambda: {"crf": "12"})
    container_options: dict[str, str] = field(default_factory=dict)
    container_format: str | None = None
    color_range: int | None = None
    colorspace: int | None = None


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A coloured gradient that moves with the frame number; its upper half spells the number in binary, (h, w, 3)."""
    rows, columns = np.mgrid[0:height, 0:width]
    colours = [(columns * 3 + number * 5) % 256, (rows * 4 + 60) % 256, ((rows + columns) * 2 + number * 3) % 256]
    image = np.stack(colours, axis=-1).astype(np.uint8)
    bits = [(number >> bit) & 1 for bit in range(NUMBER_BITS)]
    image[: height // 2] = np.repeat(bits, -(-width // NUMBER_BITS))[:width, None].astype(np.uint8) * 255
    return image


def number_of(image: np.ndarray) -> int:
    """The number an upright decoded frame carries."""
    height, width = image.shape[:2]
    cell = -(-width // NUMBER_BITS)
    bits = [image[height // 4, min(bit * cell + cell // 2, width - 1)].mean() > 127 for bit in range(NUMBER_BITS)]
    return sum(int(is_set) << bit for bit, is_set in enumerate(bits))


def write_clip(path: Path, spec: ClipSpec | None = None, **changes: object) -> Path:
    """Write the clip that ``spec`` (default: ``ClipSpec()`` with ``changes``) describes, and return its path."""
    spec = spec or ClipSpec(**changes)  # type: ignore[arg-type]
    options = {"fflags": "bitexact", **spec.container_options}
    with av.open(str(path), "w", format=spec.container_format, options=options) as container:
        sound = _add_sound(container) if spec.audio else None
        settings = STEADY.get(spec.codec, {}) | spec.codec_options
        stream = container.add_stream(spec.codec, rate=spec.fps, options=settings)
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, spec.pix_fmt
        stream.codec_context.gop_size = spec.gop
        stream.time_base = stream.codec_context.time_base = Fraction(1, spec.fps)
        if spec.color_range is not None:
            stream.codec_context.color_range = spec.color_range
        if spec.colorspace is not None:
            stream.codec_context.colorspace = spec.colorspace
        if sound is not None:
            _write_sound(container, sound, seconds=spec.frames / spec.fps)
        for number in range(spec.frames):
            frame = av.VideoFrame.from_ndarray(picture(number, spec.width, spec.height), format="rgb24")
            frame = frame.reformat(format=spec.pix_fmt)
            frame.pts = number if spec.ticks is None else spec.ticks[number]
            frame.time_base = Fraction(1, spec.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return turn(path, path, spec.rotation) if spec.rotation else path


def turn(source: Path, target: Path, degrees: int) -> Path:
    """Copy an MP4, the display matrix of its video track turned clockwise by 90, 180 or 270 degrees, as phones do."""
    target.write_bytes(_with_rotation(source.read_bytes(), degrees))
    return target


def write_audio(path: Path, seconds: float = 1.0, cover: np.ndarray | None = None) -> Path:
    """Write a sound file, with a cover picture when one is given."""
    with av.open(str(path), "w", format="mp4") as container:
        sound = _add_sound(container)
        picture_stream = None
        if cover is not None:
            picture_stream = container.add_stream("mjpeg", rate=1, options={})
            picture_stream.height, picture_stream.width = cover.shape[:2]
            picture_stream.pix_fmt = "yuvj420p"
            picture_stream.disposition = av.stream.Disposition.attached_pic.value
        if picture_stream is not None and cover is not None:
            frame = av.VideoFrame.from_ndarray(cover, format="rgb24").reformat(format="yuvj420p")
            frame.pts = 0
            container.mux(picture_stream.encode(frame))
            container.mux(picture_stream.encode(None))
        _write_sound(container, sound, seconds)
    return path


def copy_from(source: Path, target: Path, *, hide: int = 0, drop: Collection[int] = (), streams: int = 1) -> Path:
    """Copy the video stream without encoding it again.

    ``hide`` frames move before time zero, where a player (and the MP4 writer's edit list) cuts them off; the packets
    whose numbers are in ``drop`` are left out; ``streams`` times the stream is written.
    """
    with av.open(str(target), "w") as writer:
        with av.open(str(source)) as reader:
            template = reader.streams.video[0]
            copies = [writer.add_stream_from_template(template) for _ in range(streams)]
            shift = round(hide / (template.average_rate * template.time_base))
        for copy in copies:
            with av.open(str(source)) as reader:
                for number, packet in enumerate(reader.demux(reader.streams.video[0])):
                    if packet.size == 0 or number in drop:
                        continue
                    if shift:
                        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = copy
                    writer.mux(packet)
    return target


def _add_sound(container: av.container.OutputContainer) -> av.AudioStream:
    return container.add_stream("aac", rate=16000, layout="mono")


def _write_sound(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    samples = np.sin(np.arange(int(seconds * 16000)) * 0.17).astype(np.float32)[None]
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _with_rotation(data: bytes, degrees: int) -> bytes:
    """The MP4 with another display matrix (16.16 and 2.30 fixed point)."""
    one = 1 << 16
    turned = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    identity = b"".join(value.to_bytes(4, "big", signed=True) for value in (one, 0, 0, 0, one, 0, 0, 0, 1 << 30))
    a, b, c, d = turned
    matrix = b"".join(value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    track = data.index(b"tkhd")
    place = data.index(identity, track)
    return data[:place] + matrix + data[place + len(matrix) :]
