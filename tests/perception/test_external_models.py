"""Models that the package does not ship: their real classes with tiny weights of the true input and output shapes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ap3d.cameras import orbit
from ap3d.checksums import BUILTIN
from ap3d.config import PerceptionConfig
from ap3d.errors import DataFileError, InputError
from ap3d.perception import (
    load_hair_masker,
    load_landmark_detector,
    load_matting,
    load_normals,
    load_parser,
    load_segmenter,
)
from ap3d.perception.landmarks_fan import face_square, heat_peaks
from ap3d.perception.matte_modnet import network_size
from ap3d.perception.protocol import Part
from ap3d.perception.sapiens import CLASSES as SAPIENS
from ap3d.perception.sapiens import part_of
from ap3d.perception.segformer import PARTS
from ap3d.portrait.protocol import PortraitViews

IMAGENET_MEAN, IMAGENET_DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class ColourVote(nn.Module):
    """A quarter of the resolution; one class for each channel that is far above the others, else class 0."""

    def __init__(self, classes: int, of_channel: list[int], height: int, width: int) -> None:
        super().__init__()
        self.vote = nn.Conv2d(3, classes, 4, 4)
        self.height, self.width = height, width
        with torch.no_grad():
            self.vote.weight.zero_()
            self.vote.bias.zero_()
            for channel, k in enumerate(of_channel):
                self.vote.weight[k, channel], self.vote.bias[k] = 1 / 16, -1.0

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == self.height and x.shape[3] == self.width
        return self.vote(x)


class OneChannel(nn.Module):
    """The weighted sum of the channels of each pixel, sides a multiple of 32."""

    def __init__(self, weights: tuple[float, float, float], squash: bool) -> None:
        super().__init__()
        self.mix, self.squash = nn.Conv2d(3, 1, 1, bias=False), squash
        with torch.no_grad():
            self.mix.weight.copy_(torch.tensor(weights).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] % 32 == 0 and x.shape[3] % 32 == 0
        y = self.mix(x)
        return y.sigmoid() if self.squash else y


class BrightestPixel(nn.Module):
    """68 heat maps ``[B, 68, 64, 64]`` that all peak where a 256 px crop is brightest."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3 and x.shape[2] == 256 and x.shape[3] == 256
        return torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4).expand(-1, 68, -1, -1)


def script(module: nn.Module, path: Path) -> Path:
    """Write a TorchScript file."""
    torch.jit.script(module.eval()).save(str(path))
    return path


