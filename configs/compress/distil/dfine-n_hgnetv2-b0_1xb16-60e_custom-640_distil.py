# D-FINE-N on your own data, taught by a D-FINE-S that was trained on them: feature maps, and shared queries.
# Give the teacher's checkpoint: --cfg-options teacher_weights=work_dirs/teacher/best.pth
_base_ = [
    "../../_base_/models/dfine.py",
    "../../_base_/recipes/query_finetune.py",
]

teacher_weights = None
model = dict(
    backbone=dict(out_strides=(16, 32)),
    neck=dict(channels=128, ffn_channels=512, expansion=0.34, depth=2),
    head=dict(channels=128, decoder=dict(num_layers=3, num_points=(6, 6), ffn=dict(hidden=512))),
    guide=dict(
        type="Distillation",
        teacher="dfine-s_hgnetv2-b0_8xb4-132e_coco-640",
        terms=dict(
            # The student has the maps of strides 16 and 32 alone.
            maps=dict(
                type="MapTerm",
                student="features",
                teacher=["features[1]", "features[2]"],
                loss=dict(type="PKDLoss", weight=4.0),
            ),
            queries=dict(type="SharedQueryTerm", num_queries=100),
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
