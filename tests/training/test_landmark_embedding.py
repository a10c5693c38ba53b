"""Places of the detector's points on the rig are found from where they were seen."""

import torch

from ap3d.framing import full_cameras
from ap3d.motion.expressions import ExpressionSampler
from ap3d.perception.embedding import Embedding
from ap3d.training.landmark_embedding import Sightings, embed


def test_known_places_are_found_again(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    known, sampler = Embedding.load(), ExpressionSampler(rig)
    chosen = [0, 13, 14, 61, 33, 263, 152, 105]  # nose, both lips, corners of mouth and eyes, chin, brow
    points, vertices = [], []
    for azimuth in (-25.0, -10.0, 0.0, 10.0, 25.0) * 4:
        params = sampler.draw(neutral, generator)
        camera = full_cameras(rig, rig.template * 2.78, [azimuth], [azimuth / 2], 256)
        posed = rig.vertices(params)
        seen = camera.project(known.points(posed)[0, chosen])[0][0] / 50
        points.append(seen + 0.002 * torch.randn(seen.shape, generator=generator))
        vertices.append(camera.project(posed)[0][0] / 50)
    found = embed(rig, Sightings(torch.stack(points), torch.stack(vertices)))
    places = (
        rig.template[torch.from_numpy(found["vertices"]).long()] * torch.from_numpy(found["weights"])[..., None]
    ).sum(1)
    distance = (places - known.points(rig.template)[chosen]).norm(dim=1)
    assert float(distance.max()) < 0.003 and float(found["spread"].max()) < 0.01
