"""Muon: momentum whose matrices are made orthogonal, for the convolutions; the rest of a network by SGD.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon), with the
decoupled weight decay of Liu et al. 2025, "Muon is scalable for LLM training" (arXiv 2502.16982). `torch.optim.Muon` takes
2-D parameters only and nothing by SGD; a convolution's weight in channels_last has no 2-D view in its own order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
"""Jordan's quintic and number of iterations: singular values end between .7 and 1.2, which serves as well as 1."""


class Muon(torch.optim.SGD):
    """SGD with Nesterov momentum, but for groups with `orthogonal` set, whose parameters are O x I x h x w or O x I.

    Those are moved along the nearest semi-orthogonal matrix O x (I h w) to their momentum, times sqrt(O / (I h w)) where that is
    above 1, and shrink by rate x `weight_decay` a step whatever their gradient is.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float) -> None:
        super().__init__([{"orthogonal": False, **group} for group in groups], lr=lr, momentum=momentum, nesterov=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; it consumes the gradients of the matrices, which SGD would follow otherwise."""
        for group in self.param_groups:
            if group["orthogonal"]:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._move(weight, group)
                        weight.grad = None
        loss: float | None = super().step(closure)
        return loss

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        gradient = weight.grad
        momentum = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
        momentum.mul_(group["momentum"]).add_(gradient)
        direction = orthogonal((gradient + group["momentum"] * momentum).flatten(1))
        rows, columns = direction.shape
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction.view_as(weight), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix, in float32, by Newton and Schulz's iteration in bfloat16."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.T if tall else x
    return result.float()


def hidden_convolutions(network: nn.Module) -> list[Tensor]:
    """Weights of all convolutions that mix channels, and so not of the first one, of depthwise ones, or of a head."""
    modules = [module for name, module in network.named_modules() if name != "head" and isinstance(module, nn.Conv2d)]
    return [module.weight for module in modules if module.weight.shape[1] > 1]
