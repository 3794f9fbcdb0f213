"""Recipes: those in the repository can be read, and a mistake in one is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchemo.errors import DataError
from training.recipe import RECIPES, Recipe, read_recipe, to_toml


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_repository_can_be_read(path: Path) -> None:
    assert read_recipe(path).network.classes == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("[augmentation]\nflipp = 0.5", r"\[augmentation\]: unknown key 'flipp'; did you mean 'flip'?"),
        ("colour = 3", "unknown key 'colour'; choose from epochs, batch_size"),
        ('epochs = "60"', "epochs cannot be '60'; the default is 50"),
        ("epochs = 0", "epochs must be 1 or more"),
        ("sizes = []", r"sizes cannot be \[\]"),
        ("sizes = [48]", "size_shares must be as many as sizes"),
        ("[network]\nclasses = 8", "classes must be 7"),
        ("[network]\nwidths = [16]", "1 widths for 4 stages"),
        ("network = 3", "network cannot be 3"),
        ("epochs == 3", "not TOML"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"recipe\.toml.*{message}"):
        read_recipe(path)


def test_a_missing_recipe_says_where_there_are_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the recipe .*recipes"):
        read_recipe(tmp_path / "none.toml")


def test_sizes_grow_over_the_epochs_by_their_shares() -> None:
    recipe = Recipe(epochs=10, sizes=(32, 40, 48), size_shares=(0.4, 0.3, 0.3))
    assert [recipe.size_px(epoch) for epoch in range(10)] == [32] * 4 + [40] * 3 + [48] * 3


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_written_as_toml_is_the_same(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path)
    (tmp_path / "again.toml").write_text(to_toml(recipe))
    assert read_recipe(tmp_path / "again.toml") == recipe
    (tmp_path / "small.toml").write_text(to_toml(Recipe(learning_rate=1e-7)))
    assert read_recipe(tmp_path / "small.toml").learning_rate == 1e-7


def test_the_readme_names_every_recipe() -> None:
    """Recipes make the shipped weights, or are the default of a command; others are deleted."""
    text = (RECIPES.parent / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in RECIPES.glob("*.toml")} == set(re.findall(r"(?:\$R|recipes)/(\w+\.toml)", text))
