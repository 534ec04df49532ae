"""Write the trained model as a checkpoint in the published layout.

python -m eval.synthetic.training.export outputs/tiny checkpoints/tiny
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.models.random_checkpoint import write_checkpoint
from eval.synthetic.training.card import card
from eval.synthetic.training.model import learned_config
from eval.synthetic.training.stages import STAGES, Stage
from llava.errors import InputError

_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


def export(root: Path, folder: Path, stages: Sequence[Stage] = STAGES) -> Path:
    """Write the last stage's weights in float16 with configuration, tokenizer and model card.

    Args:
        root: folder of the stages.
        folder: the checkpoint to make.
        stages: of the recipe.

    Raises:
        InputError: if a stage is not done.
    """
    for stage in stages:
        if not (root / stage.name / "done.json").exists():
            raise InputError(f"stage {stage.name} is not done in {root}: run scripts/train_tiny.sh first")
    state = torch.load(root / stages[-1].name / "state.pt", map_location="cpu")["model"]
    folder.mkdir(parents=True, exist_ok=True)
    config = learned_config(state["model.embed_tokens.weight"].shape[0])
    write_checkpoint(folder, {name: tensor.half() for name, tensor in state.items()}, {**config, "dtype": "float16"})
    for name in _TOKENIZER_FILES:
        shutil.copyfile(root / "tokenizer" / name, folder / name)
    parameters = sum(tensor.numel() for name, tensor in state.items() if name != "lm_head.weight")  # it is tied
    (folder / "README.md").write_text(card(root, parameters, stages))
    return folder


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("stages", type=Path, help="folder of the training's stages")
    parser.add_argument("folder", type=Path, help="the checkpoint to write")
    options = parser.parse_args(arguments)
    path = export(options.stages, options.folder)
    megabytes = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    print(json.dumps({"checkpoint": str(path), "megabytes": round(megabytes, 2), **provenance()}))


if __name__ == "__main__":
    main()