def halves(height: int, width: int) -> Tensor:
    """Two equal pictures: the left half red, the right half blue."""
    images = torch.zeros(2, 3, height, width)
    images[:, 0, :, : width // 2] = 1
    images[:, 2, :, width // 2 :] = 1
    return images


def views_of(color: Tensor) -> PortraitViews:
    size = color.shape[-1]
    cameras = orbit([0.0] * len(color), [0.0] * len(color), torch.zeros(3), 4.0, 40.0, size)
    alpha = torch.ones_like(color[:, :1])
    alpha[..., : size // 4] = 0
    return PortraitViews(cameras, color * alpha, alpha, torch.zeros(3))


def test_sapiens_sees_its_own_size_and_answers_in_our_parts(tmp_path: Path) -> None:
    hair, cloth = SAPIENS.index("Hair"), SAPIENS.index("Upper_Clothing")
    path = script(ColourVote(28, [hair, 5, cloth], 1024, 768), tmp_path / "sapiens.pt2")
    segmenter = load_segmenter(f"sapiens:{path}")
    labels = segmenter.segment(halves(40, 60))
    assert labels.shape == (2, 40, 60) and labels.dtype == torch.int64
    assert (labels[..., :28] == Part.HAIR).all() and (labels[..., 32:] == Part.CLOTHES).all()
    assert segmenter.parts == {Part.BACKGROUND, Part.SKIN, Part.HAIR, Part.MOUTH, Part.NECK, Part.CLOTHES}
    assert "non-commercial" in segmenter.licence and len(segmenter.fingerprint) == 64


def test_classes_of_sapiens_become_our_parts() -> None:
    assert len(SAPIENS) == 28 and SAPIENS[2] == "Face_Neck" and SAPIENS[23:25] == ("Lower_Lip", "Upper_Lip")
    wanted = {"Face_Neck": Part.SKIN, "Hair": Part.HAIR, "Torso": Part.NECK, "Upper_Clothing": Part.CLOTHES,
              "Apparel": Part.CLOTHES, "Upper_Teeth": Part.MOUTH, "Background": Part.BACKGROUND}  # fmt: skip
    assert {name: part_of(name) for name in wanted} == wanted


def test_a_network_with_other_classes_is_not_sapiens(tmp_path: Path) -> None:
    path = script(ColourVote(19, [1, 2, 3], 1024, 768), tmp_path / "other.pt2")
    with pytest.raises(DataFileError, match="19 classes, not the 28"):
        load_segmenter(f"sapiens:{path}").segment(halves(8, 8))


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=16,
        num_labels=19, id2label=dict(enumerate(PARTS)), label2id={name: k for k, name in enumerate(PARTS)},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "segformer"
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return folder


def test_segformer_agrees_with_its_own_image_processor(segformer: Path) -> None:
    from transformers import SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((80, 60), Image.Resampling.BICUBIC)
    pixels = SegformerImageProcessorPil()(small, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 512, 512)
    with torch.no_grad():
        logits = SegformerForSemanticSegmentation.from_pretrained(segformer).eval()(pixels).logits
    names = list(PARTS)
    wanted = torch.nn.functional.interpolate(logits, (60, 80), mode="bilinear").argmax(1)[0]
    images = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    segmenter = load_segmenter(f"segformer:{segformer}")
    labels = segmenter.segment(images)
    assert labels.shape == (1, 60, 80)
    agree = labels[0] == torch.tensor([[int(PARTS[names[k]]) for k in row] for row in wanted.tolist()])
    assert float(agree.float().mean()) > 0.97
    assert Part.BROWS in segmenter.parts and Part.BEARD not in segmenter.parts


def test_a_segformer_of_other_classes_is_refused(segformer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    shutil.copytree(segformer, folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["3"] = "ceiling"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataFileError, match="'ceiling'"):
        load_segmenter(f"segformer:{folder}")


def test_hair_masks_keep_the_pictures_size(tmp_path: Path) -> None:
    path = script(OneChannel((1.0, 0.0, -1.0), squash=False), tmp_path / "hair.pt")
    images = halves(45, 70)
    mask = load_hair_masker(f"pspnet:{path}", load_segmenter()).hair(images)
    assert mask.dtype == torch.bool and torch.equal(mask, images[:, 0] > 0.5)
    vote = script(ColourVote(28, [SAPIENS.index("Hair"), 5, 22], 1024, 768), tmp_path / "sapiens.pt2")
    by_segmenter = load_hair_masker("segmenter", load_segmenter(f"sapiens:{vote}")).hair(images)
    assert (by_segmenter == mask).float().mean() > 0.95


def test_a_parser_may_take_its_hair_from_another_network(tmp_path: Path) -> None:
    hair = script(OneChannel((-1.0, 0.0, 1.0), squash=False), tmp_path / "hair.pt")
    vote = script(ColourVote(28, [SAPIENS.index("Hair"), 5, 22], 1024, 768), tmp_path / "sapiens.pt2")
    images = halves(45, 70)
    parser = load_parser(PerceptionConfig(segmenter=f"sapiens:{vote}", hair=f"pspnet:{hair}"))
    labels, alone = parser.segment(images), load_segmenter(f"sapiens:{vote}").segment(images)
    masked = load_hair_masker(f"pspnet:{hair}", load_segmenter()).hair(images)
    assert bool((labels[masked] == Part.HAIR).all()) and bool((labels[~masked] != Part.HAIR).all())
    assert bool((labels[~masked & (alone == Part.HAIR)] == Part.SKIN).all())
    assert parser.name == "sapiens+pspnet" and len(parser.fingerprint) == 129


def test_modnet_sees_half_to_half_and_whole_blocks(tmp_path: Path) -> None:
    path = script(OneChannel((2.0, 0.0, 0.0), squash=True), tmp_path / "modnet.torchscript")
    alpha = load_matting(f"modnet:{path}").matte(views_of(halves(64, 64)))
    red, dark = torch.tensor(2.0).sigmoid(), torch.tensor(-2.0).sigmoid()  # 1 becomes 1, 0 becomes -1
    assert alpha.shape == (2, 1, 64, 64)
    assert torch.allclose(alpha[..., 20:30], red, atol=1e-3) and torch.allclose(alpha[..., 36:], dark, atol=1e-3)
    assert network_size(512, 512) == (512, 512) and network_size(300, 600) == (512, 1024)
    assert network_size(1000, 1300) == (512, 640)  # 665.6 cut to whole blocks


def test_birefnet_runs_as_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, floats = onnx.helper, onnx.TensorProto.FLOAT
    weight = make.make_tensor("weight", floats, [1, 3, 1, 1], [1.0, 0.5, -0.25])
    graph = make.make_graph(
        [make.make_node("Conv", ["input_image", "weight"], ["output_image"])], "tiny",
        [make.make_tensor_value_info("input_image", floats, ["batch", 3, 1024, 1024])],
        [make.make_tensor_value_info("output_image", floats, ["batch", 1, 1024, 1024])], [weight],
    )  # fmt: skip
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "birefnet.onnx")
    colour = np.array([0.2, 0.9, 0.4])
    picture = torch.tensor(colour).float().reshape(1, 3, 1, 1).expand(1, 3, 32, 32)
    views = views_of(picture)
    alpha = load_matting(f"birefnet:{tmp_path / 'birefnet.onnx'}").matte(views)
    logit = float(((colour - IMAGENET_MEAN) / IMAGENET_DEVIATION) @ np.array([1.0, 0.5, -0.25]))
    assert alpha.shape == (1, 1, 32, 32)
    assert abs(float(alpha[0, 0, 16, 24]) - 1 / (1 + np.exp(-logit))) < 1e-4
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(DataFileError, match="no ONNX file"):
        load_matting(f"birefnet:{tmp_path / 'broken.onnx'}")


@pytest.fixture(scope="module")
def marigold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, MarigoldNormalsPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    block = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    unet = UNet2DConditionModel(
        in_channels=8, out_channels=4, block_out_channels=(32,), layers_per_block=1, cross_attention_dim=32,
        attention_head_dim=8, norm_num_groups=8, sample_size=8, **block,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16, 16, 16), norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    tokenizer = CLIPTokenizer.from_pretrained(str(BUILTIN / "diffusion" / "tokenizer"))
    pipeline = MarigoldNormalsPipeline(
        unet, vae, DDIMScheduler(prediction_type="v_prediction"), text, tokenizer, prediction_type="normals",
        default_denoising_steps=2, default_processing_resolution=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "marigold"
    pipeline.save_pretrained(folder)
    return folder


def test_marigold_gives_unit_normals_of_the_foreground(marigold: Path) -> None:
    from diffusers import MarigoldNormalsPipeline

    estimator = load_normals(f"marigold:{marigold}")
    views = views_of(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    normals = estimator.normals(views)
    inside = views.alpha[:, 0] > 0
    assert normals.shape == (2, 3, 64, 64)
    assert torch.allclose(normals.norm(dim=1)[inside], torch.tensor(1.0), atol=1e-4) and not normals[..., :16].any()
    assert torch.equal(normals, estimator.normals(views))  # the noise is seeded
    pipeline = MarigoldNormalsPipeline.from_pretrained(str(marigold))
    pipeline.set_progress_bar_config(disable=True)
    white = (views.color + 1 - views.alpha)[:1]
    own = pipeline(
        white, num_inference_steps=4, generator=torch.Generator().manual_seed(0), output_type="pt"
    ).prediction
    assert torch.allclose(normals[0][:, inside[0]], own[0][:, inside[0]], atol=1e-4)


def test_fan_points_return_to_the_picture(tmp_path: Path) -> None:
    """A white dot on the nose of a darkened face is where all heat maps peak; the finder is the shipped one."""
    with np.load(Path(__file__).with_name("references.npz"), allow_pickle=False) as file:
        face = torch.from_numpy(file["picture"]).permute(2, 0, 1)[None].float() / 255
    own = load_landmark_detector().detect(face).points[0]
    x, y = (int(v) for v in own[30])  # the tip of the nose
    face = 0.6 * face
    face[..., y - 4 : y + 5, x - 4 : x + 5] = 1
    path = script(BrightestPixel(), tmp_path / "2DFAN4.zip")
    found = load_landmark_detector(f"face-alignment:{path}").detect(torch.cat([face, torch.zeros_like(face)]))
    assert found.points.shape == (2, 70, 2) and found.mesh.shape == (2, 68, 3)
    side = float(own[:, 0].max() - own[:, 0].min())
    assert (found.points[0] - torch.tensor([x + 0.5, y + 0.5])).abs().max() < max(6.0, 0.03 * side)
    assert float(found.score[1]) == 0 and found.points[1].isnan().all()


def test_heat_peaks_lean_to_the_higher_neighbour_and_squares_surround_faces() -> None:
    heat = torch.zeros(1, 2, 64, 64)
    heat[0, 0, 20, 30], heat[0, 0, 20, 31], heat[0, 1, 63, 0] = 1.0, 0.5, 1.0
    peaks = heat_peaks(heat)
    assert peaks[0, 0].tolist() == [30.75, 20.5] and peaks[0, 1].tolist() == [0.5, 63.5]
    corner, side = face_square(torch.tensor([[[10.0, 20.0], [110.0, 140.0]]]))
    assert abs(float(side) - 220 * 200 / 195) < 1e-4  # width plus height
    middle = corner[0] + side[0] / 2
    assert torch.allclose(middle, torch.tensor([60.0, 80 - 0.12 * 120]))


@pytest.mark.parametrize(
    ("load", "name", "what"),
    [
        (load_segmenter, "sapiens", "sapiens_1b_goliath.*non-commercial"),
        (load_segmenter, "segformer:no/such/folder", "jonathandinu/face-parsing"),
        (load_matting, "modnet", "modnet_photographic.*Apache"),
        (load_matting, "birefnet:nothing.onnx", "BiRefNet.*MIT"),
        (load_normals, "marigold:no/such/folder", "prs-eth/marigold"),
        (load_landmark_detector, "face-alignment", "2DFAN4.*BSD"),
    ],
)
def test_missing_weights_are_named_in_one_line(load, name: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        load(name)
    assert "\n" not in str(caught.value) and "write perception." in str(caught.value)


def test_damaged_weights_and_absent_devices_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"no archive")
    with pytest.raises(DataFileError, match="no TorchScript"):
        load_segmenter(f"sapiens:{broken}")
    if not torch.cuda.is_available():
        path = script(OneChannel((1.0, 0.0, 0.0), squash=True), tmp_path / "modnet.pt")
        with pytest.raises(InputError, match="device 'cuda' is not there"):
            load_matting(f"modnet:{path}", device="cuda")
