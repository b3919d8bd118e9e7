"""Packs: the small files of a checkpoint's finished steps in one file: a large sweep is thousands of files, not millions."""
