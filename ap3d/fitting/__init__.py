"""Fits a rig to a static portrait: landmarks of many views, then its surface."""
