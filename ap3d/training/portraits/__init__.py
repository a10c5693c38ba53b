"""Procedural portraits: dressed, lit heads with known attributes, the built-in model's only training data."""

from ap3d.training.portraits.people import Person, sample_person
from ap3d.training.portraits.render import Portraitist, PortraitSample, render_portrait, render_samples, sample_views

__all__ = [
    "Person",
    "PortraitSample",
    "Portraitist",
    "render_portrait",
    "render_samples",
    "sample_person",
    "sample_views",
]
