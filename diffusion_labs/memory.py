"""Memory for large tensors on a CPU."""

import ctypes
import os
import sys

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # PyTorch reads it once: "1" is pages of 2 MB
OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST, MOST_FREE = 2**30, 2**31 - 1  # bytes


def keep_memory() -> None:
    """Have the process keep the memory of tensors that are gone for those that come, in large pages.

    By itself the C library gives that of large tensors back, and gets new memory for each, page by page, which the
    system clears: with many images that takes as long as a third of a network. To be called before ``import torch``,
    which reads the size of the pages. For Linux with glibc; elsewhere it does nothing, nor to what the environment
    says of ``malloc``. The process then keeps as much memory as it needed at the most.
    """
    os.environ.setdefault(LARGE_PAGES, "1")
    if not sys.platform.startswith("linux") or any(name in os.environ for name in OWN_SETTINGS):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # which other C libraries do not have
    if set_option is not None:
        set_option(MMAP_THRESHOLD, LARGEST)
        set_option(TRIM_THRESHOLD, MOST_FREE)
