"""Muon for the matrices, AdamW for the rest, one schedule for both."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from eval.synthetic.training.model import matrices

_CLIP = 1.0


def trapezoid(steps: int, warmup: int, decay: float) -> Callable[[int], float]:
    """Factor on the rate by step: up over ``warmup`` steps, flat, down to a fiftieth over the last share ``decay``.

    It is asked for ``steps`` itself, too: the schedule looks one step ahead.
    """

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup)
        flat = decay == 0 or step < (1 - decay) * steps
        return rise * (1.0 if flat else max(0.02, (steps - step) / (decay * steps)))

    return factor


class Optimizers:
    """Both optimizers of a stage; embeddings and vectors learn at ``vectors`` times the matrices' rate."""

    def __init__(
        self, modules: Iterable[nn.Module | nn.Parameter], rate: float, vectors: float, factor: Callable[[int], float]
    ) -> None:
        modules = list(modules)
        whole = [module for module in modules if isinstance(module, nn.Module)]
        hidden = [weight for module in whole for weight in matrices(module)]
        known = {id(weight) for weight in hidden}
        others = [p for module in whole for p in module.parameters() if id(p) not in known]
        others += [p for p in modules if isinstance(p, nn.Parameter)]
        self.parameters = [*others, *hidden]
        self.both: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.AdamW(others, lr=rate * vectors, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.Muon(hidden, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        )
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(each, factor) for each in self.both]

    def step(self, loss: torch.Tensor) -> None:
        """Backward pass, clipping, one step of each."""
        for each in self.both:
            each.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, _CLIP)
        for each, schedule in zip(self.both, self.schedules, strict=True):
            each.step()
            schedule.step()

    def state(self) -> dict:
        """To continue from."""
        return {
            "both": [each.state_dict() for each in self.both],
            "schedules": [each.state_dict() for each in self.schedules],
        }

    def load(self, state: dict) -> None:
        """Continue from a state."""
        for each, saved in zip(self.both, state["both"], strict=True):
            each.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
