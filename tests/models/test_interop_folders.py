r"""Folders of diffusers: which are read, from where, and which are refused."""

import json
import shutil

import pytest
import torch
from pipelines import save_unet

import scoregen
from scoregen.compat import repair_torchvision
from scoregen.errors import UserError

repair_torchvision()
import diffusers  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers, since NumPy 2


@pytest.fixture
def unet(tmp_path):
    return save_unet(tmp_path / "pipe", diffusers.DDPMScheduler())


def rewrite(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_network_alone_takes_the_scheduler_in_it_or_beside_it(unet, tmp_path):
    assert scoregen.load(unet / "unet").sde.s_max == scoregen.load(unet).sde.s_max
    alone = shutil.copytree(unet / "unet", tmp_path / "alone")
    with pytest.raises(UserError, match=r"is a network without a scheduler.* Put scheduler_config.json into it"):
        scoregen.load(alone)
    diffusers.EDMEulerScheduler(sigma_max=5.0).save_pretrained(alone)
    assert scoregen.load(alone).sde.s_max == pytest.approx(5.0)


def test_a_pipeline_with_its_parts_in_one_folder_is_read(unet):
    r"""As google/ddpm-cifar10-32 and others of the first days are."""
    wanted = scoregen.load(unet).state_dict()
    for part in ("unet", "scheduler"):
        for file in (unet / part).iterdir():
            file.rename(unet / file.name)
        (unet / part).rmdir()
    found = scoregen.load(unet).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "StableDiffusionXLPipeline"},
            "is a StableDiffusionXLPipeline, whose U-Net",
        ),
        ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "also takes the picture and a mask"),
        ("model_index.json", {"_class_name": ["mine", "Pipe"]}, "of its own code .* which is not run"),
        ("model_index.json", {"unet": ["mine", "Net"]}, "is a DDPMPipeline, which is not read. Known are"),
        ("unet/config.json", {"_class_name": "Other"}, "must hold a UNet2DModel, got a 'Other'"),
        ("unet/config.json", {"sample_size": None}, "does not say the size of its images"),
        ("unet/config.json", {"out_channels": 3}, "takes 1 channels and gives 3"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "embeddings of another kind"),
        ("unet/config.json", {"block_out_channels": [4, 16]}, "weights do not fit the model"),
        ("unet/config.json", {"block_out_channels": [4, 2**40]}, "more than its weights have numbers"),
        ("unet/config.json", {"layers_per_block": 10_000}, "larger model than its weights|do not fit"),
        ("unet/config.json", {"norm_num_groups": 3}, "refuses it"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "must be an integer from 2 to 10000"),
        ("scheduler/scheduler_config.json", {"_class_name": "os.system"}, "got os.system"),
    ],
)
def test_folders_that_are_not_read_are_named(unet, file, changes, message):
    rewrite(unet / file, **changes)
    with pytest.raises(UserError, match=message):
        scoregen.load(unet)


def test_what_this_diffusers_does_not_know_is_said(unet, capsys):
    rewrite(unet / "unet" / "config.json", brand_new=[1], unused=None)
    scoregen.load(unet)
    assert "UNet2DModel of this diffusers does not know brand_new; left out" in capsys.readouterr().err


def test_pickles_are_not_read(unet):
    file = unet / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(UserError, match=r"has diffusion_pytorch_model.bin. Pickles are not read.*save_pretrained"):
        scoregen.load(unet)


def test_weights_in_several_files_and_under_their_old_names_are_read(unet, tmp_path):
    from safetensors.torch import load_file, save_file

    file = unet / "unet" / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = {}
    for name, tensor in load_file(file).items():
        for now, before in old.items():
            name = name.replace(now, before)
        tensors[name] = tensor
    assert any(".query." in name for name in tensors)
    wanted = scoregen.load(unet).state_dict()
    file.unlink()
    halves = [dict(list(tensors.items())[k::2]) for k in (0, 1)]
    places = {}
    for k, half in enumerate(halves):
        save_file(half, file.with_name(f"part-{k}.safetensors"))
        places |= dict.fromkeys(half, f"part-{k}.safetensors")
    index = file.with_name(f"{file.name}.index.json")
    index.write_text(json.dumps({"weight_map": places}))
    found = scoregen.load(unet).state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    with pytest.raises(UserError, match=r"has no '../../elsewhere.safetensors', which its index names"):
        scoregen.load(unet)


@pytest.fixture
def hub(unet, tmp_path, monkeypatch):
    r"""A copy of the hub on this disk in its own layout, without network access."""
    import huggingface_hub

    cache = tmp_path / "cache"
    place = cache / "models--owner--name"
    shutil.copytree(unet, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    for reference in ("main", "v1"):
        (place / "refs" / reference).write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["owner/name", "owner/name@v1"])
def test_a_hub_id_is_its_copy(hub, name):
    assert scoregen.load(name).shape == (1, 8, 8)


def test_a_hub_id_that_is_not_there_and_paths_are_told_apart(hub, monkeypatch):
    import huggingface_hub

    with pytest.raises(UserError, match=r"'owner/other' is no folder here, and the hub did not give it"):
        scoregen.load("owner/other")

    def fetched(*arguments, **named):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    (hub / "mine").mkdir()
    for path in ("mine/run", "outputs/demo", "./owner/name", "/owner/name", "~/name", "a/b/c", "name"):
        with pytest.raises(UserError, match="does not exist"):
            scoregen.load(path)
