"""Part and Local: what has a way of its own into a checkpoint, and what needs none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from phyla import state as ps
from phyla.errors import StateError
from phyla.state import Local, Part
from test_state import digest, net, stored, train


class Agent:
    def __init__(self, x):
        self.w = np.full(2, float(x))
        self.model = net(x)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.steps = x


def test_a_part_by_its_attributes():
    raw = {"agent": Part(Agent(1)), "n": 1}
    made = ps.made(raw, {})
    live = ps.unwrap(raw)
    agent = live["agent"]
    assert isinstance(agent, Agent)
    assert "state['agent']['optimizer']" in made.options
    trained = ps.unwrap({"agent": Part(Agent(2)), "n": 2})
    train({"model": trained["agent"].model, "optimizer": trained["agent"].optimizer})
    saved = stored(ps.save(trained, made))
    loaded, _ = ps.load(live, saved, made)
    assert loaded["agent"] is agent
    assert agent.steps == 2
    assert agent.w.tolist() == [2, 2]
    assert digest(loaded, made) == digest(trained, made)


class Booster:
    """Stands for a library that only knows bytes and files."""

    def __init__(self, text=""):
        self.text = text

    def save(self, path):
        Path(path).write_text(self.text)

    def load(self, path):
        self.text = Path(path).read_text()


def through_bytes(booster):
    return Part(booster, lambda b: b.text.encode(), lambda b, raw: setattr(b, "text", raw.decode()))


def through_a_new_object(booster):
    return Part(booster, lambda b: {"text": b.text, "n": np.ones(2)}, lambda b, saved: Booster(saved["text"]))


def through_a_file(tmp_path):
    def part(booster):
        def get(b):
            b.save(tmp_path / "model.txt")
            return tmp_path / "model.txt"

        return Part(booster, get, lambda b, path: b.load(path))

    return part


def through_a_directory(tmp_path):
    def part(booster):
        def get(b):
            (tmp_path / "dir" / "sub").mkdir(parents=True, exist_ok=True)
            (tmp_path / "dir" / "config.json").write_text("{}")
            b.save(tmp_path / "dir" / "sub" / "model.txt")
            return tmp_path / "dir"

        def put(b, path):
            assert (path / "config.json").read_text() == "{}"
            b.load(path / "sub" / "model.txt")

        return Part(booster, get, put)

    return part


@pytest.mark.parametrize("way", ["bytes", "object", "file", "directory"])
def test_parts(way, tmp_path):
    wrap = {
        "bytes": through_bytes, "object": through_a_new_object, "file": through_a_file(tmp_path),
        "directory": through_a_directory(tmp_path),
    }[way]  # fmt: skip
    made = ps.made({"list": [wrap(Booster("x"))]})
    trained = ps.unwrap({"list": [wrap(Booster("old"))]})
    trained["list"][0] = Booster("trained")  # the loop may rebind it
    saved = stored(ps.save(trained, made))
    loaded, _ = ps.load(ps.unwrap({"list": [wrap(Booster("fresh"))]}), saved, made)
    assert loaded["list"][0].text == "trained"
    assert digest(loaded, made) == digest(trained, made)
    assert ps.unsaved(loaded, made) == []


def test_a_part_that_cannot_be_put_back():
    with pytest.raises(StateError, match="needs set="):
        Part(Booster(), lambda b: b.text)
    with pytest.raises(StateError, match="no attributes"):
        ps.save({"x": Part(3)})
    with pytest.raises(StateError, match="no file or directory"):
        ps.save({"x": Part(3, lambda x: Path("/nowhere"), print)})


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", "", "a\0b", "c:\\x", "..\\x"])
def test_files_of_a_part_never_leave_their_directory(name, tmp_path):
    part = Part(Booster(), lambda b: b"", lambda b, path: None)
    for single in ("", name, ".."):
        with pytest.raises(StateError, match="could lie anywhere"):
            part.restore(Booster(), {"phyla.path": single, "files": {name: b"x"}})


def test_locals_stay_and_are_never_saved():
    made_here = []

    def make():
        made_here.append(object())
        return made_here[-1]

    def raw(x):
        return {"w": np.full(2, x), "buffer": Local(make), "envs": [Local(make), 1]}

    kept = {}
    made = ps.made(raw(1))
    ps.check(raw(1))
    live = ps.unwrap(raw(1), kept)
    assert len(made_here) == 2
    assert set(kept) == {"state['buffer']", "state['envs'][0]"}
    assert ps.unwrap(raw(1), kept)["buffer"] is live["buffer"]
    saved = stored(ps.save(live, made))
    assert "buffer" not in saved["state"]
    loaded, _ = ps.load(ps.unwrap(raw(2), kept), saved, made)
    assert loaded["buffer"] is live["buffer"]
    assert loaded["envs"] == [made_here[1], 1]
    assert loaded["w"].tolist() == [1, 1]
    assert len(made_here) == 2

    another = ps.unwrap(live, {}, made)  # the same live objects, for another member
    assert another["buffer"] is made_here[2]
    assert another["envs"] == [made_here[3], 1]
    assert ps.unwrap(another, kept, made)["buffer"] is made_here[0]
