"""A store gives back what was written, reads only what is used, and never shows half a case."""

import json
import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from reference.data import Case, Geometry, SliceUnits, read_store
from reference.data.store import read_record, write_case

GEOMETRY = Geometry((7, 5, 4), (0.7, 0.8, 2.5), (-1.0, 0.1 + 0.2, 3.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def make_case(name="a", dtype=np.int16, shape=(4, 5, 7), seed=0, geometry=GEOMETRY):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 100, shape).astype(dtype)
    return Case(name, f"patient {name}", image, rng.random(shape) > 0.5, (2.5, 0.8, 0.7), (10.0, 90.0), geometry)


def assert_equal(ours, theirs):
    np.testing.assert_array_equal(ours.image, theirs.image)
    np.testing.assert_array_equal(ours.label, theirs.label)
    for name in ("name", "patient", "spacing", "window", "geometry"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_cases_come_back_mapped_and_sorted(tmp_path):
    cases = [make_case(name, seed=seed) for seed, name in enumerate(("b", "a", "c.d"))]
    for case in cases:
        write_case(tmp_path / "store", case, {"sources": []})
    found = read_store(tmp_path / "store")
    assert [case.name for case in found] == ["a", "b", "c.d"]
    for ours, theirs in zip(found, sorted(cases, key=lambda case: case.name), strict=True):
        assert_equal(ours, theirs)
        assert isinstance(ours.image, np.memmap)
        assert isinstance(ours.label, np.memmap)
        assert not ours.image.flags.writeable


def test_without_geometry(tmp_path):
    write_case(tmp_path, make_case(geometry=None), {})
    assert read_store(tmp_path)[0].geometry is None


@pytest.mark.parametrize(
    ("dtype", "lo", "hi", "stored"),
    [
        ("uint8", 0, 255, "uint8"),
        ("int16", -1024, 3071, "int16"),
        ("int32", -32768, 32767, "int16"),
        ("int32", -1, 32768, "int32"),
        ("int32", 0, 65535, "uint16"),
        ("int64", 0, 2**40, "int64"),
        ("float32", 0, 1, "float32"),
        ("float64", 0, 1, "float32"),
    ],
)
def test_dtypes(tmp_path, dtype, lo, hi, stored):
    case = make_case(dtype=dtype)
    case.image.flat[:2] = lo, hi
    write_case(tmp_path, case, {})
    (found,) = read_store(tmp_path)
    assert found.image.dtype == stored
    np.testing.assert_array_equal(found.image, case.image)


def test_an_older_case_is_replaced(tmp_path):
    for seed in range(2):
        write_case(tmp_path, make_case(seed=seed), {"seed": seed})
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert_equal(read_store(tmp_path)[0], make_case(seed=seed))
        assert read_record(tmp_path / "a")["seed"] == seed


def test_leftovers_of_a_killed_process_are_not_read_and_go(tmp_path):
    write_case(tmp_path, make_case("a"), {})
    (tmp_path / "a").rename(tmp_path / ".unfinished-b")
    write_case(tmp_path, make_case("a"), {})
    assert [case.name for case in read_store(tmp_path)] == ["a"]
    write_case(tmp_path, make_case("b"), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


class TestDamaged:
    @pytest.mark.parametrize("name", ["image.npy", "label.npy", "case.json"])
    @pytest.mark.parametrize("left", [0, 1, 100, -1])
    def test_truncated_files(self, tmp_path, name, left):
        write_case(tmp_path, make_case(), {})
        path = tmp_path / "a" / name
        left = left if name != "case.json" or left != -1 else -3  # The last is a line break.
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(ValueError, match=r"expected .*/a to be a whole prepared case, but it is damaged: "):
            read_store(tmp_path)

    def test_missing_arrays(self, tmp_path):
        write_case(tmp_path, make_case(), {})
        (tmp_path / "a" / "label.npy").unlink()
        with pytest.raises(ValueError, match=r"/a to be a whole prepared case, but it is damaged: .*label.npy"):
            read_store(tmp_path)

    def test_arrays_of_another_case(self, tmp_path):
        write_case(tmp_path, make_case("a"), {})
        write_case(tmp_path, make_case("b", shape=(4, 5, 8)), {})
        (tmp_path / "b" / "label.npy").replace(tmp_path / "a" / "label.npy")
        with pytest.raises(ValueError, match=r"/a to be a whole .*to have one shape \(D, H, W\), got \(4, 5, 7\) and"):
            read_store(tmp_path)

    def test_another_format(self, tmp_path):
        write_case(tmp_path, make_case(), {})
        record = json.loads((tmp_path / "a" / "case.json").read_text())
        (tmp_path / "a" / "case.json").write_text(json.dumps(record | {"format": 0}))
        with pytest.raises(ValueError, match="to be of format 1, got 0: prepare it again"):
            read_store(tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match=r"expected prepared cases in .*, found none"):
            read_store(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"expected a store at .*absent, found none"):
            read_store(tmp_path / "absent")


class TestUnits:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_units_of_a_store_are_those_of_memory(self, tmp_path, axis):
        case = make_case()
        write_case(tmp_path, case, {})
        ours, theirs = SliceUnits(read_store(tmp_path), axis), SliceUnits([case], axis)
        assert ours.slices == theirs.slices
        for mapped, held in zip(ours, theirs, strict=True):
            for key in ("image", "label", "spacing"):
                np.testing.assert_array_equal(mapped[key], held[key])
                assert mapped[key].is_contiguous()

    def test_units_are_scaled_to_the_window(self, tmp_path):
        case = make_case()
        write_case(tmp_path, case, {})
        units = SliceUnits(read_store(tmp_path), keep=1.0)
        expected = (case.image[:3].clip(10, 90) - 10) / 80
        np.testing.assert_allclose(units[1]["image"], expected, rtol=0, atol=1e-6)

    def test_sending_a_case_sends_names_not_voxels(self, tmp_path):
        write_case(tmp_path, make_case(shape=(10, 100, 100)), {})
        (case,) = read_store(tmp_path)
        sent = pickle.dumps(case)
        assert len(sent) < 2000
        received = pickle.loads(sent)  # noqa: S301
        assert isinstance(received.image, np.memmap)
        assert_equal(received, case)

    def test_sending_parts_and_cases_in_memory(self, tmp_path):
        write_case(tmp_path, make_case(shape=(10, 10, 10)), {})
        (case,) = read_store(tmp_path)
        part = Case("part", "part", case.image[3:5], case.label[3:5], case.spacing)
        for sent in (part, make_case()):
            assert_equal(pickle.loads(pickle.dumps(sent)), sent)  # noqa: S301

    def test_data_loader_workers(self, tmp_path):
        for name in "ab":
            write_case(tmp_path, make_case(name), {})
        units = SliceUnits(read_store(tmp_path), axis=2, keep=1.0)
        found = list(DataLoader(units, batch_size=None, num_workers=2))
        assert len(found) == len(units) == 14
        for ours, theirs in zip(found, units, strict=True):
            np.testing.assert_array_equal(ours["image"], theirs["image"])
