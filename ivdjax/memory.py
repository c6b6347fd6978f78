"""How the C library deals with freed memory, which on a CPU is a tenth of a training step's work."""

import ctypes

# Names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
    """Keep freed memory in the process, to be used again; call it before jax starts its threads.

    A compiled step takes its large buffers anew each time, and so does the making of a batch. By default glibc hands
    such buffers back to the system, which then has to clear every page again at the next step. The process stays as
    large as it ever was. With another C library nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)  # other arenas are too small for such buffers, which are then mapped after all
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
