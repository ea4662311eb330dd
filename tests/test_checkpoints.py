"""Stores of checkpoints: the shared conformance suite, and what a directory has to survive."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phyla import failpoints
from phyla.checkpoints import file_name, local
from phyla.checkpoints.local import LocalCheckpoints
from phyla.checkpoints.memory import MemoryCheckpoints
from phyla.errors import CheckpointError, SettingsError
from phyla.events import Checkpoint
from phyla.testing.checkpoints import FILE, TREE, CheckpointsConformance


class TestLocal(CheckpointsConformance):
    def open(self):
        return LocalCheckpoints(self.path)

    def raw(self, file):
        return (self.path / file).read_bytes()

    def put(self, file, data):
        (self.path / file).write_bytes(data)


class TestDurable(TestLocal):
    def open(self):
        return LocalCheckpoints(self.path, durable=True)


class TestMemory(CheckpointsConformance):
    def open(self):
        if not hasattr(self, "store"):
            self.store = MemoryCheckpoints()
        return self.store

    def raw(self, file):
        return self.store._files[file]

    def put(self, file, data):
        self.store._files[file] = data


@pytest.fixture
def store(tmp_path):
    return LocalCheckpoints(tmp_path / "checkpoints")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_is_found(data):
    store = MemoryCheckpoints()
    saved = store.save(
        FILE, {"x": np.arange(data.draw(st.integers(0, 20)), dtype="f4"), "s": data.draw(st.text(max_size=5))}
    )
    raw = bytearray(store._files[FILE])
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    store._files[FILE] = bytes(raw)
    with pytest.raises(CheckpointError, match="other bytes"):
        store.load(saved)


def test_files_and_directory_are_private(tmp_path):
    old = os.umask(0)
    try:
        store = LocalCheckpoints(tmp_path / "checkpoints")
        store.save(FILE, TREE)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "checkpoints").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "checkpoints" / FILE).stat().st_mode) == 0o600


def test_readonly_never_writes(tmp_path):
    reader = LocalCheckpoints(tmp_path / "none", readonly=True)
    assert reader.files() == []
    assert not (tmp_path / "none").exists()
    saved = LocalCheckpoints(tmp_path).save(FILE, TREE)
    reader = LocalCheckpoints(tmp_path, readonly=True)
    assert reader.load(saved)["step"] == 3
    for write in (lambda: reader.save(FILE, TREE), lambda: reader.delete([FILE]), lambda: reader.sync([FILE])):
        with pytest.raises(CheckpointError, match="reading only"):
            write()


def test_foreign_files_are_left_alone(store):
    for name in ("notes.txt", "m0-2.safetensors.part", "mx-1.safetensors"):
        (store.root / name).write_text("x")
    store.save(FILE, TREE)
    assert store.files() == [FILE]
    store.delete(store.files())
    assert len(list(store.root.iterdir())) == 3


def test_a_link_is_not_followed(store, tmp_path):
    saved = store.save(FILE, TREE)
    outside = tmp_path / "outside"
    (store.root / FILE).rename(outside)
    (store.root / FILE).symlink_to(outside)
    with pytest.raises(CheckpointError, match="cannot be read"):
        store.load(saved)
    assert store.save(FILE, {**TREE, "step": 9}).file == FILE  # replaces the link, not what it leads to
    assert not (store.root / FILE).is_symlink()
    assert outside.stat().st_size == saved.size


def test_a_place_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be kept"):
        LocalCheckpoints(tmp_path / "file" / "checkpoints")


# Faults of the disk


@pytest.mark.parametrize("call", ["open", "writev", "close"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_an_error_while_writing_leaves_nothing(store, monkeypatch, call, number):
    real = getattr(os, call)

    def fail(*args, **kwargs):
        if call == "close":
            real(*args, **kwargs)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(local.os, call, fail)
    with pytest.raises(CheckpointError, match=rf"{os.strerror(number)}; .* bytes are free there") as error:
        store.save(FILE, TREE)
    monkeypatch.undo()
    assert store.files() == []
    assert FILE in str(error.value)
    assert str(store.root) in str(error.value)
    store.load(store.save(FILE, TREE))


def test_writes_that_take_only_a_part_go_on(store, monkeypatch):
    real = os.writev
    monkeypatch.setattr(local.os, "writev", lambda fd, buffers: real(fd, [memoryview(buffers[0])[:7]]))
    saved = store.save(FILE, TREE)
    monkeypatch.undo()
    assert store.load(saved)["step"] == 3


def test_more_arrays_than_one_call_takes(store):
    tree = {f"{i}": np.array([i]) for i in range(2500)}
    back = store.load(store.save(FILE, tree))
    assert all(int(back[key][0]) == int(key) for key in tree)


def test_a_failed_fsync_is_never_trusted_again(store, monkeypatch):
    store.save(FILE, TREE)
    store.save(file_name(1, 2), TREE)
    failed = []

    def fsync(fd):
        if os.path.samestat(os.fstat(fd), (store.root / FILE).stat()) and not failed:
            failed.append(fd)
            raise OSError(errno.EIO, "EIO")

    monkeypatch.setattr(local.os, "fsync", fsync)
    assert store.sync([FILE, file_name(1, 2)]) == [file_name(1, 2)]
    assert store.sync([FILE]) == []


def test_durable_reports_a_failed_fsync_at_once(tmp_path, monkeypatch):
    store = LocalCheckpoints(tmp_path, durable=True)
    monkeypatch.setattr(local.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(CheckpointError, match="Input/output"):
        store.save(FILE, TREE)
    assert store.files() == []


def test_durable_syncs_file_and_directory(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(local.os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    LocalCheckpoints(tmp_path / "lazy").save(FILE, TREE)
    assert synced == []
    LocalCheckpoints(tmp_path / "strict", durable=True).save(FILE, TREE)
    assert synced == [str(tmp_path / "strict" / FILE), str(tmp_path / "strict")]


def test_power_loss_takes_what_was_not_synced():
    store = MemoryCheckpoints()
    one, two = store.save(file_name(0, 2), TREE), store.save(file_name(0, 4), TREE)
    store.sync([one.file])
    store.lose_power()
    store.load(one)
    with pytest.raises(CheckpointError):
        store.load(two)


def test_damage_is_found():
    store = MemoryCheckpoints()
    saved = store.save(FILE, TREE)
    store.damage(FILE)
    store.damage(file_name(9, 2))
    with pytest.raises(CheckpointError):
        store.load(saved)
    assert store.files() == [FILE, file_name(9, 2)]


def run(code, *, failpoint=None, **kwargs):
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path), **({"PHYLA_FAILPOINT": failpoint} if failpoint else {})}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, **kwargs
    )


def test_disk_full_in_a_real_process(tmp_path):
    code = f"""
        import resource, numpy as np
        from phyla.checkpoints.local import LocalCheckpoints
        from phyla.errors import CheckpointError
        store = LocalCheckpoints({str(tmp_path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 200_000))
        small = store.save("m0-2.safetensors", {{"x": np.ones(10)}})
        try:
            store.save("m0-4.safetensors", {{"x": np.ones(100_000)}})
        except CheckpointError as error:
            print(error)
        assert store.files() == ["m0-2.safetensors"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        store.load(small)
        store.load(store.save("m0-4.safetensors", {{"x": np.ones(20_000)}}))  # there is room again
    """
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "m0-4.safetensors of 800," in done.stdout
    assert "File too large" in done.stdout


SAVE = """
    import sys, numpy as np
    from phyla.checkpoints.local import LocalCheckpoints
    LocalCheckpoints(sys.argv[1] if len(sys.argv) > 1 else {path!r}).save("m0-2.safetensors", {{"x": np.arange(1000.0)}})
    print("saved")
"""


@pytest.mark.parametrize("point", ["save.created", "save.half", "save.written"])
def test_killed_at_any_point_of_a_save(tmp_path, point):
    code = SAVE.format(path=str(tmp_path))
    killed = run(code, failpoint=f"{point}:crash")
    assert killed.returncode == -signal.SIGKILL
    assert "saved" not in killed.stdout
    size = (tmp_path / FILE).stat().st_size
    assert {"save.created": size == 0, "save.half": 4000 < size < 8000, "save.written": size > 8000}[point]
    assert run(code).stdout == "saved\n"
    store = LocalCheckpoints(tmp_path)
    saved = store.save(FILE, {"x": np.arange(1000.0)})
    assert store.load(saved)["x"][999] == 999


def test_a_save_that_raises_leaves_nothing(store):
    for point in ("save.created", "save.half", "save.written"):
        failpoints.arm(f"{point}:raise")
        with pytest.raises(CheckpointError):
            store.save(FILE, TREE)
        assert store.files() == []
    assert store.load(store.save(FILE, TREE))["step"] == 3


def test_many_processes_and_threads_can_share_a_directory(store):
    saves = [(file_name(m, s), {"x": np.full(50, m * 100 + s)}) for m in range(4) for s in range(1, 8)]
    barrier = threading.Barrier(4)

    def work(part):
        other = LocalCheckpoints(store.root)
        barrier.wait()
        return [other.save(*save) for save in saves[part::4]]

    with ThreadPoolExecutor(4) as pool:
        saved = [one for part in pool.map(work, range(4)) for one in part]
    assert sorted(store.files()) == sorted(one.file for one in saved)
    for one in saved:
        store.load(one)


def test_the_size_is_looked_at_before_anything_is_read(store):
    saved = store.save(FILE, TREE)
    with open(store.root / FILE, "r+b") as file:
        file.truncate(10**12)  # a sparse file of a terabyte
    with pytest.raises(CheckpointError, match="1,000,000,000,000 bytes"):
        store.load(saved)
    assert store.save(FILE, TREE) == saved


def test_a_pickle_in_the_place_of_a_checkpoint_is_never_run(store, tmp_path):
    import pickle

    marker = tmp_path / "marker"

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    import xxhash

    data = pickle.dumps(Bomb())
    (store.root / FILE).write_bytes(data)
    with pytest.raises(CheckpointError):
        store.load(Checkpoint(FILE, xxhash.xxh3_128_hexdigest(data), len(data)))
    assert not marker.exists()


# Failpoints


@pytest.mark.parametrize(
    "spec", ["", "save.half", "save.half:explode", "nowhere:crash", "save.half:crash:0", "save.half:sleep=x"]
)
def test_a_failpoint_that_means_nothing_is_an_error(spec):
    with pytest.raises(SettingsError, match=r"save\.half"):
        failpoints.parse(spec)
    done = run("import phyla.failpoints", failpoint=spec or "x")
    assert done.returncode == 1
    assert "expected name:action" in done.stderr


def test_a_failpoint_strikes_once_at_the_nth_pass():
    failpoints.arm("claim.read:raise:3")
    try:
        for _ in range(2):
            failpoints.point("claim.read")
        failpoints.point("claim.decided")
        assert failpoints.armed("claim.read")
        with pytest.raises(failpoints.Injected):
            failpoints.point("claim.read")
        failpoints.point("claim.read")
        failpoints.arm("claim.read:sleep=0.01")
        with pytest.raises(SettingsError, match="no failpoint"):
            failpoints.point("elsewhere")
        failpoints.point("claim.read")
    finally:
        failpoints.arm(None)
    failpoints.point("elsewhere")  # unarmed, nothing is looked at


def test_a_stopped_process_goes_on():
    child = subprocess.Popen(
        [sys.executable, "-c", "from phyla import failpoints; failpoints.point('claim.read'); print('on')"],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "PHYLA_FAILPOINT": "claim.read:stop"},
        stdout=subprocess.PIPE,
    )
    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=20)[0] == b"on\n"
    finally:
        child.kill()
