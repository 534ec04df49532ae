"""Settings of this project's stage inside the tower, a frozen dataclass; its defaults live here and nowhere else."""

from dataclasses import dataclass, field
from typing import Literal

from holitom.checks import require_integer, require_one_of, require_within
from holitom.hooks.tower.frame_merging import require_tower_layers

MovingRule = Literal["first", "mean"]


@dataclass(frozen=True)
class TowerConfig:
    """Merging of frames inside the vision tower: an extension of this project, which the paper does not have.

    The defaults are what an ablation on the learned tiny model chose (``results/tiny/tradeoff_tower.json``): early,
    since a later layer saves less and keeps no more answers, and only where nearly everything stands still. There it
    costs no answers that can be shown at 15 % of the tokens and less, but 7 to 8 points at 20 and 25 %, where more of
    a moving frame would have been kept (``results/tiny/tradeoff.json``).

    Attributes:
        layers: indices of the tower layers behind which frames are merged, ascending, at least one.
        similarity_threshold: cosine similarity above which a patch stands still between two frames.
        static_share: share of the patches that must stand still over all frames of a group, in (0, 1].
        max_frames: most frames that one layer merges into one.
        moving_rule: what a merged frame shows where patches do not stand still: ``"first"`` those of its first frame,
            ``"mean"`` the mean of all frames. Patches that stand still are averaged, as the outer stage's tokens are.
    """

    layers: list[int] = field(default_factory=lambda: [6])
    similarity_threshold: float = 0.80
    static_share: float = 0.9
    max_frames: int = 8
    moving_rule: MovingRule = "first"

    def __post_init__(self) -> None:
        require_tower_layers("tower.layers", self.layers, [6])
        tau, share, most = self.similarity_threshold, self.static_share, self.max_frames
        require_within("tower.similarity_threshold", tau, "[-1, 1]", "use 0.80, as before the LLM")
        require_within("tower.static_share", share, "(0, 1]", "use 0.9")
        require_integer("tower.max_frames", most, 2, "use 8")
        require_one_of("tower.moving_rule", self.moving_rule, MovingRule, "the default is first")
