"""A data set becomes a store, whenever it is interrupted; damaged cases are named."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scans import write_series, write_volume
from typer.testing import CliRunner

from reference.__main__ import app
from reference.data import make_phantom, read_nifti_folder, read_store
from reference.data import store as store_module
from reference.data.layouts import Reading, find_sources
from reference.data.prepare import prepare, sha256

CT = Reading((-100.0, 240.0))


def write_cases(folder, count=3, shape=(3, 8, 9)):
    for number in range(count):
        rng = np.random.default_rng(number)
        write_volume(folder / "imagesTr" / f"case_{number}.nii.gz", rng.integers(-200, 300, shape).astype(np.int16))
        write_volume(folder / "labelsTr" / f"case_{number}.nii.gz", rng.integers(0, 3, shape).astype(np.uint8))
    return find_sources(folder)


def assert_whole(store, data, count=None):
    """Every case there is what its files hold."""
    expected = {case.name: case for case in read_nifti_folder(data, window=CT.window)}
    found = read_store(store)
    assert count is None or len(found) == count
    for case in found:
        np.testing.assert_array_equal(case.image, expected[case.name].image)
        np.testing.assert_array_equal(case.label, expected[case.name].label)
        assert case.geometry == expected[case.name].geometry


def files(store):
    return {path.relative_to(store): path.stat().st_mtime_ns for path in store.rglob("*.npy")}


def run(*arguments):
    # Wide enough not to break messages; without the frame around errors.
    result = CliRunner().invoke(app, ["prepare", *map(str, arguments)], env={"COLUMNS": "1000", "TERM": "dumb"})
    return result.exit_code, re.sub(r"\s+", " ", result.output)


class TestKeeping:
    def test_what_is_there_is_kept(self, tmp_path):
        sources = write_cases(tmp_path / "data")
        store = tmp_path / "store"
        names = ["case_0", "case_1", "case_2"]
        assert prepare(sources, store, CT).written == names
        before = files(store)
        again = prepare(sources, store, CT)
        assert (again.written, again.kept, again.damaged) == ([], names, {})
        assert files(store) == before
        assert_whole(store, tmp_path / "data", 3)

    def test_what_has_changed_is_written_again(self, tmp_path):
        sources = write_cases(tmp_path / "data")
        prepare(sources, tmp_path / "store", CT)
        write_volume(tmp_path / "data" / "labelsTr" / "case_1.nii.gz", np.ones((3, 8, 9), np.uint8))
        assert prepare(sources, tmp_path / "store", CT).written == ["case_1"]
        assert_whole(tmp_path / "store", tmp_path / "data", 3)

    @pytest.mark.parametrize(
        "reading",
        [Reading((-100.0, 241.0)), Reading("percentiles"), Reading(CT.window, (1, 2)), Reading(CT.window, size=4)],
    )
    def test_another_way_of_reading_is_written_again(self, tmp_path, reading):
        sources = write_cases(tmp_path / "data")
        prepare(sources, tmp_path / "store", CT)
        assert len(prepare(sources, tmp_path / "store", reading).written) == 3
        assert len(prepare(sources, tmp_path / "store", reading).kept) == 3

    def test_files_may_move(self, tmp_path):
        prepare(write_cases(tmp_path / "data"), tmp_path / "store", CT)
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        assert len(prepare(find_sources(tmp_path / "elsewhere"), tmp_path / "store", CT).kept) == 3

    @pytest.mark.parametrize("name", ["image.npy", "label.npy", "case.json"])
    def test_a_damaged_case_of_the_store_is_written_again(self, tmp_path, name):
        sources = write_cases(tmp_path / "data")
        prepare(sources, tmp_path / "store", CT)
        path = tmp_path / "store" / "case_2" / name
        path.write_bytes(path.read_bytes()[:-9])
        assert prepare(sources, tmp_path / "store", CT).written == ["case_2"]
        assert_whole(tmp_path / "store", tmp_path / "data", 3)

    def test_hash_of_a_folder(self, tmp_path):
        write_series(tmp_path / "a", np.zeros((3, 4, 5), np.int16))
        first = sha256(tmp_path / "a")
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        assert sha256(tmp_path / "b") == first
        file = next((tmp_path / "b").iterdir())
        file.rename(file.with_name("renamed.dcm"))
        assert sha256(tmp_path / "b") != first

    def test_hash_of_a_file(self, tmp_path):
        (tmp_path / "a").write_bytes(b"abc")
        assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class Killed(BaseException):
    """In place of a signal: nothing below catches it."""


class TestInterrupted:
    @pytest.mark.parametrize("replaced", [False, True])
    def test_at_every_step_of_writing(self, tmp_path, monkeypatch, replaced):
        """The process dies before each change on disk in turn: half a case is never seen, and a rerun mends it."""
        data, store = tmp_path / "data", tmp_path / "store"
        sources = write_cases(data, 2)
        steps = 0

        def dying(change):
            def perform(*arguments, **options):
                nonlocal steps
                steps -= 1
                if steps < 0:
                    raise Killed
                return change(*arguments, **options)

            return perform

        died = 0
        for number in range(100):
            shutil.rmtree(store, ignore_errors=True)
            if replaced:
                prepare(sources, store, Reading((0.0, 1.0)))
            steps = number
            with monkeypatch.context() as patched:
                for owner, name in (
                    (store_module.np, "save"),
                    (store_module.shutil, "rmtree"),
                    (store_module.Path, "mkdir"),
                    (store_module.Path, "rename"),
                    (store_module.Path, "write_text"),
                ):
                    patched.setattr(owner, name, dying(getattr(owner, name)))
                try:
                    prepare(sources, store, CT)
                except Killed:
                    died += 1
                else:
                    break
            if any(store.glob("[!.]*")):
                assert_whole(store, data)
            prepare(sources, store, CT)
            assert_whole(store, data, 2)
            assert all(case.window == CT.window for case in read_store(store))
            assert sorted(path.name for path in store.iterdir()) == ["case_0", "case_1"]
        assert died >= 14

    def test_kill_9(self, tmp_path):
        data, store = tmp_path / "data", tmp_path / "store"
        sources = write_cases(data, 24, (40, 64, 64))
        # The command alone, without the others' imports.
        program = "import typer; from reference.commands.prepare import prepare; typer.run(prepare)"
        command = [sys.executable, "-c", program, str(data), str(store), "--window=-100,240"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        while not (store / "case_1").exists() and process.poll() is None:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done = len(read_store(store))
        assert 2 <= done < 24
        assert_whole(store, data, done)
        resumed = prepare(sources, store, CT)
        assert (len(resumed.written), len(resumed.kept)) == (24 - done, done)
        assert_whole(store, data, 24)


class TestDamaged:
    @pytest.fixture
    def data(self, tmp_path):
        write_cases(tmp_path / "data")
        torn = tmp_path / "data" / "imagesTr" / "case_1.nii.gz"
        torn.write_bytes(torn.read_bytes()[:-20])
        return tmp_path / "data"

    def test_it_is_named(self, tmp_path, data):
        with pytest.raises(
            ValueError, match=r"^case_1: expected .*case_1.nii.gz to be a whole NIfTI volume, but it is"
        ):
            prepare(find_sources(data), tmp_path / "store", CT)
        assert [case.name for case in read_store(tmp_path / "store")] == ["case_0"]

    def test_it_is_left_out_only_when_asked(self, tmp_path, data):
        done = prepare(find_sources(data), tmp_path / "store", CT, skip_damaged=True)
        assert done.written == ["case_0", "case_2"]
        assert list(done.damaged) == ["case_1"]
        assert [case.name for case in read_store(tmp_path / "store")] == ["case_0", "case_2"]

    def test_on_the_command_line(self, tmp_path, data):
        code, output = run(data, tmp_path / "store", "--window=-100,240")
        assert code == 2
        assert re.search(r"case_1: expected \S+case_1.nii.gz to be a whole .* \(--skip-damaged leaves out what", output)
        code, output = run(data, tmp_path / "store", "--window=-100,240", "--skip-damaged")
        assert code == 0
        assert "1 written, 1 kept, 1 damaged and left out" in output
        assert re.search(r"left out case_1: expected \S+case_1.nii.gz to be a whole", output)


class TestCommand:
    def test_a_task_with_all_options(self, tmp_path):
        write_cases(tmp_path / "data", 2)
        arguments = (tmp_path / "data", tmp_path / "store", "--window", "-50,150", "--labels", "1,2", "--size", "18")
        code, output = run(*arguments)
        assert code == 0
        assert "2/2" in output
        assert "2 written, 0 kept, 0 damaged and left out" in output
        case = read_store(tmp_path / "store")[0]
        assert (case.window, case.image.shape) == ((-50, 150), (3, 16, 18))
        record = json.loads((tmp_path / "store" / "case_0" / "case.json").read_text())
        assert record["reading"] == {"window": [-50, 150], "labels": [1, 2], "size": 18, "channel": None}
        assert record["sources"][1]["sha256"] == sha256(tmp_path / "data" / "labelsTr" / "case_0.nii.gz")

    def test_nih(self, tmp_path):
        phantom = make_phantom(0, size=48, depth=6)
        write_series(tmp_path / "data" / "PANCREAS_0001" / "a", phantom.image, phantom.spacing)
        write_volume(tmp_path / "data" / "label0001.nii.gz", phantom.label[:, ::-1].astype(np.uint8))
        assert run(tmp_path / "data", tmp_path / "store")[0] == 0
        (case,) = read_store(tmp_path / "store")
        assert case.image.dtype == np.int16
        np.testing.assert_array_equal(case.image, phantom.image)
        np.testing.assert_array_equal(case.label, phantom.label)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ((), "expected a window, such as -100,240"),
            (("--window", "wide"), "expected LO,HI or percentiles, got 'wide'"),
            (("--window", "1,2,3"), "expected LO,HI or percentiles, got '1,2,3'"),
            (("--window", "5,5"), "expected `window` to be (lo, hi) with hi greater than lo, got (5.0, 5.0)"),
            (("--window", "0,1", "--labels", "a"), "expected label values such as 1,2, got 'a'"),
            (("--window", "0,1", "--layout", "nih"), "expected folders PANCREAS_0001"),
        ],
    )
    def test_wrong_options(self, tmp_path, options, message):
        write_cases(tmp_path / "data", 1)
        code, output = run(tmp_path / "data", tmp_path / "store", *options)
        assert code == 2
        assert message in output

    def test_no_data(self, tmp_path):
        code, output = run(tmp_path / "absent", tmp_path / "store")
        assert code == 2
        assert re.search(r"expected a folder at \S+absent, found none", output)

    @pytest.mark.data
    def test_a_hippocampus_comes_back(self, data, tmp_path):
        for part in ("imagesTr", "labelsTr"):
            (tmp_path / part).mkdir()
            for file in sorted((data / "hippocampus_3d" / part).iterdir())[:5]:
                (tmp_path / part / file.name).symlink_to(file)
        assert run(tmp_path, tmp_path / "store", "--window", "percentiles", "--labels", "2")[0] == 0
        expected = read_nifti_folder(tmp_path, window=None, labels=(2,))
        for ours, theirs in zip(read_store(tmp_path / "store"), expected, strict=True):
            np.testing.assert_array_equal(ours.image, theirs.image)
            np.testing.assert_array_equal(ours.label, theirs.label)
            assert (ours.window, ours.spacing, ours.geometry) == (theirs.window, theirs.spacing, theirs.geometry)
