# Quantization-aware training of a trained o2o-n, taught by the float model that it starts from: feature maps.
# Give its checkpoint twice: --cfg-options load_from=dense.pth teacher_weights=dense.pth
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

model_transforms = [dict(type="QuantizeAware")]
max_epochs = 12
default_hooks = dict(quantization=dict(type="QuantizationAware", observe=0, quantize=1, freeze=0.75))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_cfg = dict(val_interval=4)

teacher_weights = None
model = dict(
    guide=dict(
        type="Distillation",
        teacher="o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320",
        terms=dict(maps=dict(type="MapTerm", student="features", loss=dict(type="PKDLoss", weight=4.0))),
    )
)
