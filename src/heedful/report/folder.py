"""A run's folder as the report reads it: any file may be absent or torn, and what is missing is noted, never hidden."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from heedful.config import InputError
from heedful.report.charts import POLICIES
from heedful.run import read_jsonl
from heedful.snapshot import Snapshot, read_snapshot
from heedful.steps import optimised_in

Json = dict[str, Any]


class RunFolder:
    """Files by their place in the folder, each read once; `missing` gathers what was looked for and not found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.missing: dict[str, str] = {}  # place → what is wrong with it
        self._snapshots: dict[str, Snapshot | None] = {}
        self._tokenizers: dict[str, Tokenizer | None] = {}

    def json(self, place: str) -> Any:
        """The JSON file's content; None when it is not there."""
        try:
            return json.loads((self.path / place).read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.missing[place] = "not there"
        except ValueError as error:
            self.missing[place] = f"not readable as JSON: {error}"
        return None

    def rows(self, place: str) -> list[Json]:
        """The rows of a log, [] when it is not there."""
        path = self.path / place
        if not path.exists():
            self.missing[place] = "not there"
            return []
        try:
            return read_jsonl(path)
        except ValueError as error:
            self.missing[place] = f"holds a broken line: {error}"
            return []

    def snapshot(self, place: str) -> Snapshot | None:
        """The snapshot; None when it is not there or does not match its hash."""
        if place not in self._snapshots:
            try:
                self._snapshots[place] = read_snapshot(self.path / place)
            except InputError as error:
                self._snapshots[place] = None
                self.missing[place] = str(error).replace(f"{self.path}/", "")
        return self._snapshots[place]

    def tokenizer(self, place: str) -> Tokenizer | None:
        """The tokenizer of a model folder; None when it is not there."""
        if place not in self._tokenizers:
            path = self.path / place / "tokenizer.json"
            self._tokenizers[place] = Tokenizer.from_file(str(path)) if path.exists() else None
        return self._tokenizers[place]

    def done(self, place: str) -> Json | None:
        """What a step's done.json holds: results, counts, seconds."""
        return self.json(f"{place}/done.json")

    def has(self, place: str) -> bool:
        return (self.path / place).exists()

    @cached_property
    def results(self) -> Json:
        return self.json("results.json") or {}

    @cached_property
    def recipe(self) -> Json:
        return self.json("recipe.json") or {}

    @cached_property
    def policies(self) -> list[str]:
        """The evaluated policies, in the order of the results table."""
        return list(self.results.get("policies", {}))

    @property
    def fine_tuned(self) -> list[str]:
        """Policies that came of demonstrations or of a prefix."""
        return [*self.recipe.get("sft", {}), *self.recipe.get("distil", {})]

    @cached_property
    def variants(self) -> list[str]:
        """The optimised policies; those that pay nothing for KL, controls, stand first: the last one matters most."""
        found = optimised_in(self.recipe)
        return sorted(found, key=lambda name: found[name].get("kl_coef") != 0)

    @cached_property
    def ppo_variants(self) -> list[str]:
        """Those of them that PPO made: a judgement and an episode are followed through its arithmetic."""
        return [name for name in self.variants if name in self.recipe.get("ppo", {})]

    @cached_property
    def rounds(self) -> list[int]:
        found = [path.name.removeprefix("round-") for path in self.path.glob("round-*")]
        return sorted(int(number) for number in found if number.isdigit())

    @property
    def last_round(self) -> str:
        """The folder of the newest round."""
        return f"round-{self.rounds[-1] if self.rounds else 1}"

    def pool(self, name: str) -> str:
        """Where a pool's prompts lie as they stood in the newest round: later rounds' prompts are with those before."""
        renewed = [f"round-{round}/prompts/{name}" for round in reversed(self.rounds)]
        return next((place for place in renewed if self.has(place)), f"data/{name}")

    @cached_property
    def steps(self) -> list[str]:
        """Every step's place in the folder, in the order the steps were started."""
        places = [path.parent for path in self.path.rglob("manifest.json")]
        return [str(place.relative_to(self.path)) for place in sorted(places, key=self._started)]

    def _started(self, place: Path) -> tuple[str, str]:
        manifest = self.json(f"{place.relative_to(self.path)}/manifest.json") or {}
        return manifest.get("environment", {}).get("started", ""), str(place)

    def at(self, pointer: str) -> Any:
        """A value of results.json by JSON pointer (RFC 6901); None where there is none."""
        found: Any = self.results
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                return None
        return found

    def nulls(self) -> list[tuple[str, str]]:
        """Every value of results.json that could not be computed, with the reason that stands beside it."""
        return list(_nulls(self.results, ""))

    def colour(self, name: str) -> int:
        """A policy's colour, the same in every figure."""
        known = list(dict.fromkeys([*self.policies, *self.fine_tuned, *optimised_in(self.recipe)]))
        return POLICIES[known.index(name) % len(POLICIES)] if name in known else POLICIES[-1]


def pointer(*parts: str | int) -> str:
    """The JSON pointer to a value of results.json."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _nulls(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _nulls(inner, f"{place}.{i}")
    if not isinstance(value, dict):
        return
    why = value.get("reason", "no reason given")
    for key in (key for key, inner in value.items() if inner is None):
        yield f"{place}.{key}".lstrip("."), why.get(key, "no reason given") if isinstance(why, dict) else str(why)
    for key, inner in value.items():
        yield from _nulls(inner, f"{place}.{key}")
