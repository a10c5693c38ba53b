"""Network files of 3DPortraitGAN, made up in their structure: read without running what they carry."""

import io
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ap3d.errors import DataFileError
from ap3d.portrait.trigrid.conversion import convert_networks
from ap3d.portrait.trigrid.reading import read_networks
from tests.portrait.trigrid.ellipsoid import linear_networks


class Persistent:
    """Pickles as a class of 3DPortraitGAN does: its source travels along, to be executed by the original reader."""

    def __init__(self, module: nn.Module, source: str) -> None:
        self.module, self.source = module, source

    def __reduce__(self) -> Any:
        state = {
            k: v for k, v in self.module.__dict__.items() if k in ("_parameters", "_buffers", "_modules", "training")
        }
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": "Net", "state": state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


class Plain:
    """An object of a class of the GAN's own code, pickled by reference."""

    __module__ = "training.volumetric_rendering.renderer"


@pytest.fixture
def gan_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that a pickle names exist while it is written, and are gone while it is read."""
    for name in ("torch_utils", "torch_utils.persistence", "training", "training.volumetric_rendering",
                 "training.volumetric_rendering.renderer", "dnnlib", "dnnlib.util"):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    def rebuild(meta: dict[str, Any]) -> Any:
        raise AssertionError("the original reader must not run")

    rebuild.__module__, rebuild.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"
    sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj = rebuild  # type: ignore[attr-defined]
    sys.modules["training.volumetric_rendering.renderer"].Plain = Plain  # type: ignore[attr-defined]


def _module(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Nested modules that hold tensors by their dotted names."""
    root = nn.Module()
    for name, value in tensors.items():
        here, *path = root, *name.split(".")
        for part in path[:-1]:
            if part not in here._modules:
                here.add_module(part, nn.Module())
            here = here._modules[part]  # type: ignore[assignment]
        here.register_parameter(path[-1], nn.Parameter(value))
    return root


def _generator_pickle(source: str) -> bytes:
    root = _module(dict(linear_networks(3.0).tensors))
    for name, child in list(root._modules.items()):
        root._modules[name] = Persistent(child, source)  # type: ignore[assignment,arg-type]
    root._modules["renderer"] = Plain()  # type: ignore[assignment]
    content = {"training_set_kwargs": None, "G": None, "D": None, "G_ema": Persistent(root, source)}
    return pickle.dumps(content)


@pytest.mark.usefixtures("gan_modules")
def test_pickle_is_converted_and_its_source_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    source = tmp_path / "model_512.pkl"
    source.write_bytes(_generator_pickle(f"open({str(mark)!r}, 'w')"))
    convert_networks(source, tmp_path / "out.safetensors")
    found = read_networks(str(tmp_path / "out.safetensors"))
    for name, value in linear_networks(3.0).tensors.items():
        assert torch.equal(found.tensors[name], value), name
    assert not mark.exists()


def test_checkpoint_is_converted(tmp_path: Path) -> None:
    state = OrderedDict(linear_networks(2.0).tensors) | {"pose_branch.weight": torch.zeros(3)}
    torch.save({"params": {"z_dim": 512}, "state_dict": state}, tmp_path / "decoder_512.ckpt")
    convert_networks(tmp_path / "decoder_512.ckpt", tmp_path / "out.safetensors")
    assert "pose_branch.weight" not in load_file(tmp_path / "out.safetensors")
    assert read_networks(str(tmp_path / "out.safetensors")).tensors["decoder.net.2.bias"][0] == 2.0


class _Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def _hostile(tmp_path: Path) -> dict[str, bytes]:
    mark = str(tmp_path / "ran")
    import os

    storage = torch.zeros(4).untyped_storage()
    rebuild = torch._utils._rebuild_tensor_v2
    good = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    inner = io.BytesIO()
    torch.save(_Runs(os.mkdir, mark), inner)
    return {
        "call": pickle.dumps({"G_ema": _Runs(os.mkdir, mark)}),
        "builtins": b"cbuiltins\nexec\n(S'import os'\ntR.",
        "getattr": pickle.dumps(_Runs(getattr, "", "format")),
        "dotted": b"\x80\x04\x8c\x05torch\x8c\x0bos.system_x\x93.",
        "inner code": pickle.dumps({"G_ema": _Runs(torch.storage._load_from_bytes, inner.getvalue())}),
        "beyond its storage": pickle.dumps({"G_ema": _Runs(rebuild, good, 0, (1 << 40,), (1,), False, OrderedDict())}),
        "expanded": pickle.dumps({"G_ema": _Runs(rebuild, good, 0, (1 << 20, 1 << 20), (0, 0), False, OrderedDict())}),
        "no generator": pickle.dumps({"G": None}),
        "truncated": pickle.dumps({"G_ema": list(range(1000))})[:-20],
        "text": b"not a pickle at all",
        "empty": b"",
    }


def test_hostile_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    for name, data in _hostile(tmp_path).items():
        source = tmp_path / "model.pkl"
        source.write_bytes(data)
        with pytest.raises(DataFileError) as caught:
            convert_networks(source, tmp_path / "out.safetensors")
        assert "\n" not in str(caught.value) and "model.pkl" in str(caught.value), name
        assert not (tmp_path / "ran").exists() and not (tmp_path / "out.safetensors").exists(), name


def test_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ap3d.cli import main

    state = dict(linear_networks(2.0).tensors) | {"bcg_synthesis.b4.const": torch.zeros(512, 4, 4)}
    torch.save({"state_dict": state}, tmp_path / "decoder_512.ckpt")
    assert main(["convert-weights", str(tmp_path / "decoder_512.ckpt"), str(tmp_path / "out.safetensors")]) == 0
    assert "with its background network (1 tensors)" in capsys.readouterr().out
    assert main(["convert-weights", str(tmp_path / "none.pkl"), str(tmp_path / "out.safetensors")]) == 2
    assert main(["convert-weights", str(tmp_path / "decoder_512.ckpt"), str(tmp_path / "out.pkl")]) == 2
