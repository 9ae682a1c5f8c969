"""The runner, its checkpoints and its hooks on a toy."""

import errno
import math
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import mmengine.runner.runner as mmengine_runner
import pytest
import torch
from torch.testing import assert_close

from efftasks.checkpoints import atomic
from efftasks.checkpoints.files import read_checkpoint
from efftasks.checkpoints.newest import newest_intact_checkpoint
from efftasks.structures.errors import UserError, WorkError


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory) -> Path:
    """The work dir of four epochs."""
    work_dir = tmp_path_factory.mktemp("trained")
    toy.make_runner(work_dir).train()
    return work_dir


def resumable(trained: Path, folder: Path, epoch: int) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(trained / f"epoch_{epoch}.pth", folder)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("switch", [False, True], ids=["plain", "pipeline switch"])
def test_a_resumed_run_is_the_uninterrupted_run(toy, tmp_path, workers, switch):
    def hooks() -> tuple:
        other = dict(type="mmdet.PipelineSwitchHook", switch_epoch=2, switch_pipeline=[toy.Noise()])
        return (other,) if switch else ()

    straight = toy.make_runner(tmp_path / "straight", workers=workers, hooks=hooks())
    straight.train()
    wanted = read_checkpoint(tmp_path / "straight/epoch_4.pth")
    for epoch in (1, 3):
        folder = resumable(tmp_path / "straight", tmp_path / f"from{epoch}", epoch)
        # Other initial weights: nothing may come from them.
        resumed = toy.make_runner(folder, workers=workers, hooks=hooks(), resume=True, init_seed=7)
        resumed.train()
        assert resumed.model.losses == straight.model.losses[4 * epoch :]
        found = read_checkpoint(folder / "epoch_4.pth")
        for part in ("state_dict", "ema_state_dict"):
            assert all(torch.equal(found[part][key], value) for key, value in wanted[part].items())


def test_checkpoints_are_plain_data(trained):
    for name in ("epoch_4.pth", "best.pth"):
        assert "state_dict" in torch.load(trained / name, weights_only=True)  # without any allow-list


def test_code_in_the_meta_data_does_not_run_at_resume(toy, trained, tmp_path):
    """mmengine executes ``meta['config']`` as a Python config."""
    data = read_checkpoint(trained / "epoch_3.pth")
    data["meta"]["config"] = f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n"
    torch.save(data, tmp_path / "epoch_3.pth")
    toy.make_runner(tmp_path, resume=True).train()
    assert (tmp_path / "epoch_4.pth").exists() and not (tmp_path / "ran").exists()


def test_nothing_to_resume_starts_from_the_beginning(toy, tmp_path):
    runner = toy.make_runner(tmp_path, epochs=1, resume=True)
    runner.train()
    assert len(runner.model.losses) == 4
    assert "nothing to resume" in next(tmp_path.glob("*/*.log")).read_text()


def test_a_damaged_last_checkpoint_is_passed_over(toy, trained, tmp_path):
    for epoch in (2, 3):
        resumable(trained, tmp_path, epoch)
    file = tmp_path / "epoch_3.pth"
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        tensor = next(info for info in archive.infolist() if info.filename.endswith("/data/0"))
        place = whole.find(archive.read(tensor), tensor.header_offset) + 3
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    read_checkpoint(file)  # torch does not see a flipped byte among the weights
    assert newest_intact_checkpoint(tmp_path) == (tmp_path / "epoch_2.pth", [file])
    file.write_bytes(whole[:-100])
    runner = toy.make_runner(tmp_path, resume=True)
    runner.train()
    assert len(runner.model.losses) == 8
    assert "epoch_3.pth cannot be read" in next(tmp_path.glob("*/*.log")).read_text()
    read_checkpoint(file)  # written anew


@pytest.mark.parametrize("name", ["weights.pth", "best.pth"])
def test_what_cannot_be_resumed_from_says_what_it_lacks(toy, trained, tmp_path, name):
    torch.save({"state_dict": toy.Network().state_dict()}, tmp_path / "weights.pth")
    shutil.copy(trained / "best.pth", tmp_path)
    with pytest.raises(UserError, match=rf"{name}: training cannot be resumed from it, it has no .*optimizer"):
        toy.make_runner(tmp_path / "run", resume=True, load_from=str(tmp_path / name)).train()


