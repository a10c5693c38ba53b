import numpy as np
import pytest

from ap3d.errors import DataFileError
from ap3d.training.portrait_pool import CHUNK, PortraitPool, Scene
from tests.training.conftest import render


class Killed(Exception):
    pass


def test_a_killed_producer_goes_on_and_the_pool_comes_out_the_same(tmp_path, pool):
    again = PortraitPool(tmp_path, 192)

    def dies_in_the_second_chunk(rng, count):
        if len(again) == CHUNK:
            raise Killed
        return render(rng, count)

    with pytest.raises(Killed):
        again.fill(dies_in_the_second_chunk)
    assert len(again) == CHUNK
    again = PortraitPool(tmp_path, 192)
    again.fill(render)
    assert len(again) == 192
    for name in ("images", "conditions", "codes"):
        assert np.array_equal(getattr(again, name), getattr(pool, name))


def test_scenes_survive_the_codes(pool):
    scene = pool.scene(5)
    assert Scene.from_codes(scene.codes()) == scene


def test_another_pool_in_the_folder_is_refused(tmp_path):
    PortraitPool(tmp_path, 64)
    with pytest.raises(DataFileError, match="another pool"):
        PortraitPool(tmp_path, 128)


def test_waiting_ends_when_the_producer_is_gone(tmp_path):
    with pytest.raises(DataFileError, match="no producer"):
        PortraitPool(tmp_path, 64).wait_for(64, lambda: False)
