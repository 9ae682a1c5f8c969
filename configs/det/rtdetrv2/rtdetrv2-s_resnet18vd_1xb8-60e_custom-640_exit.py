# RT-DETRv2-S on your own data, with an early exit after the first of its three decoder layers; fine-tuned as
# rtdetrv2-s_resnet18vd_1xb8-60e_custom-640_finetune, whose first lines say from what.
_base_ = [
    "../../_base_/models/rtdetrv2.py",
    "../../_base_/recipes/query_finetune.py",
]

model = dict(early_exit=dict(type="DecoderExit", layers=1, gate=dict(type="LossGate")))
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(backbone_lr_mult=1.0, no_decay="norm"),
)
