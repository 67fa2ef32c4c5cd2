"""How the commands of the model read their arguments: numbers, and files that are written once the work is done."""

import argparse
import os
from pathlib import Path

from inlay_model.errors import BadRequest


def at_least_one(text: str) -> int:
    """A whole number above zero, of up to nine digits; argparse prints what is wrong with another one."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0, of up to nine digits")
    return int(text)


def none_or_more(text: str) -> int:
    """A whole number from zero on; argparse prints what is wrong with another one."""
    return 0 if text == "0" else at_least_one(text)


def file_to_write(text: str) -> Path:
    """A file that can be written; raises `BadRequest` before the work whose result would have no place after it."""
    file = Path(text)
    folder = file.parent
    if file.is_dir():
        raise BadRequest(f"{file} is a folder. Name a file in it.")
    if not folder.is_dir():
        raise BadRequest(f"{file} cannot be written: there is no folder {folder}. Make it, or name another file.")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise BadRequest(f"{file} cannot be written: it may not be changed by this user. Name another file.")
    return file


def file_in_a_new_folder(text: str) -> Path:
    """As `file_to_write`, where the folder need not be there yet."""
    folder = folder_to_write(str(Path(text).parent))
    return file_to_write(text) if folder.is_dir() else Path(text)


def folder_to_write(text: str) -> Path:
    """A folder that can be written into, made later if it is not there; raises `BadRequest` before the work."""
    folder = Path(text)
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise BadRequest(f"The folder {folder} cannot be made: {there} is a file. Name another.")
    if not os.access(there, os.W_OK):
        raise BadRequest(f"Into {there} nothing may be written by this user. Name another folder.")
    return folder
