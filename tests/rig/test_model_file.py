"""Reading body models: what they are, and every kind of wrong file in one clear line."""

import contextlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ap3d.errors import DataFileError, InputError
from ap3d.rig import load_rig, locate_rig
from ap3d.rig.companions import Companions
from ap3d.rig.model_file import read_body_model
from ap3d.rig.unpickling import read_array_pickle
from tests.rig import synthetic_models as synthetic


def test_pickle_of_python_2_with_chumpy_and_sparse_matrices(model_folder: Path) -> None:
    read = read_array_pickle((model_folder / "generic_model.pkl").read_bytes(), "generic_model.pkl")
    truth = synthetic.flame_data(2020)
    for key in ("v_template", "shapedirs", "posedirs", "f", "weights", "J_regressor", "kintree_table"):
        assert np.array_equal(read[key], truth[key]), key


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickle_of_python_3(protocol: int) -> None:
    arrays = {
        "a": np.arange(12, dtype=">i4").reshape(3, 4),
        "b": np.asfortranarray(np.ones((2, 3))),
        "c": np.float32(2),
    }
    read = read_array_pickle(pickle.dumps(arrays, protocol=protocol), "x.pkl")
    assert all(
        np.array_equal(read[k], v) and np.asarray(read[k]).shape == np.asarray(v).shape for k, v in arrays.items()
    )


@pytest.mark.parametrize("name", synthetic.hostile_pickles())
def test_hostile_pickles_are_refused_by_name(name: str) -> None:
    with pytest.raises(DataFileError, match=rf"names .*{name}"):
        read_array_pickle(synthetic.hostile_pickles()[name], "hostile.pkl")


def test_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    with pytest.raises(DataFileError):
        read_array_pickle(pickle.dumps({"v_template": Touch()}), "x.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x02}.", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f."])
def test_damaged_pickles(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "flame2023.pkl"
    path.write_bytes(data)
    with pytest.raises(DataFileError, match="flame2023.pkl"):
        read_body_model(path)


def test_objects_in_an_array_are_refused() -> None:
    with pytest.raises(DataFileError, match="not a readable pickle"):
        read_array_pickle(pickle.dumps({"v_template": np.array([print], dtype=object)}, protocol=2), "x.pkl")


def test_sparse_matrix_pointing_outside_is_refused(tmp_path: Path) -> None:
    matrix = synthetic.scipy.sparse.csc_matrix(np.eye(3))
    matrix.indices[0] = 7
    with (tmp_path / "x.pkl").open("wb") as file:
        synthetic.pickle_python2({"J_regressor": matrix}, file)
    with pytest.raises(DataFileError, match="sparse"):
        read_array_pickle((tmp_path / "x.pkl").read_bytes(), "x.pkl")


def test_npz_that_lies_about_its_size_or_holds_objects(tmp_path: Path) -> None:
    path = tmp_path / "SMPLX_NEUTRAL_2020.npz"
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999, 3), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("v_template.npy", header + b"0" * 64)
    with pytest.raises(DataFileError, match="more than the file holds"):
        read_body_model(path)
    np.savez(path, v_template=np.array([{}], dtype=object))
    with pytest.raises(DataFileError, match="objects"):
        read_body_model(path)


def test_other_models_are_named(tmp_path: Path) -> None:
    base = dict(synthetic.flame_data(2020).items())
    smpl = tmp_path / "SMPL_NEUTRAL.npz"
    np.savez(smpl, **(base | {"v_template": np.zeros((6890, 3))}))
    with pytest.raises(InputError, match="6890 vertices .SMPL"):
        read_body_model(smpl)
    old = tmp_path / "flame2020.npz"
    np.savez(old, **(base | {"shapedirs": np.zeros((5023, 3, 20))}))
    with pytest.raises(DataFileError, match="300 . 100"):
        read_body_model(old)
    nan = base["v_template"].copy()
    nan[5] = np.nan
    np.savez(old, **(base | {"v_template": nan}))
    with pytest.raises(DataFileError, match="finite"):
        read_body_model(old)
    np.savez(old, **{k: v for k, v in base.items() if k != "weights"})
    with pytest.raises(DataFileError, match="lacks weights"):
        read_body_model(old)


def test_year_and_gender(model_folder: Path, tmp_path: Path) -> None:
    link = lambda name: (tmp_path / name).symlink_to(model_folder / "flame2023.pkl") or tmp_path / name  # noqa: E731
    unknown = link("model.pkl")
    with pytest.raises(InputError, match="flame2020:.*flame2023:"):
        read_body_model(unknown)
    assert read_body_model(unknown, "flame2023").name == "flame2023"
    with pytest.raises(InputError, match="is flame2023, not flame2020"):
        read_body_model(link("flame2023.pkl"), "flame2020")
    with pytest.raises(InputError, match="not smplx2020"):
        read_body_model(tmp_path / "flame2023.pkl", "smplx2020")
    with pytest.raises(InputError, match="2017"):
        read_body_model(link("FLAME2017.pkl"))
    with pytest.raises(InputError, match="without a jaw"):
        read_body_model(link("flame2023_no_jaw.pkl"))
    for name, gender in (("female_model.pkl", "female"), ("male_model.pkl", "male"), ("FLAME_MALE_2020.pkl", "male")):
        with pytest.raises(InputError, match=f"the {gender} model"):
            read_body_model(link(name))
    np.savez(tmp_path / "flame2020.npz", **synthetic.flame_data(2020), gender=np.array("female"))
    with pytest.raises(InputError, match="the female model"):
        read_body_model(tmp_path / "flame2020.npz")


def test_registry(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AP3D_RIGS", raising=False)
    with pytest.raises(InputError, match="AP3D_RIGS"):
        locate_rig("smplx2020")
    monkeypatch.setenv("AP3D_RIGS", f"{tmp_path}:{model_folder}")
    assert locate_rig("smplx2020") == (model_folder / "SMPLX_NEUTRAL_2020.npz", "smplx2020")
    assert load_rig("flame2023") is load_rig("flame2023")
    assert locate_rig("builtin") is None
    for spec, text in (("smplz", "unknown rig"), ("none.npz", "does not exist"), ("flame2020:x.pkl", "does not exist")):
        with pytest.raises(InputError, match=text):
            locate_rig(spec)


def test_damaged_companions_are_named(model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "flame2023.pkl"
    path.symlink_to(model_folder / "flame2023.pkl")
    model = read_body_model(path)
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps({"lips": np.array([9999])}, protocol=2))
    with pytest.raises(DataFileError, match="does not hold FLAME vertex ids|FLAME_masks"):
        Companions.beside(path, model)


def test_mutated_pickles_end_in_data_or_in_one_error(tmp_path: Path) -> None:
    small = {"v_template": synthetic.Ch(np.arange(6.0)), "J": synthetic.scipy.sparse.csc_matrix(np.eye(3)), "name": "x"}
    with (tmp_path / "x.pkl").open("wb") as file:
        synthetic.pickle_python2(small, file)
    original = (tmp_path / "x.pkl").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(400):
        data = bytearray(original)
        for place in generator.integers(0, len(data), 3):
            data[place] = generator.integers(0, 256)
        with contextlib.suppress(DataFileError):
            read_array_pickle(bytes(data), "mutated.pkl")


def test_an_unreadable_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "flame2023.pkl").mkdir()
    with pytest.raises(DataFileError, match="cannot read .*flame2023.pkl"):
        read_body_model(tmp_path / "flame2023.pkl")
