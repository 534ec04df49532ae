"""Token maps on the page: pictures that lie among the results and saved records that are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from eval.report.__main__ import make_page
from eval.report.page.sources import read_sources
from holitom.record.saved import SavedRecord, SavedVideo
from holitom.record.saving import save_record
from tests.eval.benchmarks.made_results import share, write_run
from tests.eval.report.page.made import HOSTILE, MODEL, Page, built


def saved(path: Path, **meta: str) -> None:
    kinds, rows = np.ones((2, 4), dtype=np.int8), np.arange(8).reshape(2, 4)
    video = SavedVideo(kinds, rows, np.arange(8), np.array([[0, 1]]))
    save_record(SavedRecord((video,), {}), path, **meta)


def maps(page: Page) -> list[dict[str, str | None]]:
    """The pictures of the page that are no charts."""
    return [found for tag, found in page.tags if tag == "img" and "plot" not in str(found.get("class"))]


def test_saved_records_and_pictures_become_token_maps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"{MODEL}/vanilla", {"videomme": share(2, 1)}, fixture=True,
                    samples=lambda found: found[1].update(record="records/videomme-1.npz"))  # fmt: skip
    saved(run / "records" / "videomme-1.npz", method="holitom", question=HOSTILE)
    (tmp_path / "token_maps").mkdir()
    Image.new("RGB", (2000, 30), (1, 2, 3)).save(tmp_path / "token_maps" / "made.png")
    Image.new("RGB", (20, 30)).save(tmp_path / "other.png")
    page, sources = built(tmp_path)
    assert not sources.problems
    said = ["Token map token_maps/made.png", f"method: holitom; question: {HOSTILE}"]
    assert [found["alt"] for found in maps(page)] == said
    widths = [int(found["width"] or 0) for found in maps(page)]
    assert widths[0] == 1400
    [browser] = page.data["browser-data"]
    assert browser["runs"]["vanilla"]["maps"] == [None, "map-2"]
    assert "map-2" in page.ids
    few, _ = make_page(read_sources(tmp_path), 1)
    assert [found["alt"] for found in maps(Page(few))] == ["Token map token_maps/made.png"]
