"""Keeping memory that was freed, where the C library would hand it back to the system after every part."""

from __future__ import annotations

import functools

from vantage6_largefile.transfer.control import MIB

#: Larger than a segment and than a part of the default size; at most twice as much is kept per thread.
_LARGEST = 16 * MIB


@functools.cache
def keep_freed_memory() -> None:
    """Have pieces of up to 16 MiB reused when they are freed; once per process, at no cost.

    A transfer makes and frees pieces of 1 MiB (segments) and 8 MiB (parts) all the time. glibc gives such pieces back
    to the system when they are freed, and the kernel then makes every page anew: that took four times as long as
    encrypting them. glibc learns from the largest piece that was freed so far (mallopt(3), M_MMAP_THRESHOLD), so one
    is made and freed here; its pages are never touched. Other C libraries are not impressed.
    """
    bytearray(_LARGEST)
