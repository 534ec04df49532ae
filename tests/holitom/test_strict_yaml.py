"""YAML as configurations, grids and command lines are read: the values of YAML 1.2, and one line for all else."""

import json
import math
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.benchmarks.lmms.settings import assignments
from holitom import load_config
from holitom.settings import parse_config
from holitom.strict_yaml import parse_yaml, read_yaml, written
from llava.errors import InputError

BOMB = "&a [x,x,x,x,x,x,x,x,x,x]" + "".join(
    f", &{name} [{','.join(['*' + before] * 10)}]" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("016", 16),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("-3", -3),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("2.", 2.0),
        ("-.inf", -math.inf),
        ("no", "no"),
        ("On", "On"),
        ("True", True),
        ("~", None),
        ("", None),
        ("2024-01-02", "2024-01-02"),
        ("'0.2'", "0.2"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("!!int 7", 7),
        ("{a: [1, {b: c}]}", {"a": [1, {"b": "c"}]}),
        ("{base: &b {x: 1, y: 2}, own: {<<: *b, y: 3}}", {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}}),
        ("{own: {y: 3, <<: [{y: 4, z: 5}, {z: 6}]}}", {"own": {"y": 3, "z": 5}}),
    ],
)
def test_values(text: str, value: object) -> None:
    """By the specification's core schema; a merged key may be overridden, wherever the override stands."""
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_one() -> None:
    assert math.isnan(parse_yaml(".nan"))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.from_regex(r"[a-z_.]{1,8}", fullmatch=True), inner),
    max_leaves=12,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])  # on a machine that does other things
@given(PLAIN)
def test_what_is_written_is_read_back(value: object) -> None:
    """Canonical texts, and PyYAML's own block style of the same value."""

    def same(found: object) -> bool:
        return json.dumps(found, sort_keys=True) == json.dumps(value, sort_keys=True)

    if "Infinity" not in json.dumps(value):
        assert same(parse_yaml(written(value)))
    if isinstance(value, dict):
        assert same(parse_yaml(yaml.safe_dump(value, default_style='"' if not value else None)))


def test_infinity_is_written() -> None:
    assert [parse_yaml(written(value)) for value in (math.inf, -math.inf)] == [math.inf, -math.inf]
    assert math.isnan(parse_yaml(written(math.nan)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{a: 1, b: 2, a: 3}", "key a stands twice .line 1, column 14"),
        ("{'a': 1, a: 3}", "key a stands twice"),
        ("{<<: {x: 1}, <<: {y: 1}}", "key << stands twice"),
        ("<<: 1", "must be a mapping"),
        ("!!float abc", "no float"),
        ("!!int 1.5", "no int"),
        ("!!bool 'yes'", "no bool"),
        ("!!timestamp 2024-01-02", "tag 'tag:yaml.org,2002:timestamp'"),
        ("!!python/object/apply:os.system [ls]", "is not read"),
        ("!!set {a, b}", "is not read"),
        ("9" * 20, "20 digits"),
        ("9" * 5000, "5000 digits"),
        ("0x" + "f" * 400, "400 digits"),
        ("!!int " + "9" * 5000, "5000 digits"),
        ("[" * 100 + "]" * 100, "deeper than 32"),
        ("[" * 30_000, "deeper than 32"),
        ("\n".join(" " * level + "a:" for level in range(100)), "deeper than 32"),
        ("&a [*a]", "deeper than 32|more than 10000"),
        (f"[{BOMB}]", "more than 10000 values"),
        ("a" * 70_000, "too long"),
        ("[1,", "no readable YAML"),
        ("a: b: c", "no readable YAML"),
        ("*unknown", "no readable YAML"),
        ("a\0b", "no readable YAML"),
        ('"\\UFFFFFFFF"', "no readable YAML"),
        ("%YAML 1." + "9" * 5000 + "\n--- a", "no readable YAML"),
        ("--- a\n--- b", "no readable YAML"),
        ("{1: a}", "a key .* is no text"),
        ("{[a]: b}", "a key .* is no text"),
        ('{"a\\nb": 1}', "no name"),
    ],
    ids=lambda value: value[:24],
)
def test_what_is_refused(text: str, words: str) -> None:
    """Also by every reader that is built on it; in one short line and at once."""
    before = time.process_time()
    with pytest.raises(InputError, match=words) as error:
        parse_yaml(text)
    for read in (lambda: assignments([f"key={text}"]), lambda: override(text)):
        with pytest.raises(InputError) as other:
            read()
        assert len(str(other.value)) < 700
        assert "\n" not in str(other.value)
    assert time.process_time() - before < 2
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def override(text: str) -> None:
    load_config("configs/tiny/holitom_r25.yaml", [f"outer.retain_ratio={text}"])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "absent.yaml")
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe\x00a")
    for each in (tmp_path, path):
        with pytest.raises(InputError, match="no readable YAML"):
            read_yaml(each)


@pytest.mark.parametrize("text", ["0", "false", "[]", "''", "3"])
def test_a_model_that_is_no_mapping(text: str) -> None:
    with pytest.raises(InputError, match=r"model = .* is not a mapping"):
        parse_config(parse_yaml(f"model: {text}\ncompressor: null"))


def test_a_model_left_empty_has_defaults() -> None:
    assert parse_config(parse_yaml("model:\ncompressor:")) == parse_config({})


@pytest.mark.parametrize("value", [10**400, 10**5000, True, "0.2"], ids=["400", "5000", "bool", "str"])
def test_numbers_that_no_float_holds(value: object) -> None:
    """Also where a caller passes them without any YAML."""
    with pytest.raises(InputError) as error:
        parse_config({"compressor": {"method": "uniform", "retain_ratio": value}})
    assert len(str(error.value)) < 300
