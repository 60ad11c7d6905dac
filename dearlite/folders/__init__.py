"""Files and folders of the user as passages, each with its place: the walk, a reader per kind of file, the split."""

from dearlite.folders.grouping import group_by_file
from dearlite.folders.passage import Passage
from dearlite.folders.reading import FolderDocuments, read_folder

__all__ = ["FolderDocuments", "Passage", "group_by_file", "read_folder"]
