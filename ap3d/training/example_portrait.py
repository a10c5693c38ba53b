"""The person behind the example tri-grid in ``ap3d/builtin/portrait3d``, and the prompts of the benchmark's people.

Mesh, labels and rig parameters of each are known: see :class:`~ap3d.training.portraits.truth.TruthPortrait`.
"""

from ap3d.rig.builtin import BuiltinRig
from ap3d.training.portraits.truth import BENCHMARK_PEOPLE, TruthPortrait, benchmark_portrait

EXAMPLE, EXAMPLE_ID = "long", "000"
_AGES = {"child": "", "young": "young ", "middle-aged": "middle-aged ", "old": "old "}
_HAIR = {
    "long": "long {} hair", "curly": "curly {} hair", "bun": "{} hair in a bun", "short": "short {} hair",
    "fringe": "{} hair with a fringe", "bald": "a bald head",
}  # fmt: skip


def example_truth(rig: BuiltinRig) -> TruthPortrait:
    """The person of the shipped example."""
    return benchmark_portrait(EXAMPLE, rig)


def prompt_of(name: str) -> str:
    """The prompt of one of ``BENCHMARK_PEOPLE``, worded as Portrait3D's are."""
    a, _ = BENCHMARK_PEOPLE[name]
    noun = {"man": "boy", "woman": "girl"}[a.gender] if a.age == "child" else f"{_AGES[a.age]}{a.gender}"
    article = "an" if noun[0] in "aeiou" else "a"
    beard = " and a beard" if a.beard else ""
    hair = _HAIR[a.hair_style].format(a.hair_colour)
    return f"upper body photo, {article} {noun} with {hair}{beard}, wearing a {a.shirt} shirt"
