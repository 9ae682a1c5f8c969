"""What checkpoints say about the training: nothing that must not be given to others."""

import pytest
from mmengine.config import Config

from efftasks.checkpoints.files import read_checkpoint


@pytest.mark.parametrize("name", ["best.pth", "epoch_1.pth"])
def test_the_config_of_a_checkpoint_has_no_secrets_and_machine_paths(toy, tmp_path, name):
    cfg = dict(data_root="/home/someone/data/mine/", backend_args=dict(api_key="k-123"), image_size=(64, 96))
    toy.make_runner(tmp_path, epochs=1, scores=[0.5], cfg=cfg).train()
    checkpoint = read_checkpoint(tmp_path / name)
    texts = (checkpoint["meta"]["cfg"], checkpoint["message_hub"]["runtime_info"]["cfg"])
    for text in texts:
        saved = Config.fromstring(text, ".py")
        assert saved.data_root == "data/mine/" and saved.image_size == [64, 96]
        assert saved.backend_args == dict(api_key="(hidden)")
    assert "k-123" not in str(checkpoint) and "someone" not in str(checkpoint)
