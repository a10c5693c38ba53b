"""Sections of the configuration beside guidance: models, the starting portrait, its fit, the pictures in the end."""

from dataclasses import dataclass

from ap3d.guidance_config import OptimizerConfig, RestraintConfig


@dataclass(frozen=True)
class ModelsConfig:
    """Which models a preset uses: ``builtin``, a local folder, an fsspec URI or a hub id.

    The rig is ``builtin``, the path of an SMPL-X or FLAME file, or one of the names in ``ap3d.rig``.
    """

    diffusion: str = "builtin"
    controlnet: str | None = None  # several with commas between; None: the ControlNet inside the diffusion folder
    tile_controlnet: str | None = None  # of a kind that takes a picture, for portrait3d.sharpen
    vae: str | None = None  # another autoencoder; None: the one inside the diffusion folder
    rig: str = "builtin"
    shape_prior: str | None = "builtin"  # None: the rig's mean shape; the built-in one is for the built-in rig alone
    dtype: str = "float32"
    channels_last: bool = False  # memory format of the networks
    attention: str = "auto"  # torch's choice, or one kernel: flash, efficient, math
    compile: str = "none"  # torch.compile: "default", or "cuda-graphs" (mode reduce-overhead)
    embed_once: bool = True  # the ControlNets' condition embedding once a crop, not once an evaluation
    ahead: int = 2  # samples whose faces, cameras and conditions a thread makes ahead; 0: none
    branches_together: bool = True  # both branches of classifier-free guidance in one batch
    crops_at_once: int = 0  # crops that pass the networks together; 0: all of a step of ISM, eight of SDEdit

    @property
    def controlnet_list(self) -> list[str] | None:
        """The ControlNets by name, None for the one inside the diffusion folder."""
        return None if self.controlnet is None else [name.strip() for name in self.controlnet.split(",")]


@dataclass(frozen=True)
class PerceptionConfig:
    """Models that read a portrait's pictures: ``NAME``, or ``NAME:PATH`` with the path of the weights.

    The names are the tables of ``ap3d.perception``; ``field`` is what the portrait itself knows.
    """

    segmenter: str = "builtin"  # sapiens:FILE, segformer:FOLDER
    hair: str = "segmenter"  # what the segmenter says; pspnet:FILE
    matting: str = "field"  # modnet:FILE, birefnet:FILE
    normals: str = "field"  # marigold:FOLDER
    landmarks: str = "builtin"  # face-alignment:FILE


@dataclass(frozen=True)
class CameraConfig:
    """The training cameras: full frames round the head (``ap3d.framing``) at these elevations, degrees."""

    elevation_range: tuple[float, float] = (-10.0, 18.0)


@dataclass(frozen=True)
class PortraitConfig:
    """The `text` start: views sampled by the text-to-image model, mattes, and the hull they carve."""

    full_azimuths: tuple[float, ...] = (0, 22, -22, 48, -48, 80, -80, 115, -115, 150, -150, 180)
    face_azimuths: tuple[float, ...] = (0, 20, -20, 45, -45)
    elevation: float = 4.0
    steps: int = 16
    guidance_scale: float = 2.0
    hull_resolution: int = 96
    hull_agreement: float = 0.88  # share of the views that see a voxel and must count it as foreground


@dataclass(frozen=True)
class Portrait3DConfig:
    """The `portrait3d` start: pictures of a tri-grid, and the static fit to them."""

    decoder: str | None = None  # converted networks; None: decoder.safetensors beside the tri-grid
    resolution: int = 256  # nodes a side of the grid that views are marched through
    view_size: int = 256  # pixels
    sharpen: float = 0.0  # SDEdit strength (0.4 in AnimPortrait3D) of the pictures that mattes and normals come from
    more_views: int = 0  # 120: also AnimPortrait3D's 120 views for the static fit
    mesh_faces: int = 60000  # triangles of the fitted mesh
    mesh_steps: int = 60  # of its last pass; the first, coarse one takes two thirds as many
    fit_iterations: int = 480
    densify_at: tuple[int, ...] = (150, 280)


@dataclass(frozen=True)
class GaussiansConfig:
    """How many Gaussians there are and what they are made of."""

    skin_count: int = 15000
    hair_count: int = 9000
    clothes_count: int = 2500
    maximum_count: int = 30000
    sh_degree: int = 0
    triangles: int = 4  # that carry a Gaussian of hair or clothes; 1: one alone, as in AnimPortrait3D


@dataclass(frozen=True)
class FitConfig:
    """The static fit of stage `initialise`."""

    iterations: int = 320
    views_per_step: int = 2
    ssim_weight: float = 0.2
    alpha_weight: float = 0.3
    optimizer: OptimizerConfig = OptimizerConfig()
    restraint: RestraintConfig = RestraintConfig()


@dataclass(frozen=True)
class PublishConfig:
    """Pictures and videos of a finished avatar."""

    size: int = 320
    fps: int = 25
    turntable_frames: int = 48
    talking_seconds: float = 4.0


@dataclass(frozen=True)
class SmallerConfig:
    """The form in which a stage is run again that ran out of memory."""

    views_per_step: int = 1  # of every stage that has such a field, at most
