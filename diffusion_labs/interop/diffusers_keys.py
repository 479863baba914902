"""The keys of a scheduler configuration of diffusers, checked."""

from collections.abc import Callable, Mapping
from typing import Any

from diffusion_labs.interop.diffusers_classes import (
    DEFAULTS,
    PARAMETER_KEYS,
    REFUSED_CLASSES,
    SOLVER_KEYS,
    UNREAD_KEYS,
)
from diffusion_labs.predictors.clamp import DynamicThreshold, StaticClamp
from diffusion_labs.predictors.predictor import Clamp, Predictor

NOTES = frozenset({"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values"})
KEYS = frozenset().union(*DEFAULTS.values())


class Config:
    """The keys of one class of diffusers, with its defaults; unknown keys are refused."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        name = given.get("_class_name")
        if name in REFUSED_CLASSES:
            raise ValueError(f"_class_name={name!r} cannot be represented: it {REFUSED_CLASSES[name]}")
        if name not in DEFAULTS:
            raise ValueError(
                f"_class_name={name!r} is not a scheduler of diffusers that is known here; give one of {list(DEFAULTS)}"
            )
        self.name: str = name
        self.values = dict(DEFAULTS[name])
        for key, value in given.items():
            if key in self.values:
                self.values[key] = value
            elif key in NOTES or key in SOLVER_KEYS or key in PARAMETER_KEYS:
                continue  # of another class
            elif key not in KEYS:
                raise self.refused(key, "is not known; remove it, if it means nothing", value)
            elif value is not None and value is not False:
                raise self.refused(key, "is a key of other schedulers, which this one ignores; remove it", value)
        for key in UNREAD_KEYS.get(name, ()):
            del self.values[key]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def get(self, key: str, absent: Any = None) -> Any:
        return self.values.get(key, absent)

    def choose(self, key: str, table: Mapping[Any, Any]) -> Any:
        """The entry of a table that a key names."""
        if self[key] not in table:
            raise self.refused(key, f"cannot be represented; it must be one of {list(table)}")
        return table[self[key]]

    def refused(self, key: str, why: str, value: Any = None) -> ValueError:
        return ValueError(f"{self.name}: {key}={self.values.get(key, value)!r} {why}")

    def refuse(self, why: str, *keys: str) -> None:
        """Refuse keys that are switched on."""
        for key in keys:
            if self.get(key):
                raise self.refused(key, why)

    def one_of(self, *keys: str) -> str | None:
        """The one of some switches that is on."""
        on = [key for key in keys if self.get(key)]
        if len(on) > 1:
            raise self.refused(on[1], f"excludes {on[0]}; set one of them to false")
        return on[0] if on else None

    def predictor(self, make: Callable[[Clamp | None], Predictor]) -> Predictor:
        """The predictor, with the bound on clean data that the keys give."""
        try:
            return make(self.clamp())
        except ValueError as error:
            raise self.refused("prediction_type", f"does not go with the schedule: {error}") from error

    def clamp(self) -> Clamp | None:
        """Dynamic thresholding, or else clipping, or neither."""
        if self.get("thresholding"):
            limit, quantile = self["sample_max_value"], self["dynamic_thresholding_ratio"]
            if not limit >= 1:
                raise self.refused("sample_max_value", "must be at least 1, the bound of the data")
            if not 0 < quantile <= 1:
                raise self.refused("dynamic_thresholding_ratio", "must be in (0, 1]")
            return DynamicThreshold(quantile, limit=limit)
        if self.get("clip_sample"):
            bound = self["clip_sample_range"]
            if not bound > 0:
                raise self.refused("clip_sample_range", "must be positive")
            return StaticClamp(-bound, bound)
        return None
