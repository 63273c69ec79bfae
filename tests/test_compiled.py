"""Compiled loops where no folder can be written."""

from numba.core import caching

from sdsnn_lightning.data.event_frames import _kernel, _voxel_kernel
from sdsnn_lightning.simulate import cochlea, event_camera


def test_loops_work_where_machine_code_cannot_be_kept(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])  # as on a read-only disk, without a home
    for kernel in (_kernel, _voxel_kernel, cochlea._kernel, event_camera._kernel):
        assert kernel.__wrapped__().stats.cache_path is None
