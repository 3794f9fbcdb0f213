"""The training loop. A run can be resumed after every epoch, and its seed makes it repeatable."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from batchemo.emotion.classifier import has_bfloat16
from batchemo.emotion.model import ExpressionNet
from batchemo.errors import DataError
from training.data.augmentation import augment, mixup, resize
from training.data.fer2013 import VOTES, FaceSet
from training.fit.checkpoint import CHECKPOINT, TrainingInputs, TrainingState, hash_tensors, load_checkpoint, save_checkpoint
from training.fit.net2net import grow_network
from training.fit.targets import Samples, Teachers, make_samples
from training.inference import predict
from training.recipe import Recipe

LOG = "epochs.csv"

_VALIDATE_EVERY = 4
_LOG_FIELDS = ("epoch", "size_px", "learning_rate", "loss", "validation_accuracy", "seconds")


@dataclasses.dataclass(frozen=True, slots=True)
class Epoch:
    """The figures of one epoch.

    `validation_accuracy` is of the averaged weights on pictures of `size_px`, and NaN in epochs without validation.
    """

    epoch: int
    size_px: int
    learning_rate: float
    loss: float
    validation_accuracy: float
    seconds: float


def fit_network(
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
    """Trains on `faces` and returns the network with the averaged weights of the last epoch, on the CPU.

    After each epoch the checkpoint in `folder` is replaced. Called again with the same arguments, the training resumes there, and ends with
    the same weights as without the stop. No epoch is selected: `validation` is for the log only. `start` gives the initial weights in place
    of random ones; a larger network grows from them (`training.fit.net2net`). `teachers` are for a recipe with a `teacher_share`.
    Raises DataError if the checkpoint in `folder` belongs to another training, if teachers are missing, if the pictures do not fill one
    batch, and if the loss becomes infinite or NaN.
    """
    if len(faces) < recipe.batch_size:
        raise DataError(f"{len(faces)} pictures do not fill one batch of {recipe.batch_size}; lower batch_size in the recipe")
    samples = make_samples(recipe, faces)
    guides = _teachers(recipe, teachers, device)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = ExpressionNet(recipe.network).to(device).to(memory_format=torch.channels_last)
    if start is not None:
        try:
            network.load_state_dict(grow_network(start, recipe.network).state_dict())
        except ValueError as error:
            raise DataError(f"{error}: those are of {start.spec}, the recipe of {recipe.network}") from error
    averaging = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)
    fitted = cast(ExpressionNet, average.module)
    vote_head = nn.Linear(recipe.network.widths[-1], len(VOTES)).to(device)
    optimizer = _optimizer(recipe, network, vote_head)
    state = TrainingState(network, vote_head, average, optimizer)
    inputs = TrainingInputs(
        hash_tensors((samples.pixels, samples.targets, samples.votes)),
        "" if start is None else hash_tensors(start.state_dict().values()),
        "" if guides is None else hash_tensors(guides.tensors()),
    )
    first = load_checkpoint(folder / CHECKPOINT, state, recipe=recipe, inputs=inputs)
    for epoch in range(first, recipe.epochs):
        started = time.monotonic()
        loss = _train_epoch(state, recipe, samples, guides, epoch=epoch, device=device)
        accuracy = math.nan
        if validation is not None and (epoch % _VALIDATE_EVERY == _VALIDATE_EVERY - 1 or epoch == recipe.epochs - 1):
            accuracy = _accuracy(fitted, validation, side_px=recipe.size_px(epoch), device=device)
        save_checkpoint(folder / CHECKPOINT, state, recipe=recipe, inputs=inputs, epochs=epoch + 1)
        done = Epoch(epoch, recipe.size_px(epoch), optimizer.param_groups[-1]["lr"], loss, accuracy, time.monotonic() - started)
        _log(folder / LOG, done)
        report(done)
    return fitted.cpu().eval()


def _teachers(recipe: Recipe, networks: Sequence[ExpressionNet], device: torch.device) -> Teachers | None:
    if not recipe.teacher_share:
        return None
    if not networks:
        raise DataError(
            "the recipe learns from other networks; give their weights to python -m training fit with --teacher, or set teacher_share to 0"
        )
    return Teachers(networks, device)


def _train_epoch(
    state: TrainingState, recipe: Recipe, samples: Samples, guides: Teachers | None, *, epoch: int, device: torch.device
) -> float:
    """Returns the mean loss of the labels over all steps."""
    state.network.train()
    torch.manual_seed(recipe.seed * 100_003 + epoch)
    total, steps = 0.0, len(samples) // recipe.batch_size
    for step, (pictures, known, votes) in enumerate(_batches(recipe, samples, epoch)):
        for group in state.optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, epoch + step / steps)
        targets = known if guides is None else known.lerp(_teacher_targets(guides, recipe, pictures, device=device), recipe.teacher_share)
        state.optimizer.zero_grad(set_to_none=True)
        loss, whole = _losses(state, recipe, pictures, targets, votes, device=device)
        if not torch.isfinite(loss):
            raise DataError(
                f"the loss became {loss.item()} in epoch {epoch + 1}; lower learning_rate in the recipe and start in a new folder"
            )
        total += loss.item()
        whole.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        state.average.update_parameters(state.network)
    return total / steps


def _losses(
    state: TrainingState, recipe: Recipe, pictures: Tensor, targets: Tensor, votes: Tensor, *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The loss of the targets alone, and the sum of all losses."""
    with _precision(recipe, device):
        maps = state.network.maps(pictures.to(device).contiguous(memory_format=torch.channels_last))
        logits = state.network.read(maps)
    loss = whole = functional.cross_entropy(logits, targets.to(device), label_smoothing=recipe.label_smoothing)
    if recipe.mirror_weight:
        whole = whole + recipe.mirror_weight * _mirror_loss(logits)
    if recipe.votes_weight:
        whole = whole + recipe.votes_weight * functional.cross_entropy(state.vote_head(maps.mean(dim=(2, 3)).float()), votes.to(device))
    return loss, whole


