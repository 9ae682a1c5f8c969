# Blood cells (BCCD), o2o-n taught by o2o-s: feature maps, and the one-to-many branch.
# Give the teacher's checkpoint: --cfg-options teacher_weights=work_dirs/teacher/best.pth
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

teacher_weights = None
model = dict(
    guide=dict(
        type="Distillation",
        teacher="o2o-s_mobilenetv4-conv-s_1xb8-48e_bccd-320_teacher",
        fade=(0.0, 1.0),  # as the weight of the one-to-many branch, which trains backbone and neck
        terms=dict(
            maps=dict(type="MapTerm", student="features", loss=dict(type="PKDLoss", weight=4.0)),
            one_to_many=dict(type="OneToManyTerm"),
        ),
    )
)
