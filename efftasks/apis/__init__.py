"""The use cases as functions: what the commands, the docs and the tests call.

A file a use case. They join what lies below (configs, models, data, runtimes) and print nothing; `cli/` parses a line,
calls one of them and prints. May import everything but `cli`.
"""

from efftasks.apis.building import Model, build, describe, fuse, input_size, load, set_input_size
from efftasks.apis.evaluating import Evaluation, draw_comparison, evaluate, test_images
from efftasks.apis.predicting import infer, predict
from efftasks.apis.training import train
from efftasks.config import config_folder, config_path, load_config, shipped_configs

__all__ = [
    "Evaluation",
    "Model",
    "build",
    "config_folder",
    "config_path",
    "describe",
    "draw_comparison",
    "evaluate",
    "fuse",
    "infer",
    "input_size",
    "load",
    "load_config",
    "predict",
    "set_input_size",
    "shipped_configs",
    "test_images",
    "train",
]