def _teacher_targets(guides: Teachers, recipe: Recipe, pictures: Tensor, *, device: torch.device) -> Tensor:
    """The teachers' probabilities; with a `mirror_weight` the mean over each picture and its mirror image, for both."""
    with _precision(recipe, device):
        made = guides.predict(pictures.to(device).contiguous(memory_format=torch.channels_last)).cpu()
    return made.unflatten(0, (2, -1)).mean(dim=0).repeat(2, 1) if recipe.mirror_weight else made  # type: ignore[no-untyped-call]


def _mirror_loss(logits: Tensor) -> Tensor:
    """Half the symmetric divergence (Jeffreys, in nats) between the two halves of 2N x classes, averaged over the N pictures."""
    one, other = logits.float().log_softmax(1).chunk(2)
    return ((one.exp() - other.exp()) * (one - other)).sum(1).mean() / 2


def _accuracy(network: ExpressionNet, faces: FaceSet, *, side_px: int, device: torch.device) -> float:
    """At the current training size: a network trained on 32 px so far loses ten points on 48 px."""
    pictures = resize(faces.pixels.float() / 255, side_px)
    return float((predict(network, pictures, device).argmax(1) == faces.labels).float().mean())


def _batches(recipe: Recipe, samples: Samples, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Augmented pictures, targets and votes of one epoch, which depend on the seed and the epoch alone.

    With a `mirror_weight` the second half of a batch holds the mirror images of the first.
    """
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(len(samples), generator=generator)
    changes = dataclasses.replace(recipe.augmentation, flip=0.0) if recipe.mirror_apart else recipe.augmentation
    mixing = recipe.augmentation.mixup_alpha > 0 and epoch < recipe.epochs * (1 - recipe.plain_share)
    for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
        chosen = order[start : start + recipe.batch_size]
        pictures = resize(augment(samples.pixels[chosen], changes, generator), recipe.size_px(epoch))
        targets, votes = samples.targets[chosen], samples.votes[chosen]
        if mixing:
            pictures, targets, votes = mixup(pictures, targets, votes, alpha=recipe.augmentation.mixup_alpha, generator=generator)
        if recipe.mirror_weight:
            again = resize(augment(samples.pixels[chosen], changes, generator), recipe.size_px(epoch)) if recipe.mirror_apart else pictures
            pictures, targets, votes = torch.cat((pictures, again.flip(3))), targets.repeat(2, 1), votes.repeat(2, 1)
        yield pictures, targets, votes


def _learning_rate(recipe: Recipe, progress_epochs: float) -> float:
    """Linear warm-up, then half a cosine to 0 (Loshchilov & Hutter 2017)."""
    if progress_epochs < recipe.warmup_epochs:
        return recipe.learning_rate * max(progress_epochs, 1e-3) / recipe.warmup_epochs
    share = (progress_epochs - recipe.warmup_epochs) / max(1e-9, recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _optimizer(recipe: Recipe, network: ExpressionNet, vote_head: nn.Linear) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum. Biases and norms do not decay."""
    parameters = [*network.parameters(), *vote_head.parameters()]
    decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


def _precision(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[object]:
    mixed = recipe.precision == "bf16" or (recipe.precision == "auto" and (device.type != "cpu" or has_bfloat16()))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed)


def _log(path: Path, done: Epoch) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(_LOG_FIELDS)
        writer.writerow([getattr(done, field) for field in _LOG_FIELDS])
