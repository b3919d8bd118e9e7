"""Packs of features: few files, bounded, shared by several processes, and only what was written is read."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from lmmcl.weights.image_features import feature_packs, feature_store
from lmmcl.weights.image_features.feature_packs import FeaturePacks
from lmmcl.weights.image_features.feature_store import FeatureStore


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def filled(folder: Path, count: int, gigabytes: float = 1.0, writers: int = 1, first: int = 0) -> FeaturePacks:
    packs = FeaturePacks(folder, gigabytes, writers)
    for number in range(first, first + count):
        packs.keep(f"key{number}", torch.full((10, 8), float(number), dtype=torch.bfloat16))
    return packs


def test_many_small_tensors_are_few_files_that_another_process_reads(tmp_path: Path) -> None:
    packs = filled(tmp_path, 1500)
    packs.write()
    assert len(files(tmp_path)) == 6
    other = FeaturePacks(tmp_path, 1.0, 1)
    for number in (0, 255, 256, 1499):
        value = other.read(f"key{number}")
        assert value is not None and value.dtype == torch.bfloat16 and bool((value == number).all())
    assert other.read("key1500") is None


def test_what_is_new_is_read_before_it_is_written_and_written_when_it_is_large_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = filled(tmp_path, 3)
    assert packs.read("key2") is not None and not files(tmp_path)
    monkeypatch.setattr(feature_packs, "PACK_SECONDS", 0.0)
    packs.keep("old", torch.zeros(1))
    assert len(files(tmp_path)) == 1
    monkeypatch.setattr(feature_packs, "PACK_SECONDS", 100.0)
    monkeypatch.setattr(feature_packs, "PACK_BYTES", 1000)
    packs.keep("large", torch.zeros(250))
    assert len(files(tmp_path)) == 2 and packs.read("large") is not None


def test_packs_that_others_write_later_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_packs, "LIST_SECONDS", 0.0)
    reader = FeaturePacks(tmp_path, 1.0, 2)
    assert reader.read("key1") is None
    filled(tmp_path, 2).write()
    assert reader.read("key1") is not None


def test_a_folder_is_never_larger_than_its_limit_whoever_writes(tmp_path: Path) -> None:
    limit = 20_000
    packs = [filled(tmp_path, 30, limit / 1e9, writers=2, first=100 * number) for number in range(8)]
    for one in packs:
        one.write()
    sizes = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 0 < sizes <= limit and packs[-1].is_full and not packs[0].is_full
    assert packs[-1].read("key700") is None, "what is not kept is worked out again"


def test_a_cut_a_flipped_and_a_missing_pack_are_not_read(tmp_path: Path) -> None:
    filled(tmp_path, 2).write()
    (path,) = files(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    reader = FeaturePacks(tmp_path, 1.0, 1)
    values = [reader.read("key0"), reader.read("key1")]
    assert [value is None for value in values].count(True) == 1, "the other is whole"
    path.write_bytes(content[:20])
    assert reader.read("key0") is None and FeaturePacks(tmp_path, 1.0, 1).read("key0") is None
    path.unlink()
    assert reader.read("key0") is None


def test_what_a_killed_process_left_half_written_is_removed_after_an_hour(tmp_path: Path) -> None:
    for name, age in (("young", 60), ("old", 7200)):
        (tmp_path / f"{name}.part").write_bytes(b"half")
        os.utime(tmp_path / f"{name}.part", (time.time() - age,) * 2)
    FeaturePacks(tmp_path, 1.0, 1).read("any")
    assert [path.name for path in tmp_path.iterdir()] == ["young.part"]


def test_a_disk_that_is_full_ends_keeping_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    filled(tmp_path, 2).write()
    assert "features of images are no longer kept" in caplog.text and "No space left" in caplog.text
    assert not list(tmp_path.iterdir())


def _write(folder: Path, own: int) -> None:
    store = FeatureStore(folder, 1.0, 2)
    for number in range(40):
        kept = store.read(f"key{number}")
        assert kept is None or bool((kept == number).all())
        store.keep(f"key{number}", torch.full((1000,), float(number)))
        if number % 7 == own:
            store.write()
    store.write()


def test_several_processes_write_at_the_same_time(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_write, args=(tmp_path, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    store = FeatureStore(tmp_path, 1.0)
    values = [store.read(f"key{number}") for number in range(40)]
    assert all(value is not None and bool((value == number).all()) for number, value in enumerate(values))
    assert not list(tmp_path.glob("*.part"))


def test_what_is_new_is_written_when_a_stage_or_evaluation_ends_also_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ended"), feature_store.features_written():
        feature_store.feature_store(str(tmp_path), 1.0).keep("key", torch.zeros(3))
        raise ValueError("ended")
    assert FeatureStore(tmp_path, 1.0).read("key") is not None


def test_what_was_needed_last_stays_in_memory_within_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "MEMORY_BYTES", 1000)
    store = FeatureStore(tmp_path, 1e-9)
    for number in range(3):
        store.keep(str(number), torch.zeros(100))  # 400 bytes
        store.read("0")
    assert list(store._recent) == ["2", "0"]
    store.keep("large", torch.zeros(1000))
    assert "large" not in store._recent
