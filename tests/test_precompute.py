import functools
import json
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from multilevel_loss.distance import SignedDistanceMapd, signed_distance_map

REASON = "needs the extra dependencies `precompute`"
SimpleITK = pytest.importorskip("SimpleITK", reason=REASON)
pytest.importorskip("tqdm", reason=REASON)

from multilevel_loss import precompute  # noqa: E402

SPACING = (5.0, 0.8, 0.7)
COSINES = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def labels(*shape: int, classes: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(classes, size=shape, dtype=np.uint8)


def write_nifti(path, values, spacing=SPACING):
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing(spacing[::-1][: values.ndim])
    image.SetOrigin((10.0, -20.0, 30.0)[: values.ndim])
    if values.ndim == 3:
        image.SetDirection(COSINES)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


def read_nifti(path):
    image = SimpleITK.ReadImage(str(path))
    return SimpleITK.GetArrayFromImage(image), image


def expected(values, **options):
    return signed_distance_map(torch.from_numpy(values.astype(np.int64))[None], **options)[0].numpy()


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "labels").mkdir()
    return tmp_path / "labels", tmp_path / "maps"


@pytest.fixture
def run(folders, monkeypatch, capsys):
    """The command in this process, its workers threads; returns its exit code and what it wrote."""
    monkeypatch.setattr(precompute, "ProcessPoolExecutor", lambda workers, *_, **__: ThreadPoolExecutor(workers))

    def command(*options: str):
        try:
            code = precompute.main([*map(str, folders), *options])
        except SystemExit as stop:
            code = stop.code
        written = capsys.readouterr()
        return code, written.out, written.err

    return command


def test_nifti_maps_are_in_mm_by_the_header_and_keep_its_geometry(folders, run):
    source, out = folders
    values = labels(4, 7, 5)
    write_nifti(source / "a.nii.gz", values)
    write_nifti(source / "deeper" / "b.nii", values.astype(np.float64))
    assert run() == (0, "2 written, 0 kept, 0 failed\n", "")
    for name in ("a.nii.gz", "deeper/b.nii"):
        maps, image = read_nifti(out / name)
        assert maps.dtype == np.float32
        np.testing.assert_array_equal(maps, expected(values, spacing=image.GetSpacing()[::-1])[0])
        np.testing.assert_allclose(image.GetSpacing(), SPACING[::-1], rtol=1e-6)
        np.testing.assert_allclose(image.GetOrigin(), (10, -20, 30), rtol=1e-6)
        np.testing.assert_allclose(image.GetDirection(), COSINES, atol=1e-6)


def test_a_hand_worked_map_has_its_distances_along_the_right_axes(folders, run):
    source, out = folders
    values = np.zeros((3, 3, 3), np.uint8)
    values[1, 1, 1] = 1
    write_nifti(source / "a.nii.gz", values, spacing=(5.0, 2.0, 1.0))
    run()
    maps, _ = read_nifti(out / "a.nii.gz")
    assert (maps[0, 1, 1], maps[1, 0, 1], maps[1, 1, 0], maps[1, 1, 1]) == (5, 2, 1, 0)


def test_classes_are_the_components_of_a_nifti_map(folders, run):
    source, out = folders
    values = labels(4, 7, 5, classes=3)
    write_nifti(source / "a.nii.gz", values)
    assert run("--num-classes", "3", "--voxels")[0] == 0
    maps, _ = read_nifti(out / "a.nii.gz")
    assert maps.shape == (4, 7, 5, 3)
    np.testing.assert_array_equal(np.moveaxis(maps, -1, 0), expected(values, num_classes=3))


@pytest.mark.parametrize("classes", [2, 3])
def test_images_of_two_dimensions(folders, run, classes):
    source, out = folders
    values = labels(6, 5, classes=classes)
    write_nifti(source / "a.nii", values, spacing=(2.0, 3.0))
    assert run("--npy", *(["--num-classes", "3"] if classes == 3 else []))[0] == 0
    options = {"num_classes": 3} if classes == 3 else {}
    np.testing.assert_array_equal(np.load(out / "a.npy"), expected(values, spacing=(2.0, 3.0), **options))
    assert run(*(["--num-classes", "3"] if classes == 3 else []))[0] == 0
    maps, image = read_nifti(out / "a.nii")
    assert (maps.shape, image.GetSpacing()) == ((6, 5) if classes == 2 else (6, 5, 3), (3.0, 2.0))


@pytest.mark.parametrize(
    "values", [labels(9), labels(6, 5).T, labels(3, 4, 5).astype(">i2"), labels(4, 6).astype("f4")]
)
def test_npy_maps_are_in_voxels(folders, run, values):
    source, out = folders
    np.save(source / "a.npy", values)
    assert run()[0] == 0
    maps = np.load(out / "a.npy")
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, expected(values))


