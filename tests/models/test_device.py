"""Where models compute."""

from pathlib import Path

import pytest
import torch

from heedful.config import InputError
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.load import DEVICE_VARIABLE, compute_device
from heedful.text.parts import by_length
from toys import TOKENIZER, make_policy


def test_the_environment_names_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    assert compute_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    assert compute_device() == torch.device("cpu")
    save_policy(tmp_path / "p", make_policy(), TOKENIZER, {})
    assert load_policy(tmp_path / "p")[0].device == torch.device("cpu")
    monkeypatch.setenv(DEVICE_VARIABLE, "meta")  # any device that torch knows
    assert load_policy(tmp_path / "p")[0].device == torch.device("meta")


@pytest.mark.parametrize("name", ["nowhere", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, name)
    with pytest.raises(InputError, match=f"HEEDFUL_DEVICE={name}: .*heedful doctor") as error:
        compute_device()
    assert "\n" not in str(error.value)


def test_indices_of_parts_are_on_the_cpu() -> None:
    length = torch.tensor([3, 9, 2, 7])
    assert all(part.device.type == "cpu" for part in by_length(length, 10))
    assert sorted(torch.cat(by_length(length, 10)).tolist()) == [0, 1, 2, 3]
