"""Fitting a network by a recipe: resumable after every epoch, and repeatable from its seed."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from batchemo.atomic import replacing
from batchemo.classify import has_bfloat16
from batchemo.errors import DataError
from batchemo.network import ExpressionNet
from training.augmentation import augment, mix, resize
from training.dataset import VOTES, FaceSet
from training.growing import grown
from training.recipe import Recipe, complete
from training.teachers import Teachers
from training.votes import label_probabilities, vote_shares

CHECKPOINT = "checkpoint.pt"
LOG = "epochs.csv"

_VALIDATE_EVERY = 4
_LOG_FIELDS = ("epoch", "size_px", "learning_rate", "loss", "validation_accuracy", "seconds")


@dataclasses.dataclass(frozen=True, slots=True)
class Epoch:
    """How one epoch went; `validation_accuracy` (of the averaged weights, at `size_px`) is NaN where it was not measured."""

    epoch: int
    size_px: int
    learning_rate: float
    loss: float
    validation_accuracy: float
    seconds: float


def fit(
    recipe: Recipe,
    faces: FaceSet,
    *,
    validation: FaceSet | None,
    folder: Path,
    device: torch.device,
    report: Callable[[Epoch], None],
    start: ExpressionNet | None = None,
    teachers: Sequence[ExpressionNet] = (),
) -> ExpressionNet:
    """Trains on `faces` and returns the network with averaged weights of the last epoch, on the CPU.

    After each epoch the whole state is written to `folder`; called again with the same recipe, it goes on from there and
    ends with the same weights as if it had never stopped. No epoch is picked: `validation` only informs. With `start` its
    weights are the first ones, instead of random ones; where the recipe's network is larger, it grows (`training.growing`).
    `teachers` are networks for a recipe with a `teacher_share`.
    Raises DataError where `folder` holds the checkpoint of another recipe, of other pictures, first weights or teachers, where the recipe
    wants teachers that are not given, where there are too few pictures for a batch, and where the loss is no longer a number.
    """
    if len(faces) < recipe.batch_size:
        raise DataError(f"{len(faces)} pictures do not fill one batch of {recipe.batch_size}; lower batch_size in the recipe")
    lessons = _lessons(recipe, faces)
    guides = _guides(recipe, teachers, device)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = ExpressionNet(recipe.network).to(device).to(memory_format=torch.channels_last)
    if start is not None:
        try:
            network.load_state_dict(grown(start, recipe.network).state_dict())
        except ValueError as error:
            raise DataError(f"{error}: those are of {start.spec}, the recipe of {recipe.network}") from error
    averaging = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)
    fitted = cast(ExpressionNet, average.module)
    vote_head = nn.Linear(recipe.network.widths[-1], len(VOTES)).to(device)
    optimizer = _optimizer(recipe, network, vote_head)
    learner = _Learner(network, vote_head, average, optimizer)
    origin = _Origin(
        _fingerprint(lessons),
        "" if start is None else _digest(start.state_dict().values()),
        "" if guides is None else _digest(guides.tensors()),
    )
    first = _resume(folder / CHECKPOINT, learner, recipe=recipe, origin=origin)
    for epoch in range(first, recipe.epochs):
        started = time.monotonic()
        loss = _train_epoch(learner, recipe, lessons, guides, epoch=epoch, device=device)
        accuracy = math.nan
        if validation is not None and (epoch % _VALIDATE_EVERY == _VALIDATE_EVERY - 1 or epoch == recipe.epochs - 1):
            accuracy = _accuracy(fitted, validation, side_px=recipe.size_px(epoch), device=device)
        _save(folder / CHECKPOINT, learner, recipe=recipe, origin=origin, epochs=epoch + 1)
        done = Epoch(epoch, recipe.size_px(epoch), optimizer.param_groups[-1]["lr"], loss, accuracy, time.monotonic() - started)
        _log(folder / LOG, done)
        report(done)
    return fitted.cpu().eval()


@torch.inference_mode()
def predict(network: ExpressionNet, pixels: Tensor, device: torch.device, *, batch_size: int = 256, flips: bool = False) -> Tensor:
    """Logits N x classes, float32, of uint8 or float N x 1 x S x S; with `flips`, the mean of each picture's and its mirror image's."""
    network.eval()
    parts = []
    for batch in pixels.split(batch_size):  # type: ignore[no-untyped-call]
        crops = batch.to(device).contiguous(memory_format=torch.channels_last)
        logits = network(crops)
        if flips:
            logits = (logits + network(crops.flip(3))) / 2
        parts.append(logits.cpu())
    return torch.cat(parts)


@dataclasses.dataclass(frozen=True, slots=True)
class _Learner:
    """All that changes during a training, which is what a checkpoint keeps."""

    network: ExpressionNet
    vote_head: nn.Linear
    average: AveragedModel
    optimizer: torch.optim.Optimizer


class _Origin(NamedTuple):
    """What a training is made from, as hashes: its pictures with their targets, its first weights (empty where random) and its teachers
    (empty where there are none)."""

    data: str
    start: str
    teachers: str


@dataclasses.dataclass(frozen=True)
class _Lessons:
    """What is learnt: `pixels` uint8 N x 1 x 48 x 48, `targets` float32 N x 7, `votes` float32 N x 10 (empty rows without FER+)."""

    pixels: Tensor
    targets: Tensor
    votes: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


def _lessons(recipe: Recipe, faces: FaceSet) -> _Lessons:
    one_hot = functional.one_hot(faces.labels, recipe.network.classes).float()
    if not recipe.needs_votes:
        return _Lessons(faces.pixels, one_hot, torch.empty(len(faces), 0))
    if faces.votes is None:
        raise DataError(
            "the recipe learns from the votes of FER+; give its fer2013new.csv with --votes, or set votes_share and votes_weight to 0"
        )
    likely = label_probabilities(faces.votes, faces.labels, seed=recipe.seed) if recipe.votes_share else one_hot
    return _Lessons(faces.pixels, torch.lerp(one_hot, likely, recipe.votes_share), vote_shares(faces.votes))


def _guides(recipe: Recipe, teachers: Sequence[ExpressionNet], device: torch.device) -> Teachers | None:
    if not recipe.teacher_share:
        return None
    if not teachers:
        raise DataError(
            "the recipe learns from other networks; give their weights to python -m training fit with --teacher, or set teacher_share to 0"
        )
    return Teachers(teachers, device)


def _train_epoch(
    learner: _Learner, recipe: Recipe, lessons: _Lessons, guides: Teachers | None, *, epoch: int, device: torch.device
) -> float:
    learner.network.train()
    torch.manual_seed(recipe.seed * 100_003 + epoch)
    total, steps = 0.0, len(lessons) // recipe.batch_size
    for step, (pictures, known, votes) in enumerate(_batches(recipe, lessons, epoch)):
        for group in learner.optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, epoch + step / steps)
        targets = known if guides is None else known.lerp(_guidance(guides, recipe, pictures, device=device), recipe.teacher_share)
        learner.optimizer.zero_grad(set_to_none=True)
        loss, whole = _losses(learner, recipe, pictures, targets, votes, device=device)
        if not torch.isfinite(loss):
            raise DataError(
                f"the loss became {loss.item()} in epoch {epoch + 1}; lower learning_rate in the recipe and start in a new folder"
            )
        total += loss.item()
        whole.backward()  # type: ignore[no-untyped-call]
        learner.optimizer.step()
        learner.average.update_parameters(learner.network)
    return total / steps


def _losses(
    learner: _Learner, recipe: Recipe, pictures: Tensor, targets: Tensor, votes: Tensor, *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Of the labels alone, and with whatever else the recipe learns."""
    with _precision(recipe, device):
        maps = learner.network.maps(pictures.to(device).contiguous(memory_format=torch.channels_last))
        logits = learner.network.read(maps)
    loss = whole = functional.cross_entropy(logits, targets.to(device), label_smoothing=recipe.label_smoothing)
    if recipe.mirror_weight:
        whole = whole + recipe.mirror_weight * _mirror_loss(logits)
    if recipe.votes_weight:
        whole = whole + recipe.votes_weight * functional.cross_entropy(learner.vote_head(maps.mean(dim=(2, 3)).float()), votes.to(device))
    return loss, whole


