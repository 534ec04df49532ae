"""SigLIP's attention-pooling head, which LLaVA checkpoints leave out: one vector and one saliency map per frame."""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from holitom.errors import CheckpointError
from holitom.runtime import require_runtime

_PROBE = "head.probe"
_FRAMES_PER_PASS = 16  # 16 frames of so400m take about 0.2 GB in float32


class PoolingHead:
    """Post-layernorm and attention-pooling head of a SigLIP tower, in float32.

    Args:
        path: a safetensors file with ``post_layernorm.*`` and ``head.*`` under the names of transformers, with or
            without a prefix such as ``vision_model.``; other tensors in it are not read.
        heads: attention heads of the pooling head.

    Raises:
        CheckpointError: if the file cannot be read, or tensors are missing or of the wrong shape.
    """

    def __init__(self, path: str | Path, heads: int) -> None:
        from transformers import SiglipVisionConfig  # noqa: PLC0415
        from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead  # noqa: PLC0415

        tensors = _read_tensors(Path(path))
        width, inner = tensors[_PROBE].shape[-1], tensors["head.mlp.fc1.weight"].shape[0]
        if width % heads:
            raise CheckpointError(
                f"{str(path)!r} holds a head of width {width}, which {heads} attention heads do not divide: set "
                "head_heads to the heads of its tower, 16 for siglip-so400m"
            )
        config = SiglipVisionConfig(hidden_size=width, intermediate_size=inner, num_attention_heads=heads)
        self.width = width
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.head = SiglipMultiheadAttentionPoolingHead(config)
        modules = nn.ModuleDict({"post_layernorm": self.norm, "head": self.head})
        wanted = modules.state_dict()
        wrong = [name for name, tensor in wanted.items() if name in tensors and tensors[name].shape != tensor.shape]
        missing = [name for name in wanted if name not in tensors]
        if wrong or missing:
            problem = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(wrong)} of the wrong shape"
            raise CheckpointError(f"{str(path)!r} {problem}: take all post_layernorm and head tensors of one SigLIP")
        used = {name: tensors[name].float() for name in wanted}
        require_runtime()
        from llava.model.weight_checks import check_values, summaries  # noqa: PLC0415 # ours, and checked to be

        check_values(summaries(used.items()), str(path))
        modules.load_state_dict(used)
        modules.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self, hidden: Float[Tensor, "frames patches width"]
    ) -> tuple[Float[Tensor, "frames width"], Float[Tensor, "frames patches"]]:
        """Pool the output of the tower's last layer.

        Args:
            hidden: features before the post-layernorm, in any floating dtype.

        Returns:
            The pooled vector of every frame, and the attention of the probe to every patch, averaged over heads; both
            float32.

        Raises:
            CheckpointError: if the head belongs to a tower of another width.
        """
        if hidden.shape[-1] != self.width:
            raise CheckpointError(
                f"head_weights hold a head of width {self.width}, the tower's output has {hidden.shape[-1]}: take the "
                "head of the tower that the checkpoint uses"
            )
        norm, head = self.norm.to(hidden.device), self.head.to(hidden.device)
        seen: list[Tensor] = []

        def see_weights(attention: nn.Module, args: tuple, output: tuple) -> None:
            seen.append(output[1][:, 0])

        with head.attention.register_forward_hook(see_weights):
            pooled = [head(norm(frames.float())) for frames in hidden.split(_FRAMES_PER_PASS)]
        return torch.cat(pooled), torch.cat(seen)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The head's tensors of a file by their names without prefix."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            probes = [name for name in names if name == _PROBE or name.endswith(f".{_PROBE}")]
            if len(probes) != 1:
                raise CheckpointError(
                    f"{str(path)!r} has {len(probes)} tensors called {_PROBE}: give the weights of one SigLIP tower "
                    "with its pooling head"
                )
            prefix = probes[0].removesuffix(_PROBE)
            parts = (prefix + "post_layernorm.", prefix + "head.")
            tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in names if name.startswith(parts)}
    except FileNotFoundError:
        raise CheckpointError(
            f"there is no file {str(path)!r} of head_weights: give a safetensors file, or null to do without"
        ) from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{str(path)!r} is no readable safetensors file: {error}") from None
    if "head.mlp.fc1.weight" not in tensors:
        raise CheckpointError(f"{str(path)!r} lacks head.mlp.fc1.weight: take all head tensors of one SigLIP")
    return tensors
