"""mmengine's training, adapted: the runner, optimizers, loaders, threads, resuming.

Hooks are in `engine/hooks`. Nothing here knows a model or a task.
May import `checkpoints`, `compression`, `ops`, `registry`, `structures`.
"""
