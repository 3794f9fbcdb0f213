"""Generates hundreds of clips that exercise every feature of presentation, and compares batchemo's frames with those of the `ffmpeg`
command.

    python -m checks.corpus --folder /tmp/corpus --seed 2

The seed chooses the numbers drawn into the frames and the combinations of features. Clips with differences stay in the folder.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from batchemo.errors import BatchemoError
from checks.corpus.clips import ClipError, Recipe, make
from checks.corpus.compare import differences
from checks.corpus.pairs import everything
from checks.corpus.truth import Truth, ask_ffmpeg


def main() -> int:
    """Exit code 1 where any clip differs; one line is printed for each difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where clips go; emptied first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=None, help="clips to make at most")
    parser.add_argument("--only", default="", help="clips whose name holds this")
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    began, wrong, count = time.monotonic(), 0, 0
    recipes = [recipe for recipe in everything(given.seed) if given.only in str(recipe)]
    for recipe, lines in _compare_all(list(islice(recipes, given.most)), given.folder):
        count += 1
        wrong += bool(lines)
        for line in lines:
            print(f"{recipe}: {line}", flush=True)
    print(f"{count} clips in {time.monotonic() - began:.0f} s, {wrong} disagree; those are in {given.folder}", file=sys.stderr)
    return int(wrong > 0)


def _compare_all(recipes: list[Recipe], folder: Path) -> Iterator[tuple[Recipe, list[str]]]:
    """Each recipe and its differences; clips without differences are deleted."""
    with ThreadPoolExecutor(2) as pool:
        # Few are made ahead, so that they take no room.
        for start in range(0, len(recipes), 32):
            part = recipes[start : start + 32]
            for recipe, made in zip(part, pool.map(lambda each: _prepare(each, folder), part), strict=True):
                lines = _compare(recipe, made)
                yield recipe, lines
                for path in folder.glob(f"{recipe}.*"):
                    if not lines or path.suffix != _suffix(recipe):
                        path.unlink()


def _prepare(recipe: Recipe, folder: Path) -> tuple[Path, Truth] | str:
    try:
        path = make(recipe, folder)
        return path, ask_ffmpeg(recipe, path)
    except (ClipError, ValueError) as error:
        return f"cannot be made or asked about: {error}"


def _compare(recipe: Recipe, made: tuple[Path, Truth] | str) -> list[str]:
    if isinstance(made, str):
        return [made]
    try:
        return differences(recipe, *made)
    except BatchemoError as error:
        return [f"{type(error).__name__}: {error}"]


def _suffix(recipe: Recipe) -> str:
    return ".mp4" if recipe.container == "fmp4" else f".{recipe.container}"


if __name__ == "__main__":
    sys.exit(main())
