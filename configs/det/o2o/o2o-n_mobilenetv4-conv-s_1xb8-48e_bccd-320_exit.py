# An early exit after the map of stride 16, trained with the network from scratch.
_base_ = ["./o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"]

model = dict(
    early_exit=dict(
        type="BackboneExit",
        after=16,
        neck=dict(type="LightPAN", out_channels=(32, 64), depth=1),
        head=dict(
            type="O2OHead",
            num_classes=None,
            assigner=dict(type="TaskAlignedAssigner", topk=7, keep=1, alpha=0.5, beta=6.0),
            one_to_many_assigner=dict(type="TaskAlignedAssigner", topk=10, alpha=0.5, beta=6.0),
            loss_class=dict(type="SoftBCELoss", weight=0.5),
            losses_box=dict(iou=dict(type="CIoULoss", weight=7.5), l1=dict(type="L1BoxLoss", weight=1.5)),
        ),
        gate=dict(type="LossGate"),
    ),
)
