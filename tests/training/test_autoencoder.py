import torch
from torch.nn import functional as F

from ap3d.diffusion.latents import LatentCodec, LinearDecoder
from ap3d.training.autoencoder import (
    FINE_GAIN,
    HAAR,
    LUMA,
    LUMA_SHIFT,
    build_autoencoder,
    coarse_kernel,
    fit_linear_decoder,
    psnr,
    train_decoder,
)


def smooth_pictures(count: int, size: int = 64) -> torch.Tensor:
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


def test_the_encoder_is_the_haar_transform_of_luma_and_mean_chroma():
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    signed = pictures * 2 - 1
    coarse = F.conv2d(F.avg_pool2d(signed, 2), coarse_kernel(), stride=2)
    coarse[:, 0] += LUMA_SHIFT
    luma = torch.einsum("c,bchw->bhw", LUMA, signed)[:, None]
    fine = F.pixel_unshuffle(F.conv2d(luma, HAAR[1:].view(3, 1, 2, 2), stride=2) * FINE_GAIN, 2)
    latents = LatentCodec(build_autoencoder()).encode(pictures)
    assert (latents - torch.cat([coarse, fine], 1)).abs().max() < 2e-6


def test_the_linear_decoder_inverts_it(tmp_path):
    model, pictures = build_autoencoder(), smooth_pictures(24)
    decoder, quality = fit_linear_decoder(model, pictures)
    assert quality > 36
    gray = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(2)).expand(-1, 3, -1, -1)
    latents = LatentCodec(model).encode(gray)
    assert psnr(LinearDecoder.fit(latents, gray * 2 - 1)(latents) / 2 + 0.5, gray) > 50  # luma is kept whole
    decoder.save(tmp_path)
    again = LinearDecoder.load(tmp_path)
    assert again is not None and torch.equal(again.weight, decoder.weight)


def test_gradients_flow_from_latents_to_pixels():
    pictures = smooth_pictures(1).requires_grad_()
    LatentCodec(build_autoencoder()).encode(pictures).square().sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().min() >= 0 and pictures.grad.abs().sum() > 0


def test_the_stock_decoder_trains():
    pictures, rows = smooth_pictures(16), []
    torch.manual_seed(0)
    train_decoder(build_autoencoder(), lambda n: pictures[:n], 25, report=rows.append)
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3
