# %% [markdown]
"""
# The first hour

A detector from nothing: data, training, evaluation, export, and predictions without PyTorch. The data are the built-in
shapes, so that nothing is downloaded; on two cores it takes about three minutes. It needs `efftasks[train,export]`.
"""

# %%
from __future__ import annotations

from pathlib import Path

from efftasks import Predictor, apis
from efftasks.datasets.shapes import write_shapes

# %% tags=["parameters"]
FOLDER = Path("work_dirs/first_hour")
CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
EPOCHS = 12
TRAIN, VAL = 800, 100  # images

# %% [markdown]
"""
## Data

Images and annotations in COCO form. Yours have the same layout: `images/`, `annotations/train.json` and
`annotations/val.json`, see [data sets](../datasets.md).
"""

# %%
data = write_shapes(FOLDER / "data", train=TRAIN, val=VAL)
print(*sorted(path.relative_to(data) for path in data.glob("*/*")), sep="\n")

# %% [markdown]
"""
## Training

A config states a network, its data and its training; options override what it states. The folder then has checkpoints,
`best.pth` with the best metrics, and the log.
"""

# %%
config = apis.load_config(CONFIG, {"data_root": f"{data}/", "max_epochs": EPOCHS})
config.work_dir = str(FOLDER / "run")
runner = apis.train(config)
checkpoint = FOLDER / "run" / "best.pth"

# %% [markdown]
"""
## Evaluation

AP on the validation images. Predictions have boxes in pixels of their image, scores and labels, and draw themselves.
"""

# %%
model = apis.load(config, checkpoint)
result = apis.evaluate(config, lambda entries: apis.predict(model, list(entries)), model.dataset_meta["classes"])
print({name: round(value, 3) for name, value in result.metrics.items()})

# %% [markdown]
"""
## Export and verification

The file is compared with the model on real images before it gets its name; a file that does not agree is an error.
`evaluate` measures its AP as well.
"""

# %%
exported = apis.export(config, checkpoint, FOLDER / "out", apis.ExportSettings(evaluate=True))
print(exported.report)
print({where: round(metrics["coco/bbox_mAP"], 3) for where, metrics in exported.metrics.items()})

# %% [markdown]
"""
## Predictions without PyTorch

A device needs `pip install efftasks` (numpy, OpenCV and ONNX Runtime), the file and its `.json`.
"""

# %%
predictor = Predictor(exported.path)
images = sorted((data / "images" / "val").iterdir())[:3]
predictions = predictor(images)
for image, prediction in zip(images, predictions):
    print(image.name, len(prediction.scores), "objects; the best:", prediction.scores[:3].round(2))
    prediction.draw(FOLDER / "drawn")

# %% tags=["active-ipynb"]
# from IPython.display import Image, display
#
# for file in sorted((FOLDER / "drawn").iterdir()):
#     display(Image(filename=str(file)))

# %% [markdown]
"""
## Then

The same steps as commands are in [get started](../get_started.md). [Export](../export.md) has 8-bit integers and other
runtimes, [compression](../compression.md) smaller networks.
"""
