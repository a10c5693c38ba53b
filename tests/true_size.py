"""A checkpoint of Stable Diffusion 1.5's configuration with random weights, in half precision."""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ap3d.training.text_pretraining import build_tokenizer

CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"
WIDTHS = (320, 640, 1280, 1280)


def write_true_size(folder: Path) -> Path:
    """UNet of 860 million parameters, ControlNet of 361 million with four condition channels, CLIP-L, autoencoder."""
    with init_empty_weights():
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=WIDTHS, cross_attention_dim=768, attention_head_dim=8,
            down_block_types=(*[CROSS.format("Down")] * 3, PLAIN.format("Down")),
            up_block_types=(PLAIN.format("Up"), *[CROSS.format("Up")] * 3),
        )  # fmt: skip
        control = ControlNetModel(
            conditioning_channels=4, block_out_channels=WIDTHS, cross_attention_dim=768, attention_head_dim=8,
            down_block_types=(*[CROSS.format("Down")] * 3, PLAIN.format("Down")),
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                            num_attention_heads=12, vocab_size=49408))  # fmt: skip
    for name, model in {"unet": unet, "controlnet": control, "vae": vae}.items():
        model.save_config(folder / name)
        _save(model, folder / name / "diffusion_pytorch_model.safetensors")
    (folder / "text_encoder").mkdir(parents=True)
    text.config.save_pretrained(folder / "text_encoder")
    _save(text, folder / "text_encoder" / "model.safetensors")
    build_tokenizer(folder / "tokenizer", 77)
    DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    return folder


def _save(model: Any, file: Path) -> None:
    """Small random weights; norms pass their input on."""
    block = 0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).half()
    tensors = {}
    for name, value in model.state_dict().items():
        if "norm" in name and name.endswith("weight"):
            tensors[name] = torch.ones(value.shape, dtype=torch.float16)
        else:
            tensors[name] = block.repeat(-(-value.numel() // len(block)))[: value.numel()].reshape(value.shape).clone()
    save_file(tensors, file, {"format": "pt"})
