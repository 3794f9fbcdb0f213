"""Options: flag before environment before `--config` before `batchemo.toml` before default, and errors that say where."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pydantic
import pytest

from batchemo.errors import UsageError
from batchemo.options import RunOptions, merge_options, named_options

SOURCES = ("flag", "environment", "config", "default file")
BATCH_SIZES = {"flag": 11, "environment": 12, "config": 13, "default file": 14}


def merge(tmp_path: Path, given: dict[str, dict[str, Any]], *, config_by_environment: bool = False) -> RunOptions:
    """`given` holds the options of each source; those of files are written as TOML, those of the environment as text."""
    files = {"config": tmp_path / "mine.toml", "default file": tmp_path / "batchemo.toml"}
    for source, path in files.items():
        if source in given:
            path.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in given[source].items()))
    environment = {f"BATCHEMO_{name.upper()}": str(value) for name, value in given.get("environment", {}).items()}
    config = files["config"] if "config" in given else None
    if config and config_by_environment:
        environment["BATCHEMO_CONFIG"], config = str(config), None
    return merge_options(given.get("flag", {}), environment=environment, config=config, default_file=files["default file"])


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


@pytest.mark.parametrize("sources", [s for n in range(5) for s in itertools.combinations(SOURCES, n)], ids="+".join)
def test_the_first_source_that_says_something_counts(tmp_path: Path, sources: tuple[str, ...]) -> None:
    options = merge(tmp_path, {source: {"batch_size": BATCH_SIZES[source]} for source in sources})
    assert options.batch_size == (BATCH_SIZES[sources[0]] if sources else 64)


def test_sources_are_merged_option_by_option(tmp_path: Path) -> None:
    given: dict[str, dict[str, Any]] = {
        "flag": {"workers": 2},
        "environment": {"sample_fps": 5},
        "config": {"decoder": "pyav"},
        "default file": {"min-face-px": 60},
    }
    options = merge(tmp_path, given)
    assert (options.workers, options.sample_fps, options.decoder, options.min_face_px) == (2, 5.0, "pyav", 60)


def test_none_is_not_given_and_false_is(tmp_path: Path) -> None:
    given: dict[str, dict[str, Any]] = {
        "flag": {"batch_size": None, "annotate": False},
        "environment": {"batch_size": 9, "annotate": "true"},
    }
    options = merge(tmp_path, given)
    assert (options.batch_size, options.annotate) == (9, False)


def test_the_environment_may_name_the_config(tmp_path: Path) -> None:
    assert merge(tmp_path, {"config": {"batch_size": 3}}, config_by_environment=True).batch_size == 3


def test_texts_of_the_environment(tmp_path: Path) -> None:
    given: dict[str, dict[str, Any]] = {
        "environment": {"include": "*.mp4,*.mov", "annotate": "false", "force": "1", "sample_fps": "2.5", "workers": ""}
    }
    options = merge(tmp_path, given)
    assert options.include == ("*.mp4", "*.mov")
    assert (options.annotate, options.force, options.sample_fps, options.workers) == (False, True, 2.5, None)


def test_weights_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    assert merge(tmp_path, {"config": {"weights": "mine.safetensors"}}).weights == tmp_path / "mine.safetensors"
    assert merge(tmp_path, {"config": {"weights": "/w/mine.safetensors"}}).weights == Path("/w/mine.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("batch_size", 0, "greater than or equal to 1"),
        ("min_face_px", 5, "greater than or equal to 20"),
        ("sample_fps", -1, "greater than 0"),
        ("sample_fps", 0.0, "greater than 0"),
        ("uncertain_below", 1.5, "less than or equal to 1"),
        ("decoder", "vlc", "'auto', 'decord' or 'pyav'"),
        ("device", "tpu", "auto, cpu, cuda or cuda:N"),
        ("workers", "many", "integer"),
        ("annotate", "perhaps", "boolean"),
    ],
)
@pytest.mark.parametrize("source", SOURCES)
def test_wrong_values_name_the_option_and_where_it_was_given(tmp_path: Path, source: str, name: str, value: Any, reason: str) -> None:
    origin = {"flag": "command line", "environment": "environment", "config": "mine.toml", "default file": "batchemo.toml"}[source]
    with pytest.raises(UsageError) as caught:
        merge(tmp_path, {source: {name: value}})
    message = str(caught.value)
    for part in (f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else repr(value), origin, reason):
        assert part in message
    assert "\n" not in message


def test_a_wrong_value_that_is_overridden_does_no_harm(tmp_path: Path) -> None:
    assert merge(tmp_path, {"flag": {"batch_size": 5}, "config": {"batch_size": -1}}).batch_size == 5


@pytest.mark.parametrize(("key", "hint"), [("bach_size", "'batch_size'"), ("sample-fsp", "'sample-fps'"), ("qqqqq", "choose from include")])
@pytest.mark.parametrize("source", ["config", "default file"])
def test_unknown_keys_are_refused_with_a_suggestion(tmp_path: Path, source: str, key: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        merge(tmp_path, {source: {key: 3}})
    assert key in str(caught.value)
    assert hint in str(caught.value)
    assert ".toml" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml.*--config"):
        merge_options({}, environment={}, config=tmp_path / "nowhere.toml", default_file=tmp_path / "none.toml")
    for content in (b"batch_size = = 3", b"\xff\xfe\x00"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(UsageError, match=r"bad\.toml: not TOML"):
            merge_options({}, environment={}, config=tmp_path / "bad.toml", default_file=tmp_path / "none.toml")


def test_options_are_frozen() -> None:
    options = RunOptions()
    with pytest.raises(pydantic.ValidationError):
        options.workers = 3


def test_only_what_shapes_the_tables_is_shaping() -> None:
    assert RunOptions(workers=3, annotate=False, force=True).shaping() == RunOptions().shaping()
    for change in ({"sample_fps": 2.0}, {"min_face_px": 50}, {"appearance": False}, {"uncertain_below": 0.1}):
        assert RunOptions(**change).shaping() != RunOptions().shaping()


def test_a_misspelt_variable_is_named() -> None:
    with pytest.raises(UsageError, match=r"BATCHEMO_SAMPEL_FPS; did you mean 'BATCHEMO_SAMPLE_FPS'"):
        merge_options({}, environment={"BATCHEMO_SAMPEL_FPS": "3"}, default_file=Path("no such file"))
    merge_options({}, environment={"BATCHEMO_OUT": "results", "OTHER_SAMPEL_FPS": "3"}, default_file=Path("no such file"))


# Names of the state before units stood in names: (old name, new name, a value, another value)
RENAMED = [("timeout", "timeout_s", 9.5, 8.0), ("max_memory", "max_memory_mb", 900, 800), ("wait", "wait_s", 60.0, 30.0)]


@pytest.mark.parametrize(("old", "new", "value", "other"), RENAMED)
@pytest.mark.parametrize("source", SOURCES)
def test_an_earlier_name_still_works(tmp_path: Path, source: str, old: str, new: str, value: float, other: float) -> None:
    for name in (old, new, new.replace("_", "-") if source != "environment" else new):
        assert getattr(merge(tmp_path, {source: {name: value}}), new) == value
    assert getattr(merge(tmp_path, {source: {old: value, new: value}}), new) == value
    with pytest.raises(UsageError, match="are the same option; give") as caught:
        merge(tmp_path, {source: {old: value, new: other}})
    spelled = {"flag": "--{}", "environment": "BATCHEMO_{}"}.get(source, "{}")
    for name, given in ((old, value), (new, other)):
        shown = {"flag": name.replace("_", "-"), "environment": name.upper()}.get(source, name)
        assert f"{spelled.format(shown)} {given}" in str(caught.value)


@pytest.mark.parametrize(("old", "new", "value", "other"), RENAMED)
def test_earlier_names_obey_the_order_of_the_sources(tmp_path: Path, old: str, new: str, value: float, other: float) -> None:
    assert getattr(merge(tmp_path, {"flag": {new: value}, "environment": {old: other}}), new) == value
    assert getattr(merge(tmp_path, {"environment": {old: value}, "default file": {new: other}}), new) == value


def test_two_spellings_of_a_key_in_a_file_must_agree(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"job.toml: batch-size 3 and batch_size 4 are the same option"):
        named_options({"batch-size": 3, "batch_size": 4}, file=tmp_path / "job.toml")


def test_results_keep_the_options_that_they_had() -> None:
    """What tables and run.json of earlier versions hold: results are resumed, and runs of jobs compared, by it."""
    shaping = {"sample_fps": None, "min_face_px": 40, "detector": "fast", "appearance": True, "uncertain_below": 0.5}
    assert list(RunOptions().shaping().items()) == list(shaping.items())
    others = {
        **{"include": [], "exclude": [], "follow_symlinks": False, "decoder": "auto", "weights": None, "device": "auto", "workers": None},
        **{"engine": "local", "scheduler": None, "batch_size": 64, "timeout": 300.0, "max_memory": None, "shard": "2/8", "wait": 0.0},
        **{"annotate": True, "report": True, "blur_faces": None, "blur_style": None, "timeline": False, "codec": "h264"},
        **{"quality": "medium", "hardware": False, "force": False, "retry_failed": False, "prune": False, "dry_run": False},
    }
    assert RunOptions(shard="2/8").as_dict() == shaping | others  # type: ignore[arg-type]
