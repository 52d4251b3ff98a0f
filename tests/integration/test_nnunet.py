"""nnU-Net plans, preprocesses, trains and predicts with the trainers of the library, through its own command line.

Takes minutes and needs nnU-Net, so it runs only when asked for: pip install nnunetv2 && python -m pytest -m nnunet
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import multilevel_loss.nnunet

pytestmark = [pytest.mark.nnunet, pytest.mark.timeout(600)]

COMMANDS = Path(sys.executable).parent
LABELS = {"background": 0, "organ": 1, "ignore": 2}
REGIONS = {"background": 0, "organ": [1, 2], "core": [2], "ignore": 3}
SHORT = """
from multilevel_loss.nnunet.mll_trainers import {base}

class Short(Base):
    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 5, 3, 1
        super().initialize()
"""


def write_dataset(folder, labels):
    """Write five volumes of an ellipsoid of about 500 voxels, with a core of label 2 for regions, at 2 × 1 × 1 mm."""
    nibabel = pytest.importorskip("nibabel", reason="nnU-Net is not installed: pip install nnunetv2")
    regions = isinstance(labels["organ"], list)
    generator = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in range(5):
        offsets = np.indices((40, 40, 24)) - generator.integers(10, 14, 3).reshape(3, 1, 1, 1)
        distance = np.sqrt((offsets**2 * np.reshape((1, 1, 4), (3, 1, 1, 1))).sum(0))
        label = (distance < 6).astype(np.uint8)
        label[distance < 3] = 1 + regions
        image = label + 0.3 * generator.standard_normal(label.shape)
        label[30:] = labels["ignore"]
        for path, voxels in (
            (f"imagesTr/case{case}_0000.nii.gz", image.astype(np.float32)),
            (f"labelsTr/case{case}.nii.gz", label),
        ):
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), folder / path)
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    if regions:
        description["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.mark.parametrize(("base", "labels"), [("nnUNetTrainerMLL", LABELS), ("nnUNetTrainerMLLCE", REGIONS)])
def test_nnunet_trains_and_predicts(base, labels, tmp_path):
    if shutil.which("nnUNetv2_train", path=str(COMMANDS)) is None:
        pytest.skip("nnU-Net is not installed: pip install nnunetv2")
    raw, results, trainers = tmp_path / "raw", tmp_path / "results", tmp_path / "trainers"
    write_dataset(raw / "Dataset001_Organ", labels)
    trainers.mkdir()
    (trainers / "short_trainer.py").write_text(SHORT.format(base=f"{base} as Base"))
    environment = os.environ | {
        "nnUNet_raw": str(raw),
        "nnUNet_preprocessed": str(tmp_path / "preprocessed"),
        "nnUNet_results": str(results),
        "nnUNet_extTrainer": os.pathsep.join([*multilevel_loss.nnunet.__path__, str(trainers)]),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }

    def run(command, *arguments):
        done = subprocess.run(
            [COMMANDS / command, *arguments], env=environment, cwd=tmp_path, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout

    found = run(
        "python",
        "-c",
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        f"print(find({base!r}).__name__)",
    )
    assert found.splitlines()[-1] == base

    run("nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "3d_fullres", "-np", "1", "-npfp", "1")
    log = run("nnUNetv2_train", "1", "3d_fullres", "0", "-tr", "Short", "-device", "cpu")
    losses = [float(value) for value in re.findall(r"train_loss (\S+)", log)]
    assert len(losses) == 5
    assert np.isfinite(losses).all()
    weights = re.findall(r"region (\S+), boundary (\S+), pixel (\S+)", log)
    assert [tuple(map(float, epoch)) for epoch in weights] == [
        (1, 0, 0), (1, 0.8, 0), (1, 1, 0), (1, 1, 1), (1, 1, 1)
    ]  # fmt: skip

    images = raw / "Dataset001_Organ" / "imagesTr"
    run(
        "nnUNetv2_predict", *("-i", images, "-o", tmp_path / "predicted", "-d", "1", "-c", "3d_fullres", "-f", "0"),
        *("-tr", "Short", "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"),
    )  # fmt: skip
    assert len(list((tmp_path / "predicted").glob("*.nii.gz"))) == 5