def test_every_option_reaches_the_map(folders, run):
    source, out = folders
    values = labels(6, 5, classes=4)
    np.save(source / "a.npy", values)
    given = "--num-classes 3 --ignore-index 3 --boundary midpoint --clip 1.2 --normalize max --dtype float16"
    assert run(*given.split())[0] == 0
    options = {"num_classes": 3, "ignore_index": 3, "boundary": "midpoint", "clip": 1.2, "normalize": "max"}
    maps = np.load(out / "a.npy")
    assert maps.dtype == np.float16
    np.testing.assert_array_equal(maps, expected(values, **options).astype(np.float16))


def test_what_is_there_is_kept_until_the_labels_the_options_or_the_file_change(folders, run):
    source, out = folders
    np.save(source / "a.npy", labels(6, 5))
    np.save(source / "b.npy", labels(6, 5, seed=1))
    summary = {"first": run()[1], "again": run()[1]}
    np.save(source / "a.npy", labels(6, 5, seed=2))
    summary["other labels"] = run()[1]
    summary["other options"] = run("--clip", "2")[1]
    content = (out / "b.npy").read_bytes()
    (out / "b.npy").write_bytes(content[:-1] + b"\1")
    summary["damaged map"] = run("--clip", "2")[1]
    assert (out / "b.npy").read_bytes() == content
    (out / "a.npy").unlink()
    summary["removed map"] = run("--clip", "2")[1]
    (out / "a.npy.json").write_text('{"format"')
    summary["damaged record"] = run("--clip", "2")[1]
    (out / "a.npy.json").unlink()
    summary["removed record"] = run("--clip", "2")[1]
    assert {event: line.strip() for event, line in summary.items()} == {
        "first": "2 written, 0 kept, 0 failed",
        "again": "0 written, 2 kept, 0 failed",
        "other labels": "1 written, 1 kept, 0 failed",
        "other options": "2 written, 0 kept, 0 failed",
        "damaged map": "1 written, 1 kept, 0 failed",
        "removed map": "1 written, 1 kept, 0 failed",
        "damaged record": "1 written, 1 kept, 0 failed",
        "removed record": "1 written, 1 kept, 0 failed",
    }
    np.testing.assert_array_equal(np.load(out / "a.npy"), expected(labels(6, 5, seed=2), clip=2.0))


def test_the_record_tells_what_the_map_was_made_of(folders, run):
    source, out = folders
    np.save(source / "a.npy", labels(6, 5))
    run("--clip", "2")
    record = json.loads((out / "a.npy.json").read_text())
    digests = {record.pop("labels_blake2b"), record.pop("map_blake2b")}
    assert len(digests) == 2
    assert record == {
        "format": 1,
        "dtype": "float32",
        "voxels": False,
        "num_classes": None,
        "boundary": "inner",
        "normalize": None,
        "clip": 2.0,
        "ignore_index": None,
    }


def test_failures_are_named_and_the_other_files_are_done(folders, run):
    source, out = folders
    np.save(source / "good.npy", labels(6, 5))
    np.save(source / "label 2.npy", labels(6, 5) + 1)
    np.save(source / "four axes.npy", labels(2, 3, 4, 5))
    np.save(source / "half.npy", np.full((3, 4), 0.5))
    np.save(source / "complex.npy", np.zeros((3, 4), complex))
    (source / "empty.nii.gz").write_bytes(b"")
    (source / "text.npy").write_text("not an array")
    vector = SimpleITK.GetImageFromArray(labels(4, 5, 6), isVector=True)
    SimpleITK.WriteImage(vector, str(source / "vector.nii.gz"))
    code, summary, errors = run("--workers", "2")
    assert (code, summary) == (1, "1 written, 0 kept, 7 failed\n")
    for name, reason in {
        "label 2.npy": "expected `target` to hold labels 0…1, got values from 1 to 2",
        "four axes.npy": "expected a label map of 1 to 3 axes, one number a voxel, got shape (2, 3, 4, 5) of uint8",
        "half.npy": "expected a label map to hold whole numbers, got 0.5",
        "complex.npy": "expected a label map of 1 to 3 axes, one number a voxel, got shape (3, 4) of complex128",
        "empty.nii.gz": "",
        "text.npy": "",
        "vector.nii.gz": "expected a label map of 1 to 3 axes, one number a voxel, got shape (4, 5, 6) of uint8",
    }.items():
        assert f"{source / name}: {reason}" in errors
        assert f"failed: {source / name}\n" in errors
    assert sorted(path.name for path in out.rglob("*")) == ["good.npy", "good.npy.json"]


def test_a_write_that_fails_leaves_nothing(folders, run, monkeypatch):
    source, out = folders
    write_nifti(source / "a.nii.gz", labels(3, 4, 5))
    write = SimpleITK.WriteImage

    def fail(image, path):
        write(image, path)
        raise RuntimeError("disk full")

    monkeypatch.setattr(SimpleITK, "WriteImage", fail)
    assert run()[::2] == (1, f"{source}/a.nii.gz: disk full\nfailed: {source}/a.nii.gz\n")
    assert list(out.iterdir()) == []


