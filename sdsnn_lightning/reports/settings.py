"""Configurations as flat, short keys, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import Any

# What a run is given by its place, its machine or its wish to be watched; none of it is the experiment.
OF_THE_RUN = (
    "seed_everything", "runs", "version", "name", "notes", "ckpt_path", "weights_only", "wandb", "verbose",
    "model.teacher_checkpoint", "data.root", "data.simulated_root", "data.cache_dir", "data.num_workers",
    "data.source", "data.download", "data.fold", "checkpoint.dirpath", "trainer.accelerator", "trainer.logger",
    "trainer.default_root_dir", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.log_every_n_steps", "trainer.profiler",
)  # fmt: skip
MISSING = "-"


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A configuration as one level of dotted keys.

    A class with its arguments becomes `<key> = <class>` and `<key>.<argument>`; in a list of them, as the callbacks
    are, the name of the class takes the place of its number, so that two lists are compared class by class.

    Args:
        config: Nested mappings, lists and plain values.
        prefix: Key of `config` itself.

    Returns:
        Values by key; a list of plain values stays a value.
    """
    if isinstance(config, Mapping):
        flat: dict[str, Any] = {}
        for key, value in config.items():
            if key == "class_path":
                flat[prefix] = str(value).rpartition(".")[2]
            else:
                flat |= flatten(value, prefix if key == "init_args" else f"{prefix}.{key}".lstrip("."))
        return flat
    if isinstance(config, Sequence) and not isinstance(config, str) and any(isinstance(v, Mapping) for v in config):
        flat = {}
        seen: dict[Any, int] = {}
        for number, value in enumerate(config):
            name = str(value.get("class_path", number)).rpartition(".")[2] if isinstance(value, Mapping) else number
            seen[name] = seen.get(name, 0) + 1
            key = f"{prefix}.{name}" if seen[name] == 1 else f"{prefix}.{name} #{seen[name]}"
            flat |= {f"{key}{inner}": v for inner, v in _inside(value)}
        return flat
    return {prefix: config}


def _inside(value: Any) -> list[tuple[str, Any]]:
    """An entry of a list: its flat keys relative to itself, the class as `used`."""
    flat = flatten(value, "_")
    return [(key.removeprefix("_"), "used" if key == "_" and isinstance(value, Mapping) else v)
            for key, v in flat.items()]  # fmt: skip


def experiment_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an experiment, without those of the single run: seed, fold, folders, devices, loggers.

    What the data would do for a teacher is no setting of an experiment without one: a teacher that was trained ahead of
    its student has it from the student, and is the experiment that it would be alone.

    Args:
        config: Contents of a `config.yaml`.

    Returns:
        Values by short key.
    """
    flat = flatten(config)
    alone = flat.get("model.teacher") is None
    return {
        key: value
        for key, value in flat.items()
        if not any(key == own or key.startswith(f"{own}.") for own in OF_THE_RUN)
        and not (alone and key.startswith("data.") and "teacher" in key)
    }


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Where the settings of several experiments differ.

    Args:
        configs: Contents of their `config.yaml`.

    Returns:
        By key the value of every experiment as text, `MISSING` where it has none; keys with one value are left out.
    """
    flat = [experiment_settings(config) for config in configs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = {key: [_text(settings[key]) if key in settings else MISSING for settings in flat] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _text(value: Any) -> str:
    """A plain value as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(entry) for entry in value) or "none"
    return str(value)
