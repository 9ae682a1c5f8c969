# DEIM's D-FINE (arXiv 2412.04234), size L without its backbone: another activation, and the matchability-aware loss.
_base_ = ["./dfine.py"]

model = dict(
    head=dict(
        selection=dict(act="silu"),
        decoder=dict(ffn=dict(act="silu"), act="silu"),
        criterion=dict(class_term=dict(type="MatchabilityTerm", gamma=1.5)),
    )
)
