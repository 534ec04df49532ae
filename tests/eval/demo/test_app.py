"""The app: what it answers is the record's, mistakes become messages, and a browser can use it from end to end."""

import builtins
import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from eval.demo import app
from eval.demo.__main__ import TINY
from eval.demo.app_session import FULL, DemoRequest, Session, as_text, method_file, methods_shown, settings_of, told
from eval.instruments.answering import applied
from holitom.methods import available_methods
from holitom.methods.holitom import HolitomOuter
from llava.errors import InputError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
needs_tiny = pytest.mark.skipif(not (TINY / "config.json").is_file(), reason="checkpoints/tiny is absent")
pytestmark = needs_tiny


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[list[str]]:
    return app.examples(tmp_path_factory.mktemp("samples") / "synthvid")


@pytest.fixture
def asked(samples) -> DemoRequest:
    return DemoRequest(samples[0][0], samples[0][1], frames=8, merge_layer=5, new_tokens=2)


def test_a_reply_is_the_record(session: Session, asked: DemoRequest, tmp_path: Path) -> None:
    built = []
    build = HolitomOuter.__init__

    def seen(outer, config) -> None:
        built.append(config)
        build(outer, config)

    with mock.patch.object(HolitomOuter, "__init__", seen):
        reply = session.ask(replace(asked, retain_ratio=0.25, similarity_threshold=0.7), tmp_path)
    assert [(config.retain_ratio, config.similarity_threshold) for config in built] == [(0.25, 0.7)]
    full, ours = reply.rows
    assert (full.name, ours.name) == (FULL, "holitom")
    assert full.tokens == (512, 512, 512)
    assert ours.tokens == (512, reply.per_layer[0], reply.per_layer[-1])
    assert len(reply.per_layer) == session.layers
    assert reply.per_layer[4] == ours.tokens[1] <= 0.25 * 512 + 12
    assert reply.per_layer[5] == ours.tokens[2] < ours.tokens[1]
    assert np.asarray(Image.open(reply.picture).convert("RGB")).std() > 10
    details = json.loads(as_text(reply))
    assert details["settings"]["outer"]["retain_ratio"] == 0.25
    assert details["visual_tokens_per_layer"] == reply.per_layer
    lines = told(reply)
    assert [line[:2] for line in lines] == [[FULL, full.answer], ["holitom", ours.answer]]
    assert lines[1][3].startswith(f"{ours.tokens[1]} (")
    assert session.model.visual_compressor is None


@pytest.mark.parametrize("method", sorted(available_methods()))
def test_every_method_of_the_registry(method: str, session: Session, asked: DemoRequest, tmp_path: Path) -> None:
    assert method in methods_shown()
    reply = session.ask(replace(asked, method=method), tmp_path)
    assert reply.settings["method"] == method
    assert reply.rows[1].tokens[2] < reply.rows[0].tokens[2]
    assert session.model.visual_compressor is None


def test_no_inner_stage(session: Session, asked: DemoRequest, tmp_path: Path) -> None:
    reply = session.ask(replace(asked, merge_layer=0), tmp_path)
    assert len(set(reply.per_layer)) == 1
    assert reply.settings["inner"] is None


