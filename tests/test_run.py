"""Run folders: a kill at any moment costs nothing, and a resumed run is the run that was never interrupted."""

import json
import os
import random
from pathlib import Path

import pytest
import torch

from heedful import run as run_module
from heedful.config import InputError
from heedful.run import Diverged, Run, read_jsonl, write_atomic


def open_run(folder: Path, **changes: object) -> Run:
    return Run.open(folder, **({"stage": "toy", "config": {"lr": 0.1}, "seed": 1} | changes), checkpoint_seconds=0)


def toy_loop(folder: Path, steps: int, stop_after: int | None = None, torn: bool = False) -> list[float]:
    """A loop with an optimizer, random numbers and logs; stop_after leaves it as a kill would."""
    torch.manual_seed(0)
    random.seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    run = open_run(folder)
    done, plain = run.restore(model=model, optimizer=optimizer)
    coefficient = plain.get("coefficient", 1.0)
    for step in range(done, steps):
        loss = ((model(torch.randn(4, 3)) - random.random()) ** 2).mean() * coefficient
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        coefficient *= 1.01
        run.log(step, loss=loss)
        run.count("seen", 4)
        if stop_after == step:
            if torn:
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write('{"step": ')
            return []
        run.save(step + 1, model=model, optimizer=optimizer, coefficient=coefficient)
    run.finish(weights=[w.item() for w in model.weight.flatten()], seen=run.counts["seen"])
    return run.results["weights"]


@pytest.mark.parametrize("stop_after", [0, 1, 6])
@pytest.mark.parametrize("torn", [False, True])
def test_resumed_run_equals_one_never_interrupted(tmp_path: Path, stop_after: int, torn: bool) -> None:
    whole = toy_loop(tmp_path / "whole", 9)
    toy_loop(tmp_path / "cut", 9, stop_after, torn)
    assert toy_loop(tmp_path / "cut", 9) == whole
    for name in ("metrics.jsonl", "done.json"):
        mine, theirs = ((tmp_path / which / name).read_text() for which in ("cut", "whole"))
        if name == "done.json":
            mine, theirs = ({**json.loads(t), "seconds": 0} for t in (mine, theirs))
        assert mine == theirs


