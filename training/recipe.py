"""A recipe: all hyperparameters of a training, read from a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from batchemo.emotion.model import NetworkSpec, current_fields
from batchemo.errors import DataError
from batchemo.records import EMOTIONS

PRECISIONS = ("auto", "bf16", "float32")
METHODS = ("teacher_share", "mirror_weight")
"""Optional methods of a recipe. Weights files name those that are not 0."""

RECIPES = Path(__file__).parent / "recipes"

_RETIRED = {"optimizer": "sgd", "muon_rate": 0.02, "muon_decay": 0.1, "unseen_share": 0.0, "sharpness_radius": 0.0}
"""Keys of methods that lost (RESULTS.md), with the values that turned them off. Older checkpoints hold them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Augmentation:
    """Strength of each random change (`training.data.augmentation`): probabilities, fractions of the side, or ranges."""

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
    jpeg: float = 0.0
    jpeg_quality: tuple[int, int] = (15, 60)
    mixup_alpha: float = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of a training. Pictures grow through `sizes` (sides in px), each for its share of the epochs (`size_shares`)."""

    epochs: int = 50
    batch_size: int = 128
    seed: int = 0
    precision: str = "auto"
    """"bf16" mixes bfloat16 and float32; "auto" does so where the device supports bfloat16 natively. Weights are always float32."""
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 3.0
    label_smoothing: float = 0.1
    votes_share: float = 0.0
    """Share of P(label | FER+ votes) in the target; the rest is the label."""
    votes_weight: float = 0.0
    """Weight of the loss of an auxiliary head, which predicts the votes during training."""
    teacher_share: float = 0.0
    """Distillation: share of the teachers' probabilities in the target (`training.fit.targets`)."""
    mirror_weight: float = 0.0
    """Weight of the divergence between the predictions of a picture and its mirror image. Above 0 both are learnt, at twice the cost."""
    mirror_apart: bool = False
    """With `mirror_weight`: the mirror image gets a random augmentation of its own."""
    ema_decay: float = 0.999
    sizes: tuple[int, ...] = (32, 40, 48)
    size_shares: tuple[float, ...] = (0.35, 0.35, 0.3)
    plain_share: float = 0.15
    """Share of the epochs, at the end, without mixup."""
    network: NetworkSpec = dataclasses.field(default_factory=NetworkSpec)
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.size_shares) or abs(sum(self.size_shares) - 1) > 1e-6:
            raise ValueError("size_shares must be as many as sizes and sum to 1")
        if self.epochs < 1 or self.batch_size < 2 or self.learning_rate <= 0:
            raise ValueError("epochs must be 1 or more, batch_size 2 or more, learning_rate above 0")
        if not 0 <= self.votes_share <= 1 or self.votes_weight < 0:
            raise ValueError("votes_share must be 0 to 1, votes_weight 0 or more")
        if self.mirror_weight < 0:
            raise ValueError("mirror_weight must be 0 or more")
        if self.mirror_apart and (not self.mirror_weight or self.augmentation.mixup_alpha):
            raise ValueError("mirror_apart needs a mirror_weight above 0 and mixup_alpha = 0")
        if not 0 <= self.teacher_share <= 1:
            raise ValueError("teacher_share must be 0 to 1")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, not {self.precision!r}")

    @property
    def needs_votes(self) -> bool:
        return self.votes_share > 0 or self.votes_weight > 0

    def size_px(self, epoch: int) -> int:
        """Side of the pictures in `epoch` (from 0)."""
        reached = 0.0
        for size, share in zip(self.sizes, self.size_shares, strict=True):
            reached += share * self.epochs
            if epoch < round(reached):
                return size
        return self.sizes[-1]


def read_recipe(path: Path) -> Recipe:
    """Raises DataError if the file is no recipe; for an unknown key it suggests the closest one."""
    return build_recipe(read_values(path), path)


def read_values(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises DataError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the recipe ({error.strerror}); there are some in {RECIPES}/*.toml") from error
    except ValueError as error:
        raise DataError(f"{path}: not TOML ({error})") from error


def build_recipe(values: dict[str, Any], path: Path) -> Recipe:
    """A recipe of `values`, which were read from `path`. Raises DataError as `read_recipe` does."""
    try:
        recipe: Recipe = _build(Recipe, values, str(path))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    if recipe.network.classes != len(EMOTIONS):
        raise DataError(f"{path}: classes must be {len(EMOTIONS)}, the emotions of FER2013, not {recipe.network.classes}")
    return recipe


def check_keys(values: Iterable[str], names: Sequence[str], where: str) -> None:
    """Raises DataError for a key that is not one of `names`, and suggests the closest one."""
    for key in values:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(names)}"
            raise DataError(f"{where}: unknown key {key!r}; {hint}")


def to_toml(recipe: Recipe) -> str:
    """The text of a file that `read_recipe` reads."""
    tables: dict[str, dict[str, Any]] = {"": dataclasses.asdict(recipe)}
    tables |= {name: value for name, value in tables[""].items() if isinstance(value, dict)}
    parts = []
    for name, table in tables.items():
        # JSON writes numbers, texts and lists as TOML does.
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
        parts.append("\n".join([f"[{name}]", *lines] if name else lines))
    return "\n\n".join(parts) + "\n"


def complete_recipe(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored recipe as `dataclasses.asdict` gives it today.

    Missing keys get their defaults. Retired keys are dropped if their method was off; otherwise they stay, and the recipe equals no current
    one.
    """
    defaults = dataclasses.asdict(Recipe())
    kept = {key: value for key, value in stored.items() if key not in _RETIRED or value != _RETIRED[key]}
    nested = {key: value | stored.get(key, {}) for key, value in defaults.items() if isinstance(value, dict)}
    nested["network"] = current_fields(nested["network"])
    return defaults | kept | nested


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    defaults = kind()
    names = [field.name for field in dataclasses.fields(kind)]
    built: dict[str, Any] = {}
    check_keys(values, names, where)
    for key, value in values.items():
        default = getattr(defaults, key)
        if dataclasses.is_dataclass(default) and isinstance(value, dict):
            built[key] = _build(type(default), value, f"{where} [{key}]")
        elif _alike(value, default):
            built[key] = tuple(value) if isinstance(value, list) else value
        else:
            raise DataError(f"{where}: {key} cannot be {value!r}; the default is {default!r}")
    return kind(**built)


def _alike(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list) and bool(value) and all(_alike(item, default[0]) for item in value)
    wanted = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, wanted) and isinstance(value, bool) == isinstance(default, bool)
