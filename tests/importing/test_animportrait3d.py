"""AnimPortrait3D's gallery avatars (PLY and fitted_params.pkl) as bundles."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.errors import DataFileError, InputError
from ap3d.importing import import_avatar
from ap3d.importing.faces import INNER_EYE, animportrait3d_faces
from ap3d.raster.reference import rotation_matrices
from ap3d.splats.avatar import Group
from ap3d.splats.bundle import Bundle
from tests.importing.avatar_files import MASKS, fitted_params, local_to_world, write_ply

TEETH = 5848


@pytest.fixture(scope="module")
def vertex_list(smplx, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """The crop's list: the kept vertices without those in the eyes, then the teeth."""
    kept = np.setdiff1d(smplx.crop.vertices, INNER_EYE)
    path = tmp_path_factory.mktemp("list") / "valid_vert_id.npy"
    np.save(path, np.concatenate([kept, 10475 + np.arange(2986)]))
    return path


@pytest.fixture
def folder(tmp_path: Path, smplx, vertex_list: Path) -> Path:  # type: ignore[no-untyped-def]
    faces = int((animportrait3d_faces(smplx, np.load(vertex_list)) >= 0).sum())
    generator = np.random.default_rng(2)
    binding = np.concatenate([generator.integers(0, faces, 300), generator.integers(faces, faces + TEETH, 40)])
    masks = {name: np.zeros(340) for name in MASKS}
    for name, part in zip(MASKS[:3], np.split(np.arange(300), 3), strict=True):
        masks[name][part] = 1
    masks["teeth_points_mask"][300:] = 1
    write_ply(tmp_path / "avatar" / "point_cloud.ply", binding, normals=False, masks=masks)
    torch.save(fitted_params(), tmp_path / "avatar" / "fitted_params.pkl")
    return tmp_path / "avatar"