def test_a_torn_state_falls_back_to_the_one_before(tmp_path: Path) -> None:
    whole = toy_loop(tmp_path / "whole", 9)
    toy_loop(tmp_path / "cut", 9, stop_after=5)
    newest = sorted((tmp_path / "cut").glob("state-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    assert toy_loop(tmp_path / "cut", 9) == whole


def tear(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    torn = {
        "empty": b"",
        "short": content[:100],
        "half": content[:middle],
        "zeros": bytes(len(content)),
        "no zip": b"what is this?" * 50,
        "zeros at the end": content[:middle] + bytes(len(content) - middle),
    }
    path.write_bytes(torn[how])


TORN = ["empty", "short", "half", "zeros", "no zip", "zeros at the end"]


@pytest.mark.parametrize("how", TORN)
def test_when_every_state_is_torn_nothing_begins_again_in_silence(tmp_path: Path, how: str) -> None:
    toy_loop(tmp_path, 9, stop_after=5)
    states = sorted(tmp_path.glob("state-*.pt"))
    for path in states:
        tear(path, how)
    logged = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"every saved state is torn \(state-000000004.pt, .*05.pt\); put one back"):
        toy_loop(tmp_path, 9)
    assert sorted(tmp_path.glob("state-*.pt")) == states and (tmp_path / "metrics.jsonl").read_bytes() == logged
    for path in states:
        path.unlink()
    whole = toy_loop(tmp_path / "whole", 9)
    assert toy_loop(tmp_path, 9) == whole


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory"), OSError(5, "I/O error")])
def test_a_good_state_that_cannot_be_loaded_now_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    toy_loop(tmp_path, 9, stop_after=5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(type(error)):
            toy_loop(tmp_path, 9)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert toy_loop(tmp_path, 9) == toy_loop(tmp_path / "whole", 9)


def test_a_torn_state_goes_when_a_new_one_stands(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    for step in (3, 8):
        run.save(step, value=step)
    newest = tmp_path / "state-000000008.pt"
    tear(newest, "half")
    assert run.restore() == (3, {"value": 3}) and newest.exists()
    run.save(5, value=5)
    assert [p.name for p in sorted(tmp_path.glob("state-*.pt"))] == ["state-000000003.pt", "state-000000005.pt"]
    assert run.restore() == (5, {"value": 5})


def test_a_full_disk_keeps_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(tmp_path)
    run.save(1, value=1.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        run.save(2, value=2.0)
    assert not list(tmp_path.glob("*.partial"))
    assert open_run(tmp_path).restore() == (1, {"value": 1.0})


def test_only_two_states_are_kept_and_none_when_done(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    for step in range(1, 5):
        run.save(step)
    assert [p.name for p in sorted(tmp_path.glob("state-*.pt"))] == ["state-000000003.pt", "state-000000004.pt"]
    run.finish()
    assert run.done and not list(tmp_path.glob("state-*.pt"))


def test_another_configuration_is_refused_by_the_key_that_differs(tmp_path: Path) -> None:
    open_run(tmp_path)
    with pytest.raises(InputError, match=r"lr is 0.1 there and 0.2 now"):
        open_run(tmp_path, config={"lr": 0.2})
    with pytest.raises(InputError, match=r"another seed: 1 there, 2 now"):
        open_run(tmp_path, seed=2)


def test_a_parent_that_changed_is_named(tmp_path: Path) -> None:
    open_run(tmp_path, parents={"data": "abc", "model": "def"})
    with pytest.raises(InputError, match=r"changed or is damaged since: model \(def then, xyz now\); bring it back"):
        open_run(tmp_path, parents={"data": "abc", "model": "xyz"})
    with pytest.raises(InputError, match=r"since: data \(abc then, none now\), model \(def then, none now\)"):
        open_run(tmp_path)


@pytest.mark.parametrize("content", ["", '{"results": ', "{}", "[]", "\0" * 40, "\udcff"])
@pytest.mark.parametrize("name", ["done.json", "manifest.json"])
def test_a_damaged_file_of_a_step_is_named_with_its_mend(tmp_path: Path, name: str, content: str) -> None:
    run = open_run(tmp_path)
    run.save(1)
    states = {path.name: path.read_bytes() for path in tmp_path.glob("state-*")}
    run.finish(loss=1.0)
    for state, bytes_ in states.items():
        (tmp_path / state).write_bytes(bytes_)
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=rf"{name} is damaged; put it back from a backup, or delete {tmp_path} and"):
        open_run(tmp_path)
    assert states.keys() <= {path.name for path in tmp_path.iterdir()}


def test_not_a_number_stops_and_names_its_place(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    run.check_finite(3, loss=torch.tensor(1.0))
    with pytest.raises(Diverged, match="loss became nan at step 4"):
        run.check_finite(4, loss=torch.tensor(float("nan")))
    with pytest.raises(Diverged, match=r"norm became inf.* Lower the learning rate, and run into another folder"):
        run.check_finite(4, norm=float("inf"))


def test_the_state_that_a_step_diverged_from_is_not_called_good(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    for step, words in ((1, "no good state had been saved yet"), (2, r"kept in .*state-000000001\.pt\.")):
        run.save(step, weight={"w": float(step)})
        with pytest.raises(Diverged, match=f"loss became nan at step {step}; .*{words}"):
            run.check_finite(step, loss=float("nan"))
    with pytest.raises(Diverged, match=r"kept in .*state-000000002\.pt\."):  # steps 2 to 4 went well
        run.check_finite(5, loss=float("nan"))


def test_only_ppo_is_told_of_its_kl_coefficient(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="Lower the learning rate or raise kl_coef, and run"):
        open_run(tmp_path, stage="ppo").check_finite(0, loss=float("nan"))


def test_saving_is_paced_by_time_and_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(run_module.time, "monotonic", lambda: now[0])
    run = Run.open(tmp_path, "toy", {}, 0, checkpoint_seconds=10)
    for step, moment in enumerate((5.0, 11.0, 12.0, 25.0), start=1):
        now[0] = moment
        run.save_if_due(step)
    assert [p.name for p in sorted(tmp_path.glob("state-*.pt"))] == ["state-000000002.pt", "state-000000004.pt"]


def test_atomic_writing_keeps_the_old_file_when_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        write_atomic(path, "new")
    assert path.read_text() == "old" and not (tmp_path / "file.json.partial").exists()


def test_samples_keep_any_script(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    run.sample(text="你好")
    assert read_jsonl(tmp_path / "samples.jsonl") == [{"text": "你好"}]
    assert "你好" in (tmp_path / "samples.jsonl").read_text(encoding="utf-8")


def test_what_is_told_beside_stands_in_the_next_line_alone(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    run.beside(length_bonus=0.5)
    run.log(0, score=1.0)
    run.log(1, score=2.0)
    first, second = read_jsonl(tmp_path / "metrics.jsonl")
    assert first == {"step": 0, "score": 1.0, "length_bonus": 0.5} and second == {"step": 1, "score": 2.0}
