"""What became of a video's tokens, as pictures.

    python -m holitom.show talk.mp4 --config tiny/holitom_r15 --config tiny/fastv -o maps
    python -m holitom.show talk.mp4 --config llava_onevision_7b/holitom_r15 --checkpoint DIR -o maps
    python -m holitom.show --record outputs/lmms/RUN/records/videomme-3.npz -o maps

Every configuration gets a folder with ``tokens.png`` (segments, static and dynamic tokens, clusters), ``inside.png``
(what survives each stage inside the LLM), ``attention.png`` (heat maps), ``similarity.png`` (similarity over time, the
threshold and the segmentation) and ``record.npz``, from which all of them can be drawn again without model and video.
``animation.gif`` shows every method frame by frame, ``side_by_side.png`` several methods on the same frames. The last
line of the output is one line of JSON with the numbers of the pictures.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holitom import views
from holitom.cli import Count, Parser, commit, user_errors
from holitom.compressor import Compressor
from holitom.errors import InputError
from holitom.files import make_folder, whole_folder
from holitom.record.file import load_record
from holitom.record.saved import SavedRecord
from holitom.record.saving import save_record, saved_copy
from holitom.run_facts import facts_of, frame_times
from holitom.runtime import require_runtime
from holitom.settings import RunConfig, load_config
from holitom.shipped import TINY
from holitom.watching import watched

_QUESTION = "What happens in this video?"


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(prog="holitom.show", description=__doc__)
    parser.add_argument("video", nargs="?", type=Path, help="video file")
    parser.add_argument("--config", action="append", default=[], help="shipped name or YAML file; may be repeated")
    parser.add_argument("--checkpoint", help=f"folder or hub id (default: {TINY.parent.name}/{TINY.name})")
    parser.add_argument("--frames", action=Count, help="frames sampled (default: the configurations')")
    parser.add_argument("--question", default=_QUESTION, help=f"(default: {_QUESTION})")
    parser.add_argument("--max-new-tokens", action=Count, default=16, help="of the answer in the heading")
    parser.add_argument("--record", action="append", default=[], type=Path, help="draw saved records instead")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures")
    options = parser.parse_args(arguments)
    if (options.video is None) == (not options.record):
        raise InputError("give either a video, or --record FILE; see --help")
    if options.video is not None and not options.config:
        raise InputError("no method was named: give --config FILE, or the name of one of configs/")
    if options.record and (options.config or options.checkpoint or options.frames):
        raise InputError("--record holds what its run was made with: leave --config, --checkpoint and --frames out")
    return options


def by_name(paths: Sequence[str | Path]) -> dict[str, Path]:
    """File names without their endings -> files.

    Raises:
        InputError: if two have the same name.
    """
    found = {Path(path).stem: Path(path) for path in paths}
    if len(found) < len(paths):
        raise InputError(f"two of {', '.join(map(str, paths))} have the same name, which their pictures would share")
    return found


def read_records(paths: Sequence[Path]) -> dict[str, SavedRecord]:
    """Saved records by the names that their pictures get: those they hold, else those of their files or folders.

    A name inside a record comes from whoever wrote it, so that one which is no plain file name is not used.

    Raises:
        InputError: for a damaged record, or if nothing tells two of them apart.
    """
    records = [load_record(path) for path in paths]
    files = [path.stem for path in paths]
    held = [record.meta.get("name") for record in records]
    own = [str(name) if _is_plain(name) else file for name, file in zip(held, files, strict=True)]
    for names in (own, files, [path.absolute().parent.name for path in paths]):
        if len(set(names)) == len(paths):
            return dict(zip(names, records, strict=True))
    raise InputError(f"two of {', '.join(map(str, paths))} have the same name, which their pictures would share")


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"\w[\w .,=+-]{0,99}", name) is not None


def record_methods(
    video: str | os.PathLike[str],
    configs: Mapping[str, RunConfig],
    checkpoint: str | os.PathLike[str] = TINY,
    frames: int | None = None,
    question: str = _QUESTION,
    max_new_tokens: int = 16,
) -> dict[str, SavedRecord]:
    """Ask one question about one video with every method, and keep what each of them did.

    Args:
        video: file.
        configs: name of each method -> its configuration; without a compressor it keeps all tokens.
        checkpoint: folder or hub id.
        frames: sampled; None takes the configurations'.
        question: the words of it.
        max_new_tokens: of the answer.

    Raises:
        InputError: for a wrong video, checkpoint or setting, or configurations that sample different frames.
    """
    require_runtime()
    from llava.asking import VideoPrompt  # noqa: PLC0415
    from llava.model.builder import load_pretrained_model  # noqa: PLC0415
    from llava.video import load_video  # noqa: PLC0415

    counts = {run.model.num_frames for run in configs.values()} if frames is None else {frames}
    if len(counts) != 1:
        raise InputError(f"the configurations sample {sorted(counts)} frames: give --frames, to compare on one clip")
    clip = load_video(video, counts.pop())
    model: Any
    tokenizer, model, processor, _ = load_pretrained_model(str(checkpoint), None, "llava_qwen")
    asked, records = VideoPrompt(tokenizer, model, clip, processor, question), {}
    for name, run in configs.items():
        compressor = watched(run.build() or Compressor(None, None))
        with compressor.applied(model):
            answer = asked.text(max_new_tokens)
        facts = {"name": name, "video": Path(video).name, "question": question, "answer": answer}
        facts |= facts_of(run, checkpoint)
        records[name] = saved_copy(compressor.record, [clip.frames], frame_times(clip), size=480, **facts)
    return records


def draw_all(records: Mapping[str, SavedRecord], folder: str | os.PathLike[str]) -> list[Path]:
    """Draw everything that the records of one clip hold; nothing is left in ``folder`` if a picture fails.

    Args:
        records: name of each method -> its record.
        folder: made if absent.

    Returns:
        The files.

    Raises:
        InputError: for records that cannot be drawn, or not side by side, a name that is no plain file name, or a
            folder that cannot be made.
    """
    for name in records:
        if Path(name).name != name:
            raise InputError(f"the name {name!r} is no plain file name, but its pictures would lie in it: change it")
    with whole_folder(Path(folder)) as hidden:
        for name, record in records.items():
            _draw_one(record, hidden / name)
        if len(records) > 1:
            views.save_picture(views.side_by_side(records), hidden / "side_by_side.png")
        views.save_animation(views.animation(records), hidden / "animation.gif")
        files = sorted(file.relative_to(hidden) for file in hidden.rglob("*") if file.is_file())
    return [Path(folder) / file for file in files]


def _draw_one(record: SavedRecord, folder: Path) -> None:
    if len(record.videos) != 1:
        raise InputError(f"the record is of {len(record.videos)} videos: draw them one by one with holitom.views")
    save_record(record, folder / "record.npz")
    [video] = record.videos
    pictures = {"tokens": views.token_map}
    if video.stages:
        pictures["inside"] = views.inner_map
    if video.stages or video.received_attention is not None:
        pictures["attention"] = views.attention_map
    if video.similarity is not None:
        pictures["similarity"] = views.similarity_chart
    for name, draw in pictures.items():
        views.save_picture(draw(record), folder / f"{name}.png")


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = read_arguments(arguments)
    if options.record:
        records = read_records(options.record)
        make_folder(options.output)
    else:
        configs = {name: load_config(path) for name, path in by_name(options.config).items()}
        make_folder(options.output)
        records = record_methods(
            options.video, configs, options.checkpoint or TINY, options.frames, options.question, options.max_new_tokens
        )
    files = draw_all(records, options.output)
    methods = {
        name: {**record.videos[0].counts(), "answer": record.meta.get("answer")} for name, record in records.items()
    }
    said = {"output": str(options.output), "files": [str(file) for file in files], "methods": methods}
    sys.stdout.write(json.dumps({**said, "commit": commit()}) + "\n")


if __name__ == "__main__":
    main()
