"""Models that read pictures, as plug-ins: a protocol, a file a model, a table of names a kind.

A model is chosen by ``NAME`` or ``NAME:PATH``, the path of weights that the package does not ship. Each entry of a
table names the class; every class has ``load(path, device)``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ap3d.errors import InputError

if TYPE_CHECKING:
    from ap3d.config import PerceptionConfig
    from ap3d.perception.protocol import HairMasker, LandmarkDetector, Matting, NormalEstimator, Segmenter

SEGMENTERS = {
    "builtin": "ap3d.perception.parsing:BuiltinSegmenter",
    "sapiens": "ap3d.perception.sapiens:SapiensSegmenter",
    "segformer": "ap3d.perception.segformer:SegformerSegmenter",
}
HAIR = {"pspnet": "ap3d.perception.hair:PspnetHair"}
MATTINGS = {
    "field": "ap3d.perception.matte:FieldMatting",
    "modnet": "ap3d.perception.matte_modnet:ModnetMatting",
    "birefnet": "ap3d.perception.matte_birefnet:BirefnetMatting",
}
NORMALS = {
    "field": "ap3d.perception.normals_field:FieldNormals",
    "marigold": "ap3d.perception.normals_marigold:MarigoldNormals",
}
LANDMARK_DETECTORS = {
    "builtin": "ap3d.perception.landmarks_mesh:FaceMeshDetector",
    "face-alignment": "ap3d.perception.landmarks_fan:FanDetector",
}

FIELDS = {  # of the configuration's section `perception`, and the names that each takes
    "segmenter": tuple(SEGMENTERS), "hair": ("segmenter", *HAIR), "matting": tuple(MATTINGS),
    "normals": tuple(NORMALS), "landmarks": tuple(LANDMARK_DETECTORS),
}  # fmt: skip


def load_segmenter(name: str = "builtin", device: str = "cpu") -> "Segmenter":
    """A segmenter by ``NAME`` or ``NAME:PATH``.

    Raises:
        InputError: the name is unknown, or its files are missing.
        MissingDependencyError: it needs a package that is absent.
    """
    return _load("segmenter", SEGMENTERS, name, device)


def load_parser(config: "PerceptionConfig", device: str = "cpu") -> "Segmenter":
    """The configured segmenter, with the configured masker's hair; raises as :func:`load_segmenter`."""
    segmenter = load_segmenter(config.segmenter, device)
    if config.hair == "segmenter":
        return segmenter
    from ap3d.perception.hair import SegmenterWithHair

    return SegmenterWithHair(segmenter, load_hair_masker(config.hair, segmenter, device))


def load_hair_masker(name: str, segmenter: "Segmenter", device: str = "cpu") -> "HairMasker":
    """What finds hair, by ``NAME:PATH``, or ``segmenter``: what the given one says.

    Raises as :func:`load_segmenter`.
    """
    if name == "segmenter":
        from ap3d.perception.hair import SegmenterHair

        return SegmenterHair(segmenter)
    return _load("hair masker", HAIR, name, device)


def load_matting(name: str = "field", device: str = "cpu") -> "Matting":
    """A matting model by ``NAME`` or ``NAME:PATH``; raises as :func:`load_segmenter`."""
    return _load("matting model", MATTINGS, name, device)


def load_normals(name: str = "field", device: str = "cpu") -> "NormalEstimator":
    """A normal estimator by ``NAME`` or ``NAME:PATH``; raises as :func:`load_segmenter`."""
    return _load("normal estimator", NORMALS, name, device)


def load_landmark_detector(name: str = "builtin", device: str = "cpu") -> "LandmarkDetector":
    """A face-landmark detector by ``NAME`` or ``NAME:PATH``; raises as :func:`load_segmenter`."""
    return _load("landmark detector", LANDMARK_DETECTORS, name, device)


def _load(kind: str, table: dict[str, str], name: str, device: str) -> Any:
    short, _, path = name.partition(":")
    if short not in table:
        raise InputError(f"unknown {kind} {short!r}; there are: {', '.join(table)}")
    module, _, attribute = table[short].partition(":")
    return getattr(import_module(module), attribute).load(path or None, device)
