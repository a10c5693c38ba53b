"""The drawn head, made once."""

from dataclasses import replace

import pytest

from ap3d.metrics.subject import Subject
from ap3d.rig.protocol import Rig
from ap3d.splats.bundle import Bundle
from tests.metrics.drawn_head import ASKED, drawn_avatar
from tests.tiny_avatar import tiny_bundle


@pytest.fixture(scope="session")
def drawn(rig: Rig) -> Bundle:
    return replace(tiny_bundle(rig, 100, "drawn"), avatar=drawn_avatar(rig))


@pytest.fixture(scope="session")
def subject(drawn: Bundle) -> Subject:
    return Subject(drawn, ASKED)
