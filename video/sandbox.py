"""What a process that reads strangers' bytes gives up for good: privileges, files, other processes.

Linux's own means, none of which needs root; each call is documented in the man page of its name.
"""

import ctypes
import errno
import os
import struct

_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same on every architecture
_LANDLOCK_ABI_FLAG = 1
_FILE_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))
"""(from this ABI on, so many rights over files are known)."""
_NETWORK_ABI, _CONNECT_AND_BIND = 4, 0b11  # TCP
_SCOPE_ABI, _SOCKETS_AND_SIGNALS = 6, 0b11  # abstract sockets and signals to those outside

_libc = ctypes.CDLL(None, use_errno=True)


def give_up_privileges() -> None:
    """No capability, and no program that would give one back. The user stays: a container's root
    may lack what it takes to become another, or to kill a process of another. Raises OSError."""
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", header, bytes(24))  # effective, permitted, inheritable: twice 32 bits of each


def give_up_surroundings() -> bool:
    """From here on no file can be opened, no TCP connection made, and no process outside be looked
    into: /proc has the keys of the service in its other processes. False where the kernel (before
    5.13, or without Landlock) has no means for that. Needs `give_up_privileges`. Raises OSError."""
    try:
        abi = _call("syscall", _LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_ABI_FLAG)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise
    files = (1 << max(rights for since, rights in _FILE_RIGHTS if since <= abi)) - 1
    handled = [files]  # all of these are denied, as no rule allows any
    if abi >= _NETWORK_ABI:
        handled.append(_CONNECT_AND_BIND)
    if abi >= _SCOPE_ABI:
        handled.append(_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"{len(handled)}Q", *handled)
    ruleset = _call("syscall", _LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _call("syscall", _LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def _call(name: str, *args: int | bytes | None) -> int:
    words = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = getattr(_libc, name)(*words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result
