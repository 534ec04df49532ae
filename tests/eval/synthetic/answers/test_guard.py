"""The parts of the guard that need no trained model: its bounds, and that each fault is the fault it says."""

import numpy as np
import pytest
import torch

from holitom.encoded_video import EncodedVideo
from holitom.methods.holitom import HolitomOuter
from holitom.methods.holitom.config import OuterConfig
from llava.errors import InputError
from tests.eval.synthetic.answers.faults import FAULTS, band
from tests.references.outer import structured_video


def compress():
    features, attention = map(torch.from_numpy, structured_video(0, 8, 16, 8, cut_every=4))
    return HolitomOuter(OuterConfig(0.25, 0.8))(EncodedVideo(features, {"received_attention": attention})), features


def test_every_fault_changes_what_is_kept_and_goes_when_it_is_done():
    right, _ = compress()
    for inject in FAULTS.values():
        with inject():
            wrong, _ = compress()
            again, _ = compress()
        assert not torch.equal(wrong.features, right.features)
        assert torch.equal(wrong.features, again.features), "a fault must be the same every time"
        assert torch.equal(compress()[0].features, right.features)


def test_shuffled_attention_keeps_other_tokens_of_the_same_segments():
    right, _ = compress()
    with FAULTS["shuffled_attention"]():
        wrong, _ = compress()
    assert wrong.details.segments == right.details.segments
    assert len(wrong.index) == len(right.index)
    assert not torch.equal(wrong.index, right.index)


def test_random_cuts_are_a_segmentation():
    right, _ = compress()
    with FAULTS["random_cuts"]():
        wrong, _ = compress()
    segments = wrong.details.segments
    assert segments != right.details.segments
    assert [first for first, _ in segments[1:]] == [last + 1 for _, last in segments[:-1]]
    assert (segments[0][0], segments[-1][1]) == (0, 7)


def test_wrong_positions_are_the_same_tokens_in_another_order():
    right, _ = compress()
    with FAULTS["wrong_positions"]():
        wrong, _ = compress()
    assert torch.equal(wrong.index, right.index)
    rows = sorted(map(tuple, np.round(wrong.features.numpy(), 6).tolist()))
    assert rows == sorted(map(tuple, np.round(right.features.numpy(), 6).tolist()))
    assert not torch.equal(wrong.features, right.features)


def test_the_band_ends_half_way_to_the_weakest_fault():
    assert band(4, {"a": 20, "b": 12}) == (0, 8)
    assert band(0, {"a": 60}) == (-8, 8)
    assert band(29, {"a": 35, "b": 14}) == (26, 32)  # a fault that saves answers counts as well
    assert band(2, {}) == (-6, 10)
    with pytest.raises(InputError, match="b loses 9 answers, 4 are lost without it"):
        band(4, {"a": 60, "b": 9})
