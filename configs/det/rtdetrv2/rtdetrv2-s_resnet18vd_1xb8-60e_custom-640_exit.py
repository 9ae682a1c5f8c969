# RT-DETRv2-S on your own data, with an early exit after the first of its three decoder layers; fine-tuned as
# rtdetrv2-s_resnet18vd_1xb8-60e_custom-640_finetune.
_base_ = ["./rtdetrv2-s_resnet18vd_1xb8-60e_custom-640_finetune.py"]

model = dict(early_exit=dict(type="DecoderExit", layers=1, gate=dict(type="LossGate")))
