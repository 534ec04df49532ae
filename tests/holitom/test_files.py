"""Files and folders that several processes put in one place."""

from pathlib import Path

import pytest

from holitom.files import part_of, place_folder, whole_file


def test_two_may_write_one_file_at_once(tmp_path: Path) -> None:
    """The later one stays, whole; with one name for both parts, the first to end would take the other's."""
    path = tmp_path / "file"
    with whole_file(path) as first:
        first.write_text("first")
        with whole_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_folders_the_earlier_stays(tmp_path: Path) -> None:
    for text in ("first", "second"):
        part = part_of(tmp_path / "folder")
        part.mkdir()
        (part / "file").write_text(text)
        place_folder(part, tmp_path / "folder")
    assert (tmp_path / "folder" / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_folder_that_cannot_be_placed_is_an_error(tmp_path: Path) -> None:
    part = part_of(tmp_path / "folder")
    part.mkdir()
    with pytest.raises(FileNotFoundError):
        place_folder(part, tmp_path / "absent" / "folder")
    assert not part.exists()