def _guidance(guides: Teachers, recipe: Recipe, pictures: Tensor, *, device: torch.device) -> Tensor:
    """What the teachers make of each picture, at the size that it has; where mirror images count, of both together."""
    with _precision(recipe, device):
        made = guides.read(pictures.to(device).contiguous(memory_format=torch.channels_last)).cpu()
    return made.unflatten(0, (2, -1)).mean(dim=0).repeat(2, 1) if recipe.mirror_weight else made  # type: ignore[no-untyped-call]


def _mirror_loss(logits: Tensor) -> Tensor:
    """Mean over pictures of half the symmetric divergence (Jeffreys) between the first half of 2N x classes and the second, in nats."""
    one, other = logits.float().log_softmax(1).chunk(2)
    return ((one.exp() - other.exp()) * (one - other)).sum(1).mean() / 2


def _accuracy(network: ExpressionNet, faces: FaceSet, *, side_px: int, device: torch.device) -> float:
    """At the size that the network is trained on at present: one that has seen 32 px so far reads 48 px ten points worse."""
    pictures = resize(faces.pixels.float() / 255, side_px)
    return float((predict(network, pictures, device).argmax(1) == faces.labels).float().mean())


def _batches(recipe: Recipe, lessons: _Lessons, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Augmented pictures, target probabilities and votes of one epoch: a function of seed and epoch alone. Where mirror images count, they
    follow on the pictures."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(len(lessons), generator=generator)
    changes = dataclasses.replace(recipe.augmentation, flip=0.0) if recipe.mirror_apart else recipe.augmentation
    mixing = recipe.augmentation.mixup_alpha > 0 and epoch < recipe.epochs * (1 - recipe.plain_share)
    for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
        chosen = order[start : start + recipe.batch_size]
        pictures = resize(augment(lessons.pixels[chosen], changes, generator), recipe.size_px(epoch))
        targets, votes = lessons.targets[chosen], lessons.votes[chosen]
        if mixing:
            pictures, targets, votes = mix(pictures, targets, votes, alpha=recipe.augmentation.mixup_alpha, generator=generator)
        if recipe.mirror_weight:
            again = resize(augment(lessons.pixels[chosen], changes, generator), recipe.size_px(epoch)) if recipe.mirror_apart else pictures
            pictures, targets, votes = torch.cat((pictures, again.flip(3))), targets.repeat(2, 1), votes.repeat(2, 1)
        yield pictures, targets, votes


def _learning_rate(recipe: Recipe, progress_epochs: float) -> float:
    """Linear warm-up, then half a cosine to 0 (Loshchilov & Hutter 2017)."""
    if progress_epochs < recipe.warmup_epochs:
        return recipe.learning_rate * max(progress_epochs, 1e-3) / recipe.warmup_epochs
    share = (progress_epochs - recipe.warmup_epochs) / max(1e-9, recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _optimizer(recipe: Recipe, network: ExpressionNet, vote_head: nn.Linear) -> torch.optim.Optimizer:
    parameters = [*network.parameters(), *vote_head.parameters()]
    decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


def _precision(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[object]:
    mixed = recipe.precision == "bf16" or (recipe.precision == "auto" and (device.type != "cpu" or has_bfloat16()))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed)


def _fingerprint(lessons: _Lessons) -> str:
    return _digest((lessons.pixels, lessons.targets, lessons.votes))


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _save(path: Path, learner: _Learner, *, recipe: Recipe, origin: _Origin, epochs: int) -> None:
    state = {
        "recipe": dataclasses.asdict(recipe),
        "data": origin.data,
        "start": origin.start,
        "teachers": origin.teachers,
        "epochs": epochs,
        "network": learner.network.state_dict(),
        "vote_head": learner.vote_head.state_dict(),
        "average": learner.average.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _resume(path: Path, learner: _Learner, *, recipe: Recipe, origin: _Origin) -> int:
    """Puts the checkpoint at `path`, if there is one, into `learner`; returns how many epochs it has behind it."""
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        stored, epochs = complete(state["recipe"]), int(state["epochs"])
    except (OSError, EOFError, RuntimeError, UnpicklingError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged checkpoint ({type(error).__name__}); remove it to start anew") from error
    made, wanted = stored["network"]["architecture"], recipe.network.architecture
    if made != wanted:
        raise DataError(f"{path} is of a {made}, the recipe of a {wanted}; give another folder with --out, or remove it")
    if stored != dataclasses.asdict(recipe):
        raise DataError(f"{path} belongs to another recipe; give another folder with --out, or remove it")
    if state.get("data", origin.data) != origin.data:
        raise DataError(f"{path} belongs to other pictures or targets; give those with --data and --votes, or another folder with --out")
    if state.get("start", origin.start) != origin.start:
        raise DataError(f"{path} began with other weights; give those with --start, or another folder with --out")
    if state.get("teachers", origin.teachers) != origin.teachers:
        raise DataError(f"{path} had other teachers; give those with --teacher, or another folder with --out")
    learner.network.load_state_dict(state["network"])
    learner.vote_head.load_state_dict(state["vote_head"])
    learner.average.load_state_dict(state["average"])
    learner.optimizer.load_state_dict(state["optimizer"])
    return epochs


def _log(path: Path, done: Epoch) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(_LOG_FIELDS)
        writer.writerow([getattr(done, field) for field in _LOG_FIELDS])
