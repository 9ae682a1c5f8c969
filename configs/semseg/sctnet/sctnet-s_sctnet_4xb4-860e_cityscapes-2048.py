# Cityscapes, the authors' recipe (160k steps of 16 images). Set the weights of the teacher, a SegFormer-B2 trained on
# Cityscapes: `--cfg-options model.guide.teacher.weights=FILE`. Without them the teacher is random, and a warning says
# so.
_base_ = [
    "../../_base_/semantic_runtime.py",
    "../../_base_/models/sctnet_s.py",
    "../../_base_/datasets/cityscapes.py",
    "../../_base_/schedules/adamw_poly.py",
]

crop_size = (512, 1024)
max_epochs = 860
schedule = dict(warmup_epochs=8 / 860)

train_dataloader = dict(batch_size=4)
model = dict(guide=dict(type="TransformerGuide", teacher=dict(weights=None)))
optim_wrapper = dict(optimizer=dict(lr=4e-4, weight_decay=0.0125))
