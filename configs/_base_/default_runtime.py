default_scope = "efftasks"
runner_type = "EffRunner"

# Hooks by name. Other configs change their settings, or remove one with None. Add your own hooks to custom_hooks.
default_hooks = dict(
    runtime_info=dict(type="RuntimeInfoHook"),
    timer=dict(type="IterTimerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    logger=dict(type="LoggerHook", interval=20),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="SafeCheckpointHook", interval=1, max_keep_ckpts=2, save_best="coco/bbox_mAP"),
    epoch_seed=dict(type="EpochSeed"),  # a resumed run equals an uninterrupted one
    progress=dict(type="TrainingProgress"),  # for losses and augmentations that depend on it
    skipped_images=dict(type="ReportSkippedImages"),
    ema=dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.0002, gamma=200, update_buffers=True),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0, deterministic=True)
log_processor = dict(type="LogProcessor", window_size=20, by_epoch=True)
vis_backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
visualizer = dict(type="Visualizer", vis_backends=None)  # vis_backends above
log_level = "INFO"
load_from = None
resume = False
