"""Files below a folder of this machine, listed by several threads: a dataset may have a million folders."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

WALKERS = 8  # on a cold cache most of the time is waiting for the disk


def files_below(folder: str, wanted: Callable[[str], bool]) -> list[str]:
    """Paths of the files below a folder, at any depth and in no order; what goes meanwhile is passed over.

    Args:
        folder: its absolute path.
        wanted: tells by its name whether a file counts.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    level = [folder]
    while 0 < len(level) < WALKERS:
        level = [below for at in level for below in _scan(at, wanted, found)]
    if level:
        with ThreadPoolExecutor(WALKERS) as pool:
            shares = [level[first::WALKERS] for first in range(WALKERS)]
            found += [path for paths in pool.map(lambda share: _walk(share, wanted), shares) for path in paths]
    return found


def _walk(folders: list[str], wanted: Callable[[str], bool]) -> list[str]:
    found: list[str] = []
    while folders:
        folders += _scan(folders.pop(), wanted, found)
    return found


def _scan(folder: str, wanted: Callable[[str], bool], found: list[str]) -> list[str]:
    """Add the files of one folder to those found; returns the folders in it."""
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(f"{folder}/{entry.name}")
                elif wanted(entry.name):
                    found.append(f"{folder}/{entry.name}")
    except (FileNotFoundError, NotADirectoryError):
        pass
    return folders
