"""A recipe: every hyperparameter of a training, from a TOML file whose keys are checked."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from pathlib import Path
from typing import Any

from batchemo.errors import DataError
from batchemo.network import NetworkSpec

RECIPES = Path(__file__).parent / "recipes"


@dataclasses.dataclass(frozen=True, slots=True)
class Augmentation:
    """Strength of each random change; see `training.augmentation`. Probabilities, shares of the side, or ranges."""

    flip: float = 0.5
    rotation_degrees: float = 15.0
    scale: float = 0.2
    shift: float = 0.1
    brightness: float = 0.3
    contrast: float = 0.3
    gamma: float = 0.3
    erase: float = 0.5
    erase_area: tuple[float, float] = (0.02, 0.2)
    low_resolution: float = 0.15
    low_resolution_px: tuple[int, int] = (20, 36)
    mixup_alpha: float = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of `fit`. `sizes` are the sides in px that pictures grow through, `size_shares` their share of the epochs."""

    epochs: int = 50
    batch_size: int = 128
    seed: int = 0
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 3.0
    label_smoothing: float = 0.1
    ema_decay: float = 0.999
    sizes: tuple[int, ...] = (32, 40, 48)
    size_shares: tuple[float, ...] = (0.35, 0.35, 0.3)
    plain_share: float = 0.15
    """Share of the epochs at the end that train without mixup."""
    network: NetworkSpec = dataclasses.field(default_factory=NetworkSpec)
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.size_shares) or abs(sum(self.size_shares) - 1) > 1e-6:
            raise DataError("size_shares must be as many as sizes and sum to 1")

    def size_px(self, epoch: int) -> int:
        """Side of the pictures in `epoch`, counted from 0."""
        reached = 0.0
        for size, share in zip(self.sizes, self.size_shares, strict=True):
            reached += share * self.epochs
            if epoch < round(reached):
                return size
        return self.sizes[-1]


def read_recipe(path: Path) -> Recipe:
    """Raises DataError for a file that is no recipe, naming the key that was probably meant."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the recipe ({error.strerror}); those that come along: {RECIPES}/*.toml") from error
    except ValueError as error:
        raise DataError(f"{path}: not TOML ({error})") from error
    try:
        return _build(Recipe, values, str(path))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(fields)}"
            raise DataError(f"{where}: unknown key {key!r}; {hint}")
    nested = {"network": NetworkSpec, "augmentation": Augmentation}
    built = {}
    for key, value in values.items():
        if isinstance(value, dict) and key in nested:
            built[key] = _build(nested[key], value, f"{where} [{key}]")
        else:
            built[key] = tuple(value) if isinstance(value, list) else value
    return kind(**built)