def test_share_of_every_method_that_has_one() -> None:
    asked = DemoRequest("clip", "?", retain_ratio=0.2)
    assert settings_of(replace(asked, method="fastv"), 196) == ["prune_ratio=0.8"]
    assert settings_of(replace(asked, method="visionzip"), 196) == ["tokens_per_frame=39"]
    assert settings_of(replace(asked, method="random"), 196) == ["retain_ratio=0.2"]
    assert settings_of(replace(asked, method="pdrop"), 196) == []
    with pytest.raises(InputError, match="nonsense"):
        method_file("nonsense")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": None}, "there is no video"),
        ({"question": "  "}, "question is empty"),
        ({"question": "<image>?"}, "<image>"),
        ({"frames": 0}, "num_frames must be at least 1"),
        ({"retain_ratio": 0.0}, "retain_ratio = 0.0"),
        ({"similarity_threshold": 3.0}, "similarity_threshold"),
        ({"merge_layer": 8}, "merge_layer = 8 is out of range"),
        ({"method": "nonsense"}, "nonsense"),
        ({"video": "/no/such.mp4"}, "/no/such.mp4"),
    ],
)
def test_mistakes_are_told(session: Session, asked: DemoRequest, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        session.ask(replace(asked, **change), tmp_path)
    assert session.model.visual_compressor is None
    assert not session._lock.locked()


def test_the_model_is_clean_after_a_breakdown(session: Session, asked: DemoRequest, tmp_path: Path) -> None:
    before = session.ask(asked, tmp_path).rows[0].answer
    with (
        mock.patch.object(HolitomOuter, "__call__", side_effect=RuntimeError("it broke")),
        pytest.raises(RuntimeError, match="it broke"),
    ):
        session.ask(asked, tmp_path)
    assert session.model.visual_compressor is None
    assert not any(module._forward_pre_hooks for module in session.model.modules())
    assert session.ask(asked, tmp_path).rows[0].answer == before


def test_one_request_at_a_time(session: Session, asked: DemoRequest, tmp_path: Path) -> None:
    inside, most, errors = [0], [0], []

    class Watched:
        def __enter__(self) -> None:
            session_lock.acquire()
            inside[0] += 1
            most[0] = max(most[0], inside[0])

        def __exit__(self, *_) -> None:
            inside[0] -= 1
            session_lock.release()

    session_lock = threading.Lock()

    def ask(number: int) -> None:
        try:
            session.ask(asked, tmp_path / f"{number}")
        except Exception as error:
            errors.append(error)

    with mock.patch.object(session, "_lock", Watched()):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (errors, most) == ([], [1])


def test_without_gradio(monkeypatch, capsys) -> None:
    imported = builtins.__import__

    def missing(name: str, *rest):
        if name == "gradio":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    with pytest.raises(SystemExit) as stop:
        app.main([])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "pip install 'holitom[app]'" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "70000"], ["--port", "x"], ["--prot", "1"]])
def test_wrong_arguments(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        app.main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_taken_port() -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    with socket.socket() as taken:
        taken.bind((app.HOST, 0))
        taken.listen()
        with pytest.raises(InputError, match="name another one"):
            app.serve(None, taken.getsockname()[1], block=False)


@pytest.fixture(scope="module")
def address(session: Session, samples, tmp_path_factory) -> Iterator[str]:
    """The running app."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    with socket.socket() as probe:
        probe.bind((app.HOST, 0))
        port = probe.getsockname()[1]
    page = app.build_page(session, samples, tmp_path_factory.mktemp("app"))
    yield app.serve(page, port, block=False)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no browser is installed: chromium, chromium-browser or google-chrome")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def upload(page, path: str | Path) -> None:
    """Choose a video, in the place of one that is there."""
    clear = page.locator("#video button[aria-label='Clear']")
    if clear.count():
        clear.click()
    page.set_input_files("#video input[type=file]", str(path))
    page.wait_for_selector("#video video", timeout=60000, state="attached")


def ask(page, until: str) -> str:
    """Press the button and wait for a message that contains a text."""
    page.click("#ask")
    told = f"document.querySelector('#message textarea').value.includes({json.dumps(until)})"
    page.wait_for_function(told, timeout=120000)
    return str(page.input_value("#message textarea"))


def test_in_a_browser(browser, address: str, session: Session, asked: DemoRequest, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1800})
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#ask", timeout=120000)
    assert "learned rendered clips alone" in page.inner_text("body")
    upload(page, asked.video)
    page.fill("#question textarea", asked.question)
    ask(page, "answer")
    page.wait_for_selector("#map img", timeout=60000)
    shown = page.inner_text("#rows")
    reply = session.ask(asked, tmp_path)  # the page's own settings
    full, ours = reply.rows
    cells = shown.split()
    assert cells.count(full.answer) + cells.count(ours.answer) >= 2
    for row in reply.rows:
        assert row.name in shown
        assert f"{row.tokens[1]} ({row.tokens[1] / 512:.1%})" in shown
        assert str(row.tokens[2]) in cells
    assert page.evaluate("document.querySelector('#map img').naturalWidth") > 1000
    page.screenshot(path=tmp_path / "app.png", full_page=True)
    assert not errors
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    upload(page, broken)
    message = ask(page, "Not answered")
    assert "not a video file" in message
    upload(page, asked.video)
    assert "answer" in ask(page, "The ")
    assert f"{ours.tokens[1]} (" in page.inner_text("#rows")
    outside = [url for url in requests if not url.startswith((address, "data:", "blob:"))]
    assert not outside
    with applied(None, session.model):
        assert session.model.visual_compressor is None
    page.close()


def test_markup_in_a_question_stays_text(browser, address: str, asked: DemoRequest) -> None:
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("#ask", timeout=120000)
    upload(page, asked.video)
    page.fill("#question textarea", "<img src=x onerror=\"document.title='taken'\"> <image>")
    assert "<image>" in ask(page, "Not answered")
    assert page.title() != "taken"
    page.close()
