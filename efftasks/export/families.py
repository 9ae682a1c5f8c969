"""The families of models that this package ships configs of, as data. Standard library only."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["FAMILIES", "Family", "families_with"]


class Family(NamedTuple):
    """A folder of configs: models of one kind in several sizes.

    Attributes:
        name: of the folder, and the start of the names of its configs.
        task: as artifacts name it.
        head: the registered type of its head.
        config: the smallest one for a data set of one's own: what tests and tables of runtimes export.
    """

    name: str
    task: str
    head: str
    config: str

    @property
    def without_data(self) -> dict[str, Any]:
        """Options of the config for a model of random weights: what it takes from training data otherwise."""
        points = {"keypoints": {"names": ["a", "b"]}} if "pose" in self.task else {}
        return {"classes": ["first", "second", "third"], **points}


# In the order of tables.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("o2o", "detection", "O2OHead", "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"),
        Family("dfine", "detection", "QueryHead", "dfine-n_hgnetv2-b0_1xb16-60e_custom-640_finetune"),
        Family("deim", "detection", "QueryHead", "deim-n_hgnetv2-b0_1xb16-60e_custom-640_finetune"),
        Family("deimv2", "detection", "QueryHead", "deimv2-pico_hgnetv2-b0_1xb16-60e_custom-640_finetune"),
        Family("rtdetrv2", "detection", "QueryHead", "rtdetrv2-s_resnet18vd_1xb8-60e_custom-640_finetune"),
        Family("o2oseg", "instance segmentation", "O2OHead", "o2oseg-n_mobilenetv4-conv-s_1xb16-100e_custom-640"),
        Family(
            "sparseinst",
            "instance segmentation",
            "SparseInstHead",
            "sparseinst-n_mobilenetv4-conv-s_1xb16-100e_custom-640",
        ),
        Family("dfineseg", "instance segmentation", "QueryHead", "dfineseg-n_hgnetv2-b0_1xb8-60e_custom-640"),
        Family("o2opose", "pose", "O2OHead", "o2opose-n_mobilenetv4-conv-s_1xb16-100e_custom-640"),
        Family("detrpose", "pose", "DETRPoseHead", "detrpose-n_hgnetv2-b0_1xb8-100e_custom-640"),
        Family("simcc", "top-down pose", "SimCCHead", "simcc-n_mobilenetv4-conv-s_1xb32-100e_custom-256"),
        Family("o2omulti", "multi-task", "O2OHead", "o2omulti-n_mobilenetv4-conv-s_1xb16-36e_shapes-128"),
        *(
            Family(config.partition("-")[0], "semantic segmentation", head, config)
            for head, config in (
                ("FPNLiteHead", "fpnlite-n_mobilenetv4-conv-s_1xb8-100e_custom-512"),
                ("mmseg.LRASPPHead", "lraspp-n_mobilenetv4-conv-s_1xb8-100e_custom-1024"),
                ("PPLiteSegHead", "ppliteseg-t_stdc1_1xb8-100e_custom-512"),
                ("mmseg.FCNHead", "stdc-1_stdc1_1xb8-100e_custom-512"),
                ("mmseg.FCNHead", "bisenetv2-base_bisenetv2_1xb8-100e_custom-512"),
                ("mmseg.DepthwiseSeparableFCNHead", "fastscnn-base_fastscnn_1xb8-100e_custom-512"),
                ("mmseg.DDRHead", "ddrnet-slim_ddrnet23_1xb8-100e_custom-512"),
                ("mmseg.PIDHead", "pidnet-s_pidnet_1xb8-100e_custom-512"),
                ("mmseg.SegformerHead", "segformer-b0_mit-b0_1xb8-100e_custom-512"),
                ("SCTHead", "sctnet-s_sctnet_1xb8-100e_custom-512"),
                ("SeaFormerHead", "seaformer-s_seaformer-s_1xb8-100e_custom-512"),
            )
        ),
    )
}


def families_with(head: str, task: str) -> tuple[Family, ...]:
    """The families that a model may belong to, by the registered type of its head and its task; none for one's own."""
    return tuple(family for family in FAMILIES.values() if (family.head, family.task) == (head, task))
