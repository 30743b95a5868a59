"""Configuration: one model per stage, a recipe is a YAML file of them, and a wrong key is an error that names it.

Each stage declares its own `Config` subclass beside its loop; this module holds what they share: reading YAML,
`--set key=value` overrides, and turning validation errors into one clear line.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

RECIPES = Path(__file__).parent / "recipes"


class InputError(Exception):
    """Bad input from a person: the message names the thing and the mend; commands print it and exit 2.

    What `values` there are fill the message's places, such as %(name)s. The labelling app says `message` in the
    reader's language before it fills it.
    """

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message % values if values else message)
        self.message, self.values = message, values


class Config(BaseModel):
    """A frozen block of settings; unknown keys and impossible values are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _text_as_written(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        texts = {name for name, field in cls.model_fields.items() if _takes_text(field.annotation)}
        return {name: _as_written(value) if name in texts else value for name, value in values.items()}


class _Int(int):
    """An integer of an override, with its characters: 007 may be a name."""

    written: str


class _Float(float):
    """As `_Int`."""

    written: str


def _takes_text(annotation: Any) -> bool:
    kinds = {annotation, *get_args(annotation)}
    return str in kinds and not kinds & {int, float}


def _as_written(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_written(item) for item in value]
    return value.written if isinstance(value, _Int | _Float) else value


class _Overrides(yaml.SafeLoader):
    """YAML whose numbers know how they were written; no setting is a date."""

    def number(self, node: yaml.ScalarNode) -> _Int | _Float:
        found: _Int | _Float
        if node.tag.endswith(":int"):
            found = _Int(self.construct_yaml_int(node))
        else:
            found = _Float(self.construct_yaml_float(node))
        found.written = node.value
        return found

    def text(self, node: yaml.ScalarNode) -> str:
        return str(node.value)


_Overrides.add_constructor("tag:yaml.org,2002:int", _Overrides.number)
_Overrides.add_constructor("tag:yaml.org,2002:float", _Overrides.number)
_Overrides.add_constructor("tag:yaml.org,2002:timestamp", _Overrides.text)


C = TypeVar("C", bound=Config)


def read_mapping(path: Path, expected: str) -> dict[str, Any]:
    """The YAML file's names and values; `expected` says what they should be.

    Raises:
        InputError: no YAML in UTF-8, or something else than a mapping.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no YAML in UTF-8: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: {expected}")
    return found


def parse(model: type[C], values: dict[str, Any], where: str) -> C:
    """`values` as a `model`.

    Raises:
        InputError: names each wrong key under `where` (a recipe block), what was found and what is allowed.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise InputError("; ".join(_describe(item, model, where) for item in error.errors())) from None


def _describe(item: Any, model: type[Config], where: str) -> str:
    key = ".".join(str(part) for part in (where, *item["loc"]) if part != "")
    if item["type"] == "extra_forbidden":
        known = sorted(_block(model, item["loc"][:-1]).model_fields)
        return f"{key}: unknown key{nearest(str(item['loc'][-1]), known)}; known here: {', '.join(known)}"
    if item["type"] == "missing":
        return f"{key}: missing"
    message = said(item)
    if item["type"] == "value_error" and isinstance(item["input"], dict):  # of the whole block, whose keys it names
        return f"{key}: {message}" if key else message
    found = "a block of settings" if isinstance(item["input"], dict) else repr(item["input"])
    return f"{key}: {message} (found {found})"


def said(item: Any) -> str:
    """What one of pydantic's errors says, in our words: "must be greater than 0"."""
    if item["type"] == "json_invalid":
        return not_json(item["msg"].removeprefix("Invalid JSON: "))
    plain = {"missing": "is missing", "extra_forbidden": "is no field here"}
    message = plain.get(item["type"]) or item["msg"].removeprefix("Value error, ").replace(" after validation", "")
    return re.sub(r"\b(Input|String|Tuple|List|Dictionary) should ", "must ", message)


def not_json(message: str) -> str:
    """What a JSON parser says of one line of a file, without its own count of lines, and the mend."""
    plain = re.sub(r":?( at)? line 1 column (\d+)( \(char \d+\))?$", r" at character \2", message)
    return f"not valid JSON: {plain}; write one whole JSON object on each line"


def _block(model: type[Config], path: Iterable[str | int]) -> type[Config]:
    """The model of the block at `path`, reached through models, optional ones and mappings of them."""
    for part in path:
        if part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            inner = (annotation, *get_args(annotation))
            model = next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, Config)), model)
    return model


def nearest(name: str, known: Iterable[str]) -> str:
    """ ", did you mean …?" where one of the known names is near, else nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def read_recipe(name: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The recipe's raw mapping: a shipped name ("quickstart") or a path, with `--set` overrides applied.

    Raises:
        InputError: no such recipe, broken YAML, or an override that is not key=value.
    """
    path = Path(name)
    if not path.suffix and not path.exists():
        path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        shipped = sorted(p.stem for p in RECIPES.glob("*.yaml"))
        raise InputError(
            f"no recipe {name!r}{nearest(name, shipped)}; give a path to a YAML file or one of: {', '.join(shipped)}"
        )
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise InputError(f"{path}: a recipe is a mapping of blocks, found {type(recipe).__name__}")
    for override in overrides:
        _apply(recipe, override)
    return recipe


def _apply(recipe: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override}: write --set block.key=value")
    try:
        value = yaml.load(text, _Overrides)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"--set {override}: {text!r} is not a YAML value") from None
    set_value(recipe, key, value, f"--set {override}")


def set_value(recipe: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Put the value at the dotted key of a raw recipe, making blocks on the way.

    Raises:
        InputError: a block of the key is a value; `where` begins the message.
    """
    *blocks, last = key.split(".")
    block = recipe
    for name in blocks:
        block = block.setdefault(name, {})
        if not isinstance(block, dict):
            raise InputError(f"{where}: {name} is a value, not a block")
    block[last] = as_number(value)


def as_number(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 as a string; people mean a number. Lists item by item."""
    if isinstance(value, list):
        return [as_number(item) for item in value]
    if isinstance(value, str):
        try:
            number = _Float(value)
        except ValueError:
            return value
        number.written = value
        return number
    return value
