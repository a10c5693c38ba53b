"""The person behind the example tri-grid in ``ap3d/builtin/portrait3d``, and tri-grids of other synthetic people.

Mesh, labels and rig parameters of each are known: see :class:`~ap3d.training.portraits.truth.TruthPortrait`.
"""

from pathlib import Path

from ap3d.pictures import png_bytes
from ap3d.portrait.trigrid.portrait import TriGridPortrait
from ap3d.portrait.trigrid.writing import write_portrait
from ap3d.portrait.view_sets import KEY_VIEWS, mesh_views
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.attributes import PortraitAttributes
from ap3d.training.field_targets import person_targets
from ap3d.training.portraits.truth import TruthPortrait, benchmark_portrait
from ap3d.training.trigrid_fit import FitConfig, Report, fit_field

EXAMPLE_ID, EXAMPLE_SEED = "000", 1
EXAMPLE = PortraitAttributes("woman", "young", "average", "pale", "curly", "brown", "blue", "red", False)
MANTISSA_BITS = 9  # of the stored numbers: half the size, errors of a thousandth
_AGES = {"child": "", "young": "young ", "middle-aged": "middle-aged ", "old": "old "}
_HAIR = {
    "long": "long {} hair", "curly": "curly {} hair", "bun": "{} hair in a bun", "short": "short {} hair",
    "fringe": "{} hair with a fringe", "bald": "a bald head",
}  # fmt: skip


def example_truth(rig: BuiltinRig) -> TruthPortrait:
    """The person of the shipped example, with a neutral face."""
    return TruthPortrait.of(EXAMPLE, rig, EXAMPLE_SEED)


def prompt_of(a: PortraitAttributes) -> str:
    """A person's prompt, worded as Portrait3D's are, and with the skin, which guidance would else choose itself."""
    noun = {"man": "boy", "woman": "girl"}[a.gender] if a.age == "child" else f"{_AGES[a.age]}{a.gender}"
    article = "an" if noun[0] in "aeiou" else "a"
    beard = " and a beard" if a.beard else ""
    hair = _HAIR[a.hair_style].format(a.hair_colour)
    return f"upper body photo, {article} {noun} with {hair}{beard}, {a.skin} skin, wearing a {a.shirt} shirt"


def export_portrait(
    out: Path, person: str | None = None, name: str = EXAMPLE_ID, config: FitConfig | None = None,
    report: Report | None = None, view_size: int = 320,
) -> list[Path]:  # fmt: skip
    """Fit a tri-grid to a synthetic person and write it as Portrait3D does, its decoder beside it.

    Args:
        out: folder of ``{name}.pth``, ``.txt``, ``.png`` and ``decoder.safetensors``.
        person: one of ``BENCHMARK_PEOPLE``; None is the shipped example.
        name: portrait id.
        config: of the fit.
        report: called with the losses.
        view_size: pixels of the pictures that colours come from.
    """
    rig = BuiltinRig.load()
    truth = example_truth(rig) if person is None else benchmark_portrait(person, rig)
    field = fit_field(person_targets(truth, view_size), config or FitConfig(), report)
    grid, networks = field.export(prompt_of(truth.portraitist.person.attributes), name)
    front = mesh_views(256).cameras[KEY_VIEWS[0]]
    preview = TriGridPortrait(grid, networks).render(front).opaque()[0]
    return write_portrait(out, grid, networks, png_bytes(preview), MANTISSA_BITS)
