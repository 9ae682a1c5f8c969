"""Training on top of mmengine: the runner, optimizers, data loaders, threads, resuming.

Hooks are in `engine/hooks`. Nothing here depends on a model or a task.
May import `checkpoints`, `compression`, `ops`, `registry`, `structures`.
"""
