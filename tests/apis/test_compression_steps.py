"""What is read of compression steps, and what is refused before the first of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from efftasks import apis
from efftasks.apis.compression_checks import check_chain
from efftasks.apis.compression_steps import read_chain, with_references
from efftasks.cli.main import main
from efftasks.structures.errors import UserError

BASE = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
LOW_RANK = dict(type="LowRank", layers=["neck.*"], ratio=0.5)
OTHER = dict(type="LowRank", layers=["backbone.stages.3.*"], ratio=0.5)
DENSE: dict[str, Any] = dict(name="dense")
LOW: dict[str, Any] = dict(name="low", model_transforms=[LOW_RANK])


def config(*steps: Any, **options: Any) -> Any:
    small = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}
    return apis.load_config(BASE, {"compression": dict(steps=list(steps)), **small, **options})


def test_a_step_has_the_transforms_of_those_before_it_and_nothing_else_of_them() -> None:
    other = dict(name="other", model_transforms=[OTHER], max_epochs=3, image_size=96)
    cfg = config(DENSE, dict(LOW, optim_wrapper=dict(optimizer=dict(lr=0.5)), max_epochs=4), other, dict(name="last"))
    chain = read_chain(cfg)
    assert [step.folder for step in chain.steps] == ["0_dense", "1_low", "2_other", "3_last"]
    assert [step.trains for step in chain.steps] == [True, True, True, False]
    transforms = [step.config.get("model_transforms") for step in chain.steps]
    assert transforms == [None, [LOW_RANK], [LOW_RANK, OTHER], [LOW_RANK, OTHER]]
    assert [step.config.optim_wrapper.optimizer.lr for step in chain.steps] == [3e-3, 0.5, 3e-3, 3e-3]
    assert [step.config.train_cfg.max_epochs for step in chain.steps] == [18, 4, 3, 18]
    assert [step.config.param_scheduler[1].T_max for step in chain.steps][:3] == [18, 4, 3]
    # The size of the network input is part of a result.
    assert [apis.input_size(step.config) for step in chain.steps] == [(128, 128), (128, 128), (96, 96), (96, 96)]
    assert all("compression" not in step.config for step in chain.steps) and "compression" in cfg


def test_the_configs_own_transforms_come_first() -> None:
    chain = read_chain(config(DENSE, LOW, model_transforms=[OTHER]))
    assert [step.config.model_transforms for step in chain.steps] == [[OTHER], [OTHER, LOW_RANK]]


def test_a_reference_is_the_checkpoint_of_an_earlier_step() -> None:
    teacher = dict(type="mmdet.X", weights=["step:dense", "stepdense"])
    chain = read_chain(config(DENSE, LOW, dict(name="distil", max_epochs=1, model=dict(guide=teacher))))
    resolved = with_references(chain.steps[2].config, lambda name: f"/there/{name}.pth")
    assert resolved.model.guide.weights == ["/there/dense.pth", "stepdense"]
    assert chain.steps[2].config.model.guide.weights == ["step:dense", "stepdense"]
    with pytest.raises(
        UserError, match=r"steps\.1 \(low\): got 'step:late', expected one of the steps before it: dense"
    ):
        read_chain(
            config(DENSE, dict(LOW, max_epochs=1, model=dict(guide=dict(weights="step:late"))), dict(name="late"))
        )


def test_options_of_the_command_line_reach_every_step_and_single_ones() -> None:
    cfg = config(DENSE, dict(LOW, max_epochs=9))
    cfg = apis.load_config(cfg, {"compression.steps.1.max_epochs": 2, "train_dataloader.batch_size": 3})
    steps = read_chain(cfg).steps
    assert [step.config.train_cfg.max_epochs for step in steps] == [18, 2]
    assert [step.config.train_dataloader.batch_size for step in steps] == [3, 3]


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ([], {}, r"compression\.steps: got \[\], expected a list of dicts"),
    (["dense"], {}, r"compression\.steps: got \['dense'\], expected a list of dicts"),
    ([dict(nam="dense")], {}, r"steps\.0\.name: got None, expected a name"),
    ([dict(name="../x")], {}, r"steps\.0\.name: got '\.\./x', expected a name"),
    ([DENSE, DENSE], {}, r"steps\.1\.name: got 'dense', which step 0 has; expected each name once"),
    ([LOW], {}, r"steps\.0 \(low\): the first step is the dense model.*put a step before it"),
    ([DENSE, dict(LOW, max_epoch=1)], {}, r"steps\.1 \(low\): max_epoch: .* did you mean 'max_epochs'\?"),
    ([DENSE, dict(LOW, max_epochs=0)], {}, r"steps\.1 \(low\): max_epochs: got 0, expected a whole number from 1"),
    ([DENSE, dict(LOW, schedule=dict(warmup_epochs=0))], {}, r"\(low\): schedule has an effect on training alone, and"),
    (
        [DENSE, dict(LOW, model=dict(guide=dict(type="X")))],
        {},
        r"\(low\): model\.guide has an effect on training alone",
    ),
    ([DENSE, dict(LOW, load_from="x.pth")], {}, r"\(low\): load_from: got 'x\.pth', but a step cannot set it"),
    ([DENSE, dict(LOW, result="last")], {}, r"\(low\): result: got 'last', but the step does not train"),
    ([dict(DENSE, result="first")], {}, r"\(dense\): result: got 'first', expected one of best, last"),
    (
        [dict(DENSE, export=dict(precison="fp32"))],
        {},
        r"export\.precison: there is no such key; did you mean 'precision'",
    ),
    ([dict(DENSE, export=dict(num_images=0))], {}, r"\(dense\): --num-images: got 0"),
    ([dict(DENSE, export=dict(num_images="x"))], {}, r"\(dense\): .*'<' not supported"),
    ([dict(DENSE, export=dict(evaluate=False))], {}, r"export\.evaluate: the report needs the metrics"),
    ([dict(DENSE, export=[])], {}, r"export: got \[\], expected a dict or a list of dicts"),
    ([DENSE], {"compression.benchmark": dict(threads=0)}, r"compression\.benchmark: --threads: got 0"),
    (
        [DENSE],
        {"compression.benchmark": dict(backends=["torch"])},
        r"benchmark\.backends: got 'torch', expected runtimes",
    ),
    ([DENSE], {"compression.benchmark": dict(sizes=[])}, r"compression\.benchmark\.sizes: there is no such key"),
    ([DENSE], {"compression.step": []}, r"compression\.step: there is no such key; did you mean 'steps'\?"),
]


@pytest.mark.parametrize(("steps", "options", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_a_wrong_step_is_refused(steps: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    cfg = config(*steps)
    cfg.merge_from_dict(options)
    cfg.work_dir = str(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        apis.compress(cfg)
    assert not Path(cfg.work_dir).exists()


UNBUILDABLE: list[tuple[dict[str, Any], str]] = [
    (dict(LOW, export=dict(backend="tflite")), r"\(low\): --backend: got 'tflite', expected one of"),
    (dict(LOW, export=dict(precision="int1")), r"\(low\): --precision: got 'int1', expected one of"),
    (dict(LOW, export=[dict(), dict(precision="fp32")]), r"\(low\): export: onnx fp32 occurs twice"),
    (dict(LOW, model_transforms=[dict(type="LowRnk")]), r"LowRnk is not in the"),
    (dict(LOW, export=2 * [dict(input="uint8")]), r"\(low\): export: onnx fp32 uint8 occurs twice"),
    (dict(LOW, model_transforms=[dict(LOW_RANK, layers=["nek.*"])]), r"\(low\): .*nek"),
    (
        dict(LOW, model=dict(neck=dict(out_channels=(8, 8, 8)))),
        r"\(low\): its model is another network than that of step",
    ),
    (
        dict(LOW, model_transforms=[dict(type="Prune", latency=dict(backend="onnxruntim", ms=3))]),
        r"\(low\): backend: got 'onnxruntim', expected one of onnxruntime",
    ),
    (dict(LOW, image_size=(100, 128)), r"\(low\): image_size: got 100 x 128, expected multiples of 32"),
    (dict(LOW, max_epochs=1, optim_wrapper=None), r"\(low\): optim_wrapper: the config has none"),
]


@pytest.mark.parametrize(("step", "message"), UNBUILDABLE, ids=[message for _, message in UNBUILDABLE])
def test_a_step_that_cannot_be_built_is_refused(step: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as error:
        check_chain(read_chain(config(DENSE, step)))
    assert isinstance(error.value, (UserError, KeyError, ValueError)) and "\n" not in str(error.value)


def test_files_of_a_step_may_differ_in_their_input() -> None:
    chain = read_chain(config(DENSE, dict(LOW, export=[dict(), dict(input="uint8")])))
    check_chain(chain)
    assert [part.input for part in chain.steps[1].exports] == ["float32", "uint8"]
    with pytest.raises(UserError, match=r"steps\.1 \(low\): --input: got 'int8', expected one of float32, uint8"):
        read_chain(config(DENSE, dict(LOW, export=dict(input="int8"))))


def test_a_start_of_other_classes_needs_training(tmp_path: Path) -> None:
    meta = dict(dataset_meta=dict(classes=("a", "b")))
    torch.save(dict(meta=meta, state_dict={"x": torch.zeros(1)}), tmp_path / "start.pth")
    options = dict(load_from=str(tmp_path / "start.pth"))
    with pytest.raises(UserError, match=r"start\.pth: its classes are \('a', 'b'\), the data's \('circle'"):
        check_chain(read_chain(config(DENSE, **options)))
    check_chain(read_chain(config(dict(DENSE, max_epochs=1), **options)))


def test_a_compressed_start_is_refused_where_the_config_does_not_know_it(tmp_path: Path) -> None:
    plan = dict(version=1, dense="x", steps=[dict(type="LowRank", plan={})])
    torch.save(dict(meta=dict(compression_plan=plan), state_dict={"x": torch.zeros(1)}), tmp_path / "start.pth")
    options = dict(load_from=str(tmp_path / "start.pth"))
    with pytest.raises(UserError, match=r"start\.pth: its model is compressed already, and steps compress it further"):
        check_chain(read_chain(config(DENSE, LOW, **options)))
    check_chain(read_chain(config(DENSE, **options)))


@pytest.mark.parametrize(
    ("done", "words"),
    [
        ([LOW_RANK, dict(LOW_RANK, layers=["backbone.*"])], "plan has 2 steps, but model_transforms has 1"),
        ([dict(LOW_RANK, ratio=0.3)], "step 1 of its compression plan is"),
    ],
)
def test_a_start_that_was_compressed_otherwise_is_refused_before_anything_runs(
    done: list[Any], words: str, tmp_path: Path
) -> None:
    plan = dict(version=1, dense="x", steps=[dict(type="LowRank", plan={}, config=part) for part in done])
    torch.save(dict(meta=dict(compression_plan=plan), state_dict={"x": torch.zeros(1)}), tmp_path / "start.pth")
    options = dict(load_from=str(tmp_path / "start.pth"), model_transforms=[LOW_RANK])
    with pytest.raises(UserError, match=rf"compression\.steps\.0 \(dense\): .*start\.pth: .*{words}"):
        check_chain(read_chain(config(DENSE, **options)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--launcher", "pytorch"], "--launcher: got pytorch, but compression steps run in one process"),
        (["--epochs", "3"], "--epochs: got 3, but each compression step states its own"),
        (["--resume", "x.pth"], "--resume: got x.pth, but compression steps resume from the work dir"),
    ],
)
def test_what_training_takes_and_steps_do_not(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "steps.py"
    file.write_text(f"_base_ = {str(apis.config_path(BASE))!r}\ncompression = dict(steps=[dict(name='dense')])\n")
    assert main(["train", str(file), "--work-dir", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_training_alone_does_not_drop_the_steps() -> None:
    with pytest.raises(UserError, match=r"lists compression steps; run it with efftasks\.apis\.compress"):
        apis.train(config(DENSE))
    with pytest.raises(UserError, match=r"compression: the config has none"):
        apis.compress(BASE)