def test_gaussians_stand_and_lie_as_the_original_draws_them(
    folder: Path, smplx, vertex_list: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    from plyfile import PlyData

    imported = import_avatar(str(folder), smplx, vertex_list=str(vertex_list))
    assert imported.notes == (imported.notes[0],) and "40 Gaussians on its teeth and gums" in imported.notes[0]
    imported.bundle.save(str(tmp_path / "b"))
    bundle = Bundle.open(str(tmp_path / "b"), smplx)
    assert bundle.historic_rotation and bundle.facts["groups"]["hair"] == 100
    table = PlyData.read(str(folder / "point_cloud.ply"))["vertex"].data[:300]
    posed = bundle.params.replace(head=torch.tensor([[0.1, 0.5, 0.0]]))
    splats = bundle.pose(posed)
    # The original's faces: those of the file whose corners are all listed, corners 1 and 2 exchanged.
    listed = np.isin(smplx.crop.vertices, np.load(vertex_list))
    ours = smplx.faces[: len(smplx.crop.face_ids)].numpy()
    original = ours[listed[ours].all(1)][:, [0, 2, 1]]
    corners = smplx.vertices(posed)[0][torch.from_numpy(original[table["binding_0"].astype(int)])]
    means, covariances = local_to_world(table, corners, historic=True)
    torch.testing.assert_close(splats.means, means, atol=1e-4, rtol=1e-4)
    axes = rotation_matrices(splats.quaternions) * splats.scales[:, None]
    torch.testing.assert_close(axes @ axes.transpose(1, 2), covariances, atol=1e-6, rtol=1e-3)


def test_the_right_order_is_there_for_those_who_want_it(folder: Path, smplx, vertex_list: Path) -> None:  # type: ignore[no-untyped-def]
    historic, right = (
        import_avatar(str(folder), smplx, vertex_list=str(vertex_list), historic=flag).bundle for flag in (True, False)
    )
    assert historic.historic_rotation and not right.historic_rotation
    torch.testing.assert_close(historic.pose(historic.params).means, right.pose(right.params).means)


def test_fitted_parameters_become_the_rig_s(folder: Path, smplx, vertex_list: Path) -> None:  # type: ignore[no-untyped-def]
    params = import_avatar(str(folder), smplx, vertex_list=str(vertex_list)).bundle.params
    truth = fitted_params()
    for ours, theirs in {"head": "head_pose", "eyes": "eyes_pose", "scale": "global_scale"}.items():
        torch.testing.assert_close(params.tensors()[ours], torch.from_numpy(truth[f"fitted_{theirs}"]))
    for dump in (pickle.dumps(truth), saved({k: torch.from_numpy(v) for k, v in truth.items()})):
        (folder / "fitted_params.pkl").write_bytes(dump)
        again = import_avatar(str(folder), smplx, vertex_list=str(vertex_list)).bundle.params
        assert torch.equal(again.shape, params.shape)


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


class Attack:
    """Leaves a mark where a plain unpickler opens it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("write", [pickle.dumps, saved])
def test_hostile_parameters_are_refused_and_not_run(
    folder: Path, smplx, vertex_list: Path, tmp_path: Path, write
) -> None:  # type: ignore[no-untyped-def]
    (folder / "fitted_params.pkl").write_bytes(write(fitted_params() | {"fitted_shape": Attack(tmp_path / "mark")}))
    with pytest.raises(DataFileError, match="fitted_params.pkl"):
        import_avatar(str(folder), smplx, vertex_list=str(vertex_list))
    assert not (tmp_path / "mark").exists()


def test_what_does_not_fit_is_named(folder: Path, smplx, flame, vertex_list: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="--vertex-list"):
        import_avatar(str(folder), smplx)  # the synthetic model has another crop than the real one
    with pytest.raises(InputError, match="SMPL-X 2020"):
        import_avatar(str(folder), flame, vertex_list=str(vertex_list))
    torch.save(fitted_params() | {"fitted_global_scale": np.zeros((1, 1), np.float32)}, folder / "fitted_params.pkl")
    with pytest.raises(DataFileError, match="fitted_params.pkl holds parameters that no head has"):
        import_avatar(str(folder), smplx, vertex_list=str(vertex_list))
    lacking = {k: v for k, v in fitted_params().items() if k != "fitted_jaw_pose"}
    torch.save(lacking, folder / "fitted_params.pkl")
    with pytest.raises(DataFileError, match="lacks fitted_jaw_pose"):
        import_avatar(str(folder), smplx, vertex_list=str(vertex_list))
    (folder / "fitted_params.pkl").write_bytes(saved(fitted_params())[:300])
    with pytest.raises(DataFileError, match="fitted_params.pkl"):
        import_avatar(str(folder), smplx, vertex_list=str(vertex_list))


def write_teeth(folder: Path) -> None:
    """Two arches of 1493 vertices with quads, as the original's meshes have."""
    folder.mkdir()
    for name, height in (("upper_teeth.obj", 0.2), ("lower_teeth.obj", -0.2)):
        t = np.linspace(0, 1, 1493)
        points = np.stack([np.cos(np.pi * t * 16), height * t, np.sin(np.pi * t * 16)], 1)
        lines = [f"v {x} {y} {z}" for x, y, z in points]
        lines += [f"f {i}/1 {i + 1}/2 {i + 2}/3 {i + 3}/4" for i in range(1, 1451)]
        (folder / name).write_text("\n".join(["# teeth", *lines]) + "\n")


def test_teeth_come_along_with_the_original_s_meshes(folder: Path, smplx, vertex_list: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_teeth(tmp_path / "teeth")
    imported = import_avatar(str(folder), smplx, vertex_list=str(vertex_list), teeth=str(tmp_path / "teeth"))
    avatar = imported.bundle.avatar
    teeth = avatar.select(avatar.group == int(Group.TEETH))
    assert len(teeth) + sum(int(n.split()[0]) for n in imported.notes) == 40 and len(teeth) > 30
    mouth = torch.cat([smplx.regions["teeth"], smplx.regions["mouth"]])
    assert bool(torch.isin(teeth.binding, mouth).all())
    landmarks = smplx.landmarks(imported.bundle.params)[0]
    width = float((landmarks[54] - landmarks[48]).norm())
    means = imported.bundle.pose(imported.bundle.params).means[avatar.group == int(Group.TEETH)]
    assert float((means.mean(0) - landmarks[[48, 54]].mean(0)).norm()) < 2 * width
    (tmp_path / "teeth" / "lower_teeth.obj").write_text("v 0 0 0\n")
    with pytest.raises(DataFileError, match="lower_teeth.obj"):
        import_avatar(str(folder), smplx, vertex_list=str(vertex_list), teeth=str(tmp_path / "teeth"))
