# Glue tubes, o2opose-n taught by o2opose-s: feature maps, and the one-to-many branch.
# Give the teacher's checkpoint: --cfg-options teacher_weights=work_dirs/teacher/best.pth
_base_ = "../../pose/o2opose/o2opose-n_mobilenetv4-conv-s_1xb8-60e_gluetubes-320.py"

teacher_weights = None
model = dict(
    guide=dict(
        type="Distillation",
        teacher="o2opose-s_mobilenetv4-conv-s_1xb8-60e_gluetubes-320_teacher",
        terms=dict(
            maps=dict(type="MapTerm", student="features", loss=dict(type="PKDLoss", weight=4.0)),
            one_to_many=dict(type="OneToManyTerm"),
        ),
    )
)
