"""Pictures of the test data beside predictions: one for each prediction."""

import json
from pathlib import Path

import cv2
import numpy as np

from efftasks import apis
from efftasks.imaging.prediction import Prediction

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"


def write_images_of_one_name(root: Path) -> list[str]:
    """Two images of the same file name in two folders, without objects; their paths."""
    images = []
    for i, folder in enumerate(("day", "night"), start=1):
        (root / "images" / folder).mkdir(parents=True)
        cv2.imwrite(str(root / "images" / folder / "1.png"), np.full((32, 48, 3), 100 * i, np.uint8))
        images.append(dict(id=i, file_name=f"{folder}/1.png", width=48, height=32))
    (root / "annotations").mkdir()
    file = dict(images=images, annotations=[], categories=[dict(id=1, name="cat")])
    for part in ("train", "val"):
        (root / "annotations" / f"{part}.json").write_text(json.dumps(file))
    return [str(root / "images" / str(image["file_name"])) for image in images]


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    paths = write_images_of_one_name(tmp_path)
    none = np.zeros(0, np.float32)
    predictions = {
        i: Prediction(path, none.reshape(0, 4), none, none.astype(np.int64), ("cat",), (1,))
        for i, path in enumerate(paths)
    }
    drawn = apis.draw_comparison(apis.load_config(CONFIG, {"data_root": str(tmp_path)}), predictions, tmp_path / "out")
    assert [cv2.imread(str(path))[0, 0, 0] for path in drawn] == [100, 200]