def test_shards_part_the_files(folders, run):
    source, out = folders
    for index in range(7):
        np.save(source / f"{index}.npy", labels(3, 4, seed=index))
    done = []
    for shard in range(1, 4):
        run("--shard", f"{shard}/3")
        done.append(len(list(out.glob("*.npy"))))
    assert done == [3, 5, 7]


def test_hidden_and_other_files_are_passed_over(folders, run):
    source, _ = folders
    np.save(source / "a.npy", labels(3, 4))
    (source / "._a.npy").write_bytes(b"resource fork")
    (source / "dataset.json").write_text("{}")
    assert run()[1] == "1 written, 0 kept, 0 failed\n"


def usage(message: str) -> str:
    return f"python -m multilevel_loss.precompute: error: {message}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--num-classes 1", "expected `num_classes` to be at least 2, or None for labels 0 and 1, got 1"),
        ("--clip 0", "expected `clip` to be greater than 0, got 0.0"),
        ("--shard 0/3", "argument --shard: expected i/n with 1 <= i <= n, got '0/3'"),
        ("--shard 4/3", "argument --shard: expected i/n with 1 <= i <= n, got '4/3'"),
        ("--shard 3", "argument --shard: expected i/n with 1 <= i <= n, got '3'"),
        ("--workers 0", "argument --workers: expected a whole number of at least 1, got '0'"),
        ("--dtype float16", "expected --npy with --dtype float16, which NIfTI files cannot hold"),
    ],
)
def test_wrong_options_stop_before_any_work(folders, run, options, message):
    source, out = folders
    write_nifti(source / "a.nii.gz", labels(3, 4, 5))
    code, _, errors = run(*options.split())
    assert (code, errors[-len(usage(message)) :]) == (2, usage(message))
    assert not out.exists()


@pytest.mark.parametrize(
    ("source", "out", "options", "message"),
    [
        ("absent", "maps", [], "expected LABELS to be a folder, got absent"),
        ("a.npy", "maps", [], "expected LABELS to be a folder, got a.npy"),
        ("empty", "maps", [], "expected label files (.nii.gz, .nii, .npy) in LABELS, found none in empty"),
        ("twice", "maps", ["--npy"], "expected label files to differ in more than their suffix, got 2 for maps/a.npy"),
        ("twice", "twice/b", [], "expected OUT to lie outside LABELS, whose files are taken for labels, got twice/b"),
        ("twice", "twice", [], "expected OUT to lie outside LABELS, whose files are taken for labels, got twice"),
    ],
)
def test_wrong_folders_stop_before_any_work(tmp_path, monkeypatch, capsys, source, out, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_nifti(tmp_path / "twice" / "a.nii.gz", labels(3, 4, 5))
    for name in ("a.npy", "twice/a.npy"):
        np.save(tmp_path / name, labels(3, 4))
    with pytest.raises(SystemExit, match="2"):
        precompute.main([source, out, *options])
    assert capsys.readouterr().err.endswith(usage(message))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.nii.gz", "a.npy", "a.npy", "empty", "twice"]


def test_the_command_runs_in_processes_of_its_own(folders):
    source, out = folders
    write_nifti(source / "a.nii.gz", labels(4, 7, 5))
    np.save(source / "b.npy", labels(6, 5))
    (source / "c.npy").write_bytes(b"")
    command = [sys.executable, "-W", "error", "-m", "multilevel_loss.precompute", source, out, "--workers", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "2 written, 0 kept, 1 failed\n")
    assert re.fullmatch(rf"{source}/c.npy: .+\nfailed: {source}/c.npy\n", result.stderr)
    np.testing.assert_array_equal(np.load(out / "b.npy"), expected(labels(6, 5)))


@pytest.mark.parametrize("classes", [2, 3])
def test_monai_loads_a_nifti_map_onto_its_label(folders, run, classes):
    monai_needed = "needs MONAI, from the dependency group `peers`, and nibabel"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("nibabel", reason=monai_needed)
        transforms = pytest.importorskip("monai.transforms", reason=monai_needed)
    source, out = folders
    write_nifti(source / "a.nii.gz", labels(4, 7, 5, classes=classes))
    options = {"num_classes": 3} if classes == 3 else {}
    run(*(["--num-classes", "3"] if classes == 3 else []))
    pipeline = [
        transforms.LoadImaged(["label", "stored"], ensure_channel_first=True),
        SignedDistanceMapd("label", functools.partial(signed_distance_map, **options), spacing_key="label"),
    ]
    if classes == 3:
        pipeline.append(transforms.SqueezeDimd("stored", dim=-1))
    result = transforms.Compose(pipeline)({"label": source / "a.nii.gz", "stored": out / "a.nii.gz"})
    torch.testing.assert_close(result["stored"], result["label_distance_map"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result["stored"].affine, result["label"].affine)
