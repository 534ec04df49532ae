"""Ask about a video in a browser: answers with all tokens and with a method side by side, counts, times, the token map.

    bash scripts/app.sh
    bash scripts/app.sh --checkpoint ~/llava-onevision-qwen2-7b-ov --port 8000

On this machine alone: the page listens on 127.0.0.1, loads nothing from elsewhere and reports to nobody. Without
--checkpoint the embedded tiny model answers; it knows rendered clips, of which the page offers one with questions.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eval.demo.__main__ import TINY
from eval.demo.app_session import OURS, DemoRequest, Session, as_text, methods_shown, own_shares, told
from eval.instruments.cli import Parser, user_errors
from eval.synthetic.answers.evaluate import by_clip
from eval.synthetic.world.dataset import load_questions, make_split
from holitom.run_facts import TINY_NOTE
from llava.errors import InputError
from llava.video_prompt import video_defaults

HOST = "127.0.0.1"
HEADINGS = ["", "answer", "visual tokens", "to the LLM", "in its last layer", "GFLOPs", "first token, ms"]
_WIDTHS = ["12%", "30%", "12%", "12%", "12%", "8%", "14%"]
_EXAMPLE_QUESTIONS = 12  # the least that a split is made of is one of each family
_MOST_FRAMES = 128
_TINY_FRAMES = 8
_TITLE = "HoliTom: video tokens, with and without compression"


def import_gradio() -> Any:
    """Gradio, told to stay on this machine.

    Raises:
        InputError: if it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio  # noqa: PLC0415
    except ImportError:
        raise InputError("the app needs Gradio, which is not installed: pip install 'holitom[app]'") from None
    return gradio


def examples(folder: Path) -> list[list[str]]:
    """A rendered clip with its questions, for the tiny model; made in seconds."""
    make_split(folder, "guard", _EXAMPLE_QUESTIONS)
    clip, items = by_clip(load_questions(folder, "guard"))[0]
    return [[clip, item.question.prompt] for item in items]


def respond(
    session: Session, folder: Path, video: str | None, question: str, method: str, *settings: float
) -> tuple[Any, ...]:
    """Message, rows, picture and details of one request; ``settings`` are those of :func:`_inputs`, in their order."""
    asked = DemoRequest(video, question or "", method, settings[0], settings[1], *map(int, settings[2:]))
    try:
        reply = session.ask(asked, Path(tempfile.mkdtemp(dir=folder)))
    except InputError as error:
        return f"Not answered: {error}", [], None, ""
    except Exception as error:  # the app goes on, and whoever started it sees where it broke
        traceback.print_exc()
        return f"Not answered, {type(error).__name__}: {error}", [], None, ""
    said = "The same answer." if reply.rows[0].answer == reply.rows[1].answer else "The answers differ."
    return said, told(reply), str(reply.picture), as_text(reply)


def build_page(session: Session, samples: Sequence[Sequence[str]], folder: Path) -> Any:
    """The page as Gradio blocks.

    Args:
        session: answers the requests.
        samples: pairs of a video and a question that the page offers.
        folder: for the pictures of this run.
    """
    gradio = import_gradio()
    with gradio.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        note = f" {TINY_NOTE}" if _is_tiny(session.checkpoint) else ""
        gradio.Markdown(f"# {_TITLE}\nCheckpoint `{Path(session.checkpoint).name}`, on this machine.{note}")
        with gradio.Row():
            with gradio.Column():
                inputs = _inputs(gradio, session)
                ask = gradio.Button("Ask", variant="primary", elem_id="ask")
            with gradio.Column():
                message = gradio.Textbox(label="Message", elem_id="message", interactive=False, lines=2)
                details = gradio.Code(
                    label="Settings, segments, layers", language="json", elem_id="details", max_lines=26
                )
        rows = gradio.Dataframe(
            headers=HEADINGS,
            datatype="str",
            label="Side by side",
            elem_id="rows",
            wrap=True,
            column_widths=_WIDTHS,
            interactive=False,
        )
        gradio.Markdown("### What became of each token")
        picture = gradio.Image(
            show_label=False, type="filepath", elem_id="map", interactive=False, buttons=["download", "fullscreen"]
        )  # no button that shares
        if samples:
            shown = [list(sample) for sample in samples]
            gradio.Examples(shown, inputs[:2], label="A rendered clip", cache_examples=False)
        ask.click(
            partial(respond, session, folder),
            inputs,
            [message, rows, picture, details],
            concurrency_limit=1,
            api_visibility="private",
        )
    page.queue(default_concurrency_limit=1)
    return page


def _is_tiny(checkpoint: str) -> bool:
    return Path(checkpoint).resolve() == TINY.resolve()


def _inputs(gradio: Any, session: Session) -> list[Any]:
    """Video, question, method, and the settings in the order of :class:`~eval.demo.app_session.DemoRequest`."""
    frames = _TINY_FRAMES if _is_tiny(session.checkpoint) else video_defaults(session.model.config).num_frames
    layer, last, own = session.usual_layer, session.layers - 1, ", ".join(own_shares())
    return [
        gradio.Video(label="Video", sources=["upload"], elem_id="video", height=260),
        gradio.Textbox(label="Question", value="What happens in this video?", lines=3, elem_id="question"),
        gradio.Dropdown(methods_shown(), value=OURS, label="Method", elem_id="method"),
        gradio.Slider(0.01, 1, 0.15, step=0.01, label=f"Share of the visual tokens to keep ({own}: their own)"),
        gradio.Slider(0, 1, 0.8, step=0.01, label="Similarity threshold (HoliTom)"),
        gradio.Slider(0, last, layer, step=1, label="Layer of the inner stage, 0: none (HoliTom)"),
        gradio.Slider(1, _MOST_FRAMES, frames, step=1, label="Frames"),
        gradio.Slider(1, 256, 32, step=1, label="Longest answer, tokens"),
    ]


def serve(page: Any, port: int, block: bool) -> str:
    """Put the page on this machine's own address; returns it.

    Raises:
        InputError: if the port is taken.
    """
    gradio = import_gradio()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(f"--port {port} cannot be used ({error.strerror}): name another one") from None
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
    address = f"http://{HOST}:{port}/"
    print(f"open {address} (Ctrl-C ends it)", flush=True)
    page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=not block,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        theme=gradio.themes.Base(**fonts),
        mcp_server=False,
        pwa=False,
    )
    return address


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", default=str(TINY), help="folder or hub id (default: the learned tiny model)")
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args(arguments)
    if not 1 <= options.port <= 65535:
        raise InputError(f"--port {options.port} is out of range: take one from 1024 to 65535")
    import_gradio()
    session = Session(options.checkpoint)
    with tempfile.TemporaryDirectory(prefix="holitom-app-") as folder:
        samples = examples(Path(folder) / "synthvid") if _is_tiny(options.checkpoint) else []
        serve(build_page(session, samples, Path(folder)), options.port, block=True)


if __name__ == "__main__":
    main(sys.argv[1:])
