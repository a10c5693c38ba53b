"""The rasteriser against OpenGL (moderngl, without a display): an independent renderer decides what is seen."""

import pytest
import torch
from torch import Tensor

from ap3d.cameras import look_at
from ap3d.raster.mesh import rasterize_mesh
from tests.raster.mesh_reference import clip_positions, sphere

moderngl = pytest.importorskip("moderngl")

VERTEX = """#version 330
in vec4 position; in vec2 barycentric; in float face;
out vec2 b; flat out float id;
void main() { gl_Position = position; b = barycentric; id = face; }"""
FRAGMENT = """#version 330
in vec2 b; flat in float id; out vec4 color;
void main() { color = vec4(b, gl_FragCoord.z * 2 - 1, id); }"""


@pytest.fixture(scope="module")
def context():  # type: ignore[no-untyped-def]
    """A context without a window."""
    try:
        made = moderngl.create_standalone_context(backend="egl")
    except Exception as error:
        pytest.skip(f"no OpenGL here: {error}")
    yield made
    made.release()


def draw(context, clip: Tensor, faces: Tensor, height: int, width: int) -> Tensor:  # type: ignore[no-untyped-def]
    """The same raster by OpenGL, whose first row is clip y = -1 as well."""
    program = context.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT)
    corner = torch.tensor([[1.0, 0], [0, 1], [0, 0]]).expand(len(faces), 3, 2)
    identity = (torch.arange(len(faces)) + 1.0)[:, None, None].expand(-1, 3, 1)
    data = torch.cat([clip[faces], corner, identity], 2).contiguous()
    buffer = context.buffer(data.numpy().tobytes())
    array = context.vertex_array(program, [(buffer, "4f 2f 1f", "position", "barycentric", "face")])
    target = context.framebuffer(
        [context.texture((width, height), 4, dtype="f4")], context.depth_renderbuffer((width, height))
    )
    target.use()
    context.enable_only(moderngl.DEPTH_TEST)
    context.clear(0, 0, 0, 0)
    array.render()
    return torch.frombuffer(bytearray(target.read(components=4, dtype="f4")), dtype=torch.float32).reshape(
        height, width, 4
    )


@pytest.mark.parametrize("case", ["sphere", "inside the sphere", "soup", "through the eye"])
def test_visible_triangles_and_barycentrics_equal_opengl(context, case: str) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(len(case))
    vertices, faces = sphere(24)
    position = torch.tensor([[0.4, 0.5, 1.5]]) if case != "inside the sphere" else torch.tensor([[0.1, 0.1, 0.2]])
    cameras = look_at(position, torch.zeros(3), 60.0, 160)
    if case == "soup":
        vertices, faces = torch.randn(90, 3, generator=generator), torch.arange(90).reshape(30, 3)
        cameras = look_at(torch.tensor([[0.0, 0.0, 6.0]]), torch.zeros(3), 40.0, 160)
    clip = clip_positions(vertices, cameras)
    if case == "through the eye":
        clip = torch.randn(1, 60, 4, generator=generator)
        faces = torch.arange(60).reshape(20, 3)
    ours = rasterize_mesh(clip, faces, (120, 160))[0]
    theirs = draw(context, clip[0], faces, 120, 160)
    same = ours[..., 3] == theirs[..., 3]
    assert (ours[..., 3] > 0).float().mean() > 0.2
    assert same.float().mean() > 0.995  # OpenGL rounds vertices more coarsely
    off = (ours - theirs)[same].abs()
    assert off[:, :2].max() < (2e-2 if case == "through the eye" else 5e-3) and off[:, 2].max() < 1e-4
