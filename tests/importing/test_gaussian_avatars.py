"""GaussianAvatars' point_cloud.ply and flame_param.npz as a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.cli import main
from ap3d.errors import InputError
from ap3d.importing import import_avatar
from ap3d.raster.reference import rotation_matrices
from ap3d.splats.bundle import Bundle
from tests.importing.avatar_files import local_to_world, write_ply


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A trained model: 400 Gaussians on the face and 25 on the teeth that GaussianAvatars adds."""
    generator = np.random.default_rng(1)
    binding = np.concatenate([generator.integers(0, 9976, 400), generator.integers(9976, 10144, 25)])
    cloud = tmp_path / "model" / "point_cloud" / "iteration_600000"
    write_ply(tmp_path / "model" / "point_cloud" / "iteration_7000" / "point_cloud.ply", binding[:9], normals=True)
    write_ply(cloud / "point_cloud.ply", binding, normals=True)
    write_params(cloud / "flame_param.npz")
    return tmp_path / "model"


def write_params(path: Path, **changes: np.ndarray) -> None:
    frames = {"translation": 3, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "expr": 100}
    arrays = {name: np.zeros((4, size), np.float32) for name, size in frames.items()}
    arrays["shape"] = np.linspace(-1, 1, 300).astype(np.float32)
    arrays["static_offset"] = np.full((1, 5143, 3), 0.001, np.float32)
    np.savez(path, **(arrays | changes))


def test_gaussians_stand_where_the_published_formulas_put_them(folder: Path, flame) -> None:  # type: ignore[no-untyped-def]
    imported = import_avatar(str(folder), flame)
    bundle = imported.bundle
    assert len(bundle.avatar) == 400 and bundle.avatar.sh_degree == 3
    assert any("25 Gaussians on its teeth" in n for n in imported.notes)
    assert any("1.7 mm" in n for n in imported.notes)
    torch.testing.assert_close(bundle.params.shape[0, [0, 299]], torch.tensor([-1.0, 1.0]))
    posed = bundle.params.replace(head=torch.tensor([[0.2, 0.4, 0.0]]), jaw=torch.tensor([[0.2, 0.0, 0.0]]))
    splats = bundle.pose(posed)
    from plyfile import PlyData

    table = PlyData.read(str(folder / "point_cloud/iteration_600000/point_cloud.ply"))["vertex"].data[:400]
    # The synthetic FLAME keeps all of its faces, in the file's order, as the real one does.
    corners = flame.vertices(posed)[0][flame.faces[torch.tensor(table["binding_0"].astype(int))]]
    means, covariances = local_to_world(table, corners, historic=False)
    torch.testing.assert_close(splats.means, means, atol=1e-4, rtol=1e-4)
    axes = rotation_matrices(splats.quaternions) * splats.scales[:, None]
    torch.testing.assert_close(axes @ axes.transpose(1, 2), covariances, atol=1e-6, rtol=1e-3)


def test_the_command_writes_a_bundle_that_opens_and_animates(
    folder: Path, flame_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle.zip"
    assert main(["import", str(folder), "--rig", str(flame_file), "--out", str(out)]) == 0
    assert "25 Gaussians" in capsys.readouterr().out
    bundle = Bundle.open(str(out), str(flame_file))
    assert bundle.facts["imported"]["program"] == "GaussianAvatars" and not bundle.historic_rotation
    assert set(bundle.facts["groups"]) == {"skin", "hair", "clothes", "teeth", "eyes"}
    assert bundle.facts["groups"]["hair"] > 0
    rig = ["--rig", str(flame_file)]
    assert main(["inspect", str(out), *rig]) == 0 and "GaussianAvatars" in capsys.readouterr().out
    assert main(["inspect", str(out)]) == 2
    assert "flame2023" in capsys.readouterr().err
    video = tmp_path / "nod.mp4"
    still = ["--motion", "nod", "--seconds", "0.2", "--size", "32"]
    assert main(["animate", str(out), *rig, *still, "--out", str(video)]) == 0 and video.stat().st_size > 0
    capsys.readouterr()
    assert main(["import", str(folder), "--rig", str(flame_file), "--out", str(out)]) == 2
    assert "already" in capsys.readouterr().err


def test_what_does_not_fit_is_named(folder: Path, flame, smplx, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cloud = folder / "point_cloud/iteration_600000"
    with pytest.raises(InputError, match="FLAME 2023"):
        import_avatar(str(folder), smplx)
    with pytest.raises(InputError, match="does not exist"):
        import_avatar(str(tmp_path / "nowhere"), flame)
    write_params(cloud / "flame_param.npz", shape=np.full(300, np.nan, np.float32))
    with pytest.raises(InputError, match="finite"):
        import_avatar(str(folder), flame)
    np.savez(cloud / "flame_param.npz", shape=np.array([object()], dtype=object))
    with pytest.raises(InputError, match="shape"):
        import_avatar(str(folder), flame)
    write_params(cloud / "flame_param.npz", static_offset=np.zeros((0, 3), np.float32))
    with pytest.raises(InputError, match="static_offset"):
        import_avatar(str(folder), flame)
    write_params(cloud / "flame_param.npz")
    write_ply(cloud / "point_cloud.ply", np.zeros(0, int), normals=True)
    with pytest.raises(InputError, match="holds no Gaussian"):
        import_avatar(str(folder), flame)
    write_ply(cloud / "point_cloud.ply", np.array([20000]), normals=True)
    with pytest.raises(InputError, match="triangle 20000"):
        import_avatar(str(folder), flame)
    (cloud / "flame_param.npz").unlink()
    with pytest.raises(InputError, match="--params"):
        import_avatar(str(folder), flame)
