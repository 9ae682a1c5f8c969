# DEIMv2-Pico on your own data, taught by a DEIMv2-N that was trained on them: feature maps, and shared queries.
# Give the teacher's checkpoint: --cfg-options teacher_weights=work_dirs/teacher/best.pth
_base_ = "../../det/deimv2/deimv2-pico_hgnetv2-b0_1xb16-60e_custom-640_finetune.py"

teacher_weights = None
model = dict(
    guide=dict(
        type="Distillation",
        teacher="deimv2-n_hgnetv2-b0_8xb4-160e_coco-640",
        terms=dict(
            maps=dict(type="MapTerm", student="features", loss=dict(type="PKDLoss", weight=4.0)),
            queries=dict(type="SharedQueryTerm", num_queries=100),
        ),
    )
)