class TestAnotherArchitecture:
    @pytest.mark.parametrize("resume", [False, True], ids=["load_from", "resume"])
    def test_another_width_is_refused(self, toy, trained, tmp_path, resume):
        file = str(trained / "epoch_4.pth")
        with pytest.raises(UserError, match=r"another architecture.* 7 mismatched \(stem\.weight \(4, 3, 3, 3\) for"):
            toy.make_runner(tmp_path, model=toy.Network(width=6), load_from=file, resume=resume).train()

    def test_another_class_count_keeps_the_rest(self, toy, trained, tmp_path):
        file = trained / "epoch_4.pth"
        runner = toy.make_runner(tmp_path, epochs=1, model=toy.Network(classes=5), load_from=str(file))
        start = {key: value.clone() for key, value in runner.model.state_dict().items()}
        runner.call_hook("before_run")
        runner.load_or_resume()
        state, saved = runner.model.state_dict(), read_checkpoint(file)["state_dict"]
        for key in state:
            assert_close(state[key], (start if key.startswith("out.") else saved)[key], rtol=0, atol=0)

    def test_parts_that_the_file_does_not_know_start_anew(self, toy, trained, tmp_path):
        weights = read_checkpoint(trained / "epoch_4.pth")["state_dict"]
        model = toy.Network()
        model.out = torch.nn.Sequential(OrderedDict(old=model.out, masks=torch.nn.Linear(3, 2)))
        renamed = {key.replace("out.", "out.old."): value for key, value in weights.items()}
        torch.save({"state_dict": renamed}, tmp_path / "part.pth")
        runner = toy.make_runner(tmp_path, epochs=1, model=model, load_from=str(tmp_path / "part.pth"))
        start = {key: value.clone() for key, value in runner.model.state_dict().items()}
        runner.call_hook("before_run")
        runner.load_or_resume()
        for key, value in runner.model.state_dict().items():
            assert_close(value, renamed.get(key, start[key]), rtol=0, atol=0)

    @pytest.mark.parametrize("lost", ["out.", "stem.weight"])
    def test_a_missing_head_or_tensor_is_no_new_part(self, toy, trained, tmp_path, lost):
        weights = read_checkpoint(trained / "epoch_4.pth")["state_dict"]
        kept = {key: value for key, value in weights.items() if not key.startswith(lost)}
        torch.save({"state_dict": kept}, tmp_path / "part.pth")
        runner = toy.make_runner(tmp_path, epochs=1, load_from=str(tmp_path / "part.pth"))
        runner.call_hook("before_run")
        with pytest.raises(UserError, match="another architecture"):
            runner.load_or_resume()

    def test_the_average_starts_from_what_the_model_starts_from(self, toy, trained, tmp_path):
        file = str(trained / "epoch_4.pth")
        runner = toy.make_runner(tmp_path, epochs=1, model=toy.Network(classes=5), load_from=file)
        runner.call_hook("before_run")
        runner.load_or_resume()
        average = next(hook.ema_model.module for hook in runner.hooks if type(hook).__name__ == "EMAHook")
        model = runner.model.state_dict()
        assert all(torch.equal(value, model[key]) for key, value in average.state_dict().items())

    def test_weights_in_other_layouts_are_found(self, toy, tmp_path):
        network = toy.Network()
        torch.save({"model": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "a.pth")
        runner = toy.make_runner(tmp_path / "run", load_from=str(tmp_path / "a.pth"), init_seed=9)
        runner.call_hook("before_run")
        runner.load_or_resume()
        assert torch.equal(runner.model.out.weight, network.out.weight)


class TestBest:
    def test_a_resumed_run_does_not_overwrite_it_with_a_worse_one(self, toy, tmp_path):
        toy.make_runner(tmp_path, epochs=2, scores=[0.1, 0.9]).train()
        # epoch_2.pth was written before epoch 2 was scored: it knows of 0.1 only.
        # A resumed run scores the epoch again from which it resumes: 0.9 and 0.4.
        toy.make_runner(tmp_path, epochs=4, scores=[0.9, 0.3, 0.4], resume=True).train()
        assert read_checkpoint(tmp_path / "best.pth")["meta"]["best"] == dict(metric="toy/score", score=0.9)
        toy.make_runner(tmp_path, epochs=5, scores=[0.4, 0.95], resume=True).train()
        assert read_checkpoint(tmp_path / "best.pth")["meta"]["epoch"] == 5

    @pytest.mark.parametrize("last", [2, 4])
    def test_an_interrupted_validation_is_made_up_for(self, toy, tmp_path, last):
        """Saved but not scored, the epoch may have been the best; also where it is the last one."""
        straight = toy.make_runner(tmp_path / "straight", epochs=4, scores=[0.1, 0.9, 0.3, 0.95][: last - 1] + [0.99])
        straight.train()
        folder = resumable(tmp_path / "straight", tmp_path / "resumed", last)
        resumed = toy.make_runner(folder, epochs=4, scores=[0.99], resume=True, init_seed=7)
        resumed.train()
        wanted, best = (read_checkpoint(path / "best.pth") for path in (tmp_path / "straight", folder))
        assert best["meta"]["best"] == wanted["meta"]["best"] and best["meta"]["epoch"] == last
        assert all(torch.equal(best["state_dict"][key], value) for key, value in wanted["state_dict"].items())
        assert resumed.model.losses == straight.model.losses[4 * last :]

    def test_two_runs_in_one_second_share_nothing(self, toy, tmp_path, monkeypatch):
        still = SimpleNamespace(time=lambda: 1e9, strftime=time.strftime, localtime=time.localtime)
        monkeypatch.setattr(mmengine_runner, "time", still)
        first, second = (
            toy.make_runner(tmp_path / name, epochs=1, scores=[x], experiment_name="same")
            for name, x in (("a", 0.9), ("b", 0.2))
        )
        assert first.timestamp == second.timestamp and first.message_hub is not second.message_hub
        for runner in (first, second):
            runner.train()
        assert read_checkpoint(tmp_path / "b" / "best.pth")["meta"]["best"]["score"] == 0.2

    def test_a_fresh_run_does_not_look_at_an_old_one(self, toy, tmp_path):
        toy.make_runner(tmp_path, epochs=1, scores=[0.9]).train()
        toy.make_runner(tmp_path, epochs=1, scores=[0.2]).train()
        assert read_checkpoint(tmp_path / "best.pth")["meta"]["best"]["score"] == 0.2

    def test_nan_is_no_best_score(self, toy, tmp_path):
        toy.make_runner(tmp_path, epochs=3, scores=[math.nan, 0.5, math.nan]).train()
        assert read_checkpoint(tmp_path / "best.pth")["meta"]["epoch"] == 2

    @pytest.mark.parametrize("score", [-1.0, math.nan])
    def test_with_nothing_to_score_there_is_none_and_it_is_told_once(self, toy, tmp_path, score):
        toy.make_runner(tmp_path, epochs=3, scores=[score] * 3).train()
        assert not (tmp_path / "best.pth").exists()
        log = next(tmp_path.glob("*/*.log")).read_text()
        assert log.count("there was nothing to score, so best.pth is not written; use the last epoch_N.pth") == 1
        with pytest.raises(
            UserError, match=r"best\.pth: no such checkpoint file; the newest beside it is epoch_3\.pth"
        ):
            read_checkpoint(tmp_path / "best.pth")

    def test_that_of_an_earlier_run_is_named(self, toy, tmp_path):
        toy.make_runner(tmp_path, epochs=1, scores=[0.9]).train()
        toy.make_runner(tmp_path, epochs=1, scores=[-1.0]).train()
        logs = sorted(tmp_path.glob("*/*.log"), key=lambda path: path.stat().st_mtime)
        assert "not written; the one in the work dir is of an earlier run" in logs[-1].read_text()


class TestBatch:
    @pytest.mark.parametrize(("size", "steps"), [(5, 1), (8, 1), (9, 1), (16, 2)])
    def test_fewer_samples_than_a_batch_are_one_batch(self, toy, tmp_path, size, steps):
        loader = dict(
            batch_size=8,
            num_workers=0,
            drop_last=True,
            sampler=dict(type="DefaultSampler", shuffle=True),
            dataset=toy.Data(size),
        )
        runner = toy.make_runner(tmp_path, epochs=1, train_dataloader=loader)
        runner.train()
        assert len(runner.model.losses) == steps
        warnings = "the data set has 5 samples, fewer than a batch of 8: every step takes all 5"
        assert (warnings in next(tmp_path.glob("*/*.log")).read_text()) == (size == 5)


class TestFullDisk:
    def test_the_pointer_survives(self, toy, trained, tmp_path, monkeypatch):
        """The checkpoint fits, the pointer no longer does."""
        (resumable(trained, tmp_path, 3) / "last_checkpoint").write_text("before")
        real = os.replace

        def full(source: Path, target: Path) -> None:
            if target.name == "last_checkpoint":
                raise OSError(errno.ENOSPC, "No space left on device")
            real(source, target)

        monkeypatch.setattr(atomic.os, "replace", full)
        with pytest.raises(WorkError, match=r"last_checkpoint could not be saved .*No space left"):
            toy.make_runner(tmp_path, resume=True).train()
        assert (tmp_path / "last_checkpoint").read_text() == "before"
        assert (tmp_path / "epoch_3.pth").exists() and not list(tmp_path.glob("*.tmp"))

    def test_sync_that_fails_leaves_the_previous_file(self, tmp_path, monkeypatch):
        target = tmp_path / "epoch_1.pth"
        target.write_bytes(b"old")

        def fail(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(atomic.os, "fsync", fail)
        with pytest.raises(WorkError), atomic.whole_or_nothing(target) as draft:
            draft.write_bytes(b"new")
        assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]

    @pytest.mark.slow
    def test_a_real_write_that_fails(self, trained, tmp_path):
        """The kernel refuses to let files grow, in a process of its own."""
        before = (resumable(trained, tmp_path, 1) / "epoch_1.pth").read_bytes()
        shutil.copy(trained / "best.pth", tmp_path)  # all scores are equal, so it is not written again
        done = program(tmp_path, "--resume", "--limit", str(len(before) // 2))
        assert done.returncode == 1
        assert re.search(r"epoch_2\.pth could not be saved \(.*File too large.*\)", done.stderr)
        assert (tmp_path / "epoch_1.pth").read_bytes() == before
        assert newest_intact_checkpoint(tmp_path) == (tmp_path / "epoch_1.pth", [])
        assert not list(tmp_path.glob("*.tmp"))


def program(work_dir: Path, *words: str, processes: int = 1) -> subprocess.CompletedProcess:
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    toy = str(Path(__file__).with_name("toy.py"))
    command = [sys.executable, *launch, toy, str(work_dir), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_two_processes_end_with_the_same_model(tmp_path):
    """They start with other weights and see other images."""
    done = program(tmp_path, "--launcher", "pytorch", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "processes: 2 differing: []" in done.stdout and "same losses: False" in done.stdout
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert log.count("lost.png: the image is missing or cannot be decoded") == 1
    assert "epoch 1: 1 unreadable images skipped" in log and "epoch 2: 1 unreadable images skipped" in log


def test_skipped_images_are_named_once_and_counted(toy, tmp_path):
    toy.make_runner(tmp_path, epochs=2, skipped=("a.png", "b.png")).train()
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert log.count("a.png: the image is missing") == 1 and log.count("b.png: the image is missing") == 1
    assert all(f"epoch {epoch}: 2 unreadable images skipped" in log for epoch in (1, 2))


def test_the_average_is_the_formula_and_is_what_is_scored_and_saved(toy, tmp_path):
    record = toy.Record()
    runner = toy.make_runner(tmp_path, epochs=2, hooks=(record,))
    runner.train()
    states = record.states
    expected = {key: value.double() for key, value in states[0].items()}
    for step, state in enumerate(states[1:], start=1):
        # A decay of 1 - momentum, reached with time constant gamma: the average follows closely at first.
        decay = (1 - toy.EMA["momentum"]) * (1 - math.exp(-(step + 1) / toy.EMA["gamma"]))
        expected = {key: decay * value + (1 - decay) * state[key].double() for key, value in expected.items()}
    saved = read_checkpoint(tmp_path / "epoch_2.pth")
    scored = runner.model.scored[-1]
    for key, value in expected.items():
        if value.dim():  # not the count of batches
            assert_close(saved["state_dict"][key].double(), value, rtol=1e-5, atol=1e-6)
            assert torch.equal(scored[key], saved["state_dict"][key])
            assert torch.equal(saved["ema_state_dict"][f"module.{key}"], states[-1][key])  # the two are swapped
    assert torch.equal(runner.model.out.weight, states[-1]["out.weight"])  # training goes on from its own weights


def test_progress_is_told_at_each_epoch_and_after_a_resume(toy, trained, tmp_path):
    straight = toy.make_runner(tmp_path / "a")
    straight.train()
    assert straight.model.progress == [0, 1 / 3, 2 / 3, 1]
    resumed = toy.make_runner(resumable(trained, tmp_path / "b", 2), resume=True)
    resumed.train()
    assert resumed.model.progress == [2 / 3, 1]


def test_persistent_workers_are_refused(toy, tmp_path):
    runner = toy.make_runner(tmp_path, workers=1)
    runner._train_dataloader["persistent_workers"] = True
    with pytest.raises(ValueError, match=r"train_dataloader\.persistent_workers: got True"):
        runner.train()


@pytest.mark.parametrize("wrapper", ["OptimWrapper", "CpuAmpOptimWrapper"])
def test_mixed_precision_computes_in_bfloat16_and_keeps_float32(toy, tmp_path, wrapper):
    kinds = []
    network = toy.Network()
    network.mid.register_forward_hook(lambda module, args, out: kinds.append(out.dtype) if module.training else None)
    optim = dict(type=wrapper, constructor="MuonConstructor", optimizer=dict(type="MuonAdamW", lr=1e-3))
    toy.make_runner(tmp_path, epochs=1, model=network, optim_wrapper=optim).train()
    assert set(kinds) == {torch.bfloat16 if wrapper == "CpuAmpOptimWrapper" else torch.float32}
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert all(math.isfinite(loss) for loss in network.losses)


@pytest.mark.parametrize(("stride", "kept"), [(1, True), (2, False)])
def test_no_layer_trains_in_the_format_that_ends_the_process(toy, tmp_path, stride, kept):
    # On a CPU the gradient of a narrow 1x1 convolution with a stride is a segmentation fault in channels-last.
    network = toy.Network()
    network.mid = torch.nn.Conv2d(4, 4, 1, stride=stride)
    toy.make_runner(tmp_path, epochs=1, model=network).train()
    last = network.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert last is kept and network.losses
