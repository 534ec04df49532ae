"""Every shipped row is served or refused for a reason, and the row that a refusal names works."""

import re

import pytest

from holitom.serving.served_methods import served_method
from holitom.settings import load_config
from holitom.shipped import config_names
from llava.errors import InputError

MODELS = ("llava_onevision_0.5b", "llava_onevision_7b", "llava_onevision_72b", "llava_video_7b", "tiny")
ROWS = [name for name in config_names() if name.startswith(MODELS)]
# Methods by where they act, from their papers: written down here, not asked of the code.
BEFORE = {"uniform", "random", "visionzip", "vidcom2"}
INSIDE = {"fastv", "pdrop", "flashvid"}
IN_PLACE = {"evs", "fastvid"}


def expected(name: str) -> str:
    """``served``, ``inside`` or ``positions``."""
    config = load_config(name)
    if config.method is None or config.method in BEFORE:
        return "served"
    if (
        config.method in INSIDE
        or getattr(config.compressor, "inner", None)
        or getattr(config.compressor, "decode", None)
    ):
        return "inside"
    return "positions" if config.method in IN_PLACE else "served"


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_served_or_refused(name: str) -> None:
    kind = expected(name)
    if kind == "served":
        assert served_method(name).num_frames == load_config(name).model.num_frames
        return
    with pytest.raises(InputError) as refused:
        served_method(name)
    message = str(refused.value)
    assert message.startswith(name)
    assert ("inside the LLM" if kind == "inside" else "without gaps") in message
    row = re.search(r"use (holitom_without_inner_r\d\d)", message)
    assert row is not None
    ratio = re.search(r"_r(\d\d)$", name)
    assert ratio is None or row[1].endswith(ratio[0])
    works = served_method(f"llava_onevision_7b/{row[1]}")
    assert works.compressor is not None
    assert works.compressor.inner is None


def test_there_are_rows_of_all_kinds() -> None:
    kinds = [expected(name) for name in ROWS]
    assert {kind: kinds.count(kind) > 5 for kind in ("served", "inside", "positions")} == dict.fromkeys(
        ("served", "inside", "positions"), True
    )


def test_a_refusal_says_which_setting_would_do() -> None:
    with pytest.raises(InputError, match="or holitom with inner = null"):
        served_method({"method": "holitom", "outer": {}, "inner": {}})


def test_settings_compress_alike_under_equal_keys() -> None:
    row = served_method("tiny/uniform_r15")
    assert row.key == served_method({"method": "uniform", "retain_ratio": 0.15}).key
    assert row.key != served_method({"method": "uniform", "retain_ratio": 0.2}).key
    assert served_method(None).compressor is None


@pytest.mark.parametrize("method", ["no/such_row", {"method": "nothing"}, {"retain_ratio": 0.1}])
def test_what_is_no_method_is_refused(method: object) -> None:
    with pytest.raises(InputError):
        served_method(method)  # type: ignore[arg-type]
