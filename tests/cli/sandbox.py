"""Executes a program in the sandbox of a unit, as far as one process can make it without systemd.

    sandbox.py UNIT PROGRAM [ARGUMENT...]

As the user nobody, without a capability and new privileges, with the system calls and the kinds of
addresses that the unit allows, and without memory that is writable and executable.
"""

import ctypes
import os
import subprocess
import sys

ALLOW = 0x7FFF0000
KILL = 0x80000000
NO_SUCH_FAMILY = 0x00050000 | 97
NOT_EQUAL = 1
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_MDWE = 65
AF_UNIX = 1


class Compare(ctypes.Structure):
    """What libseccomp compares an argument of a call with."""

    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


def calls(name):
    """The system calls of a set of systemd, and of the sets in it."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    lines = [line.strip() for line in listed.stdout.splitlines()[1:]]
    parts = [line for line in lines if line and not line.startswith("#")]
    return set().union(*map(calls, parts))


def allowed(unit):
    """The system calls that a unit allows."""
    names = calls("@default")
    for line in unit:
        if line.startswith("SystemCallFilter="):
            value = line.removeprefix("SystemCallFilter=")
            found = set().union(*map(calls, value.lstrip("~").split()))
            names = names - found if value.startswith("~") else names | found
    return names


def main(path, program, *arguments):
    with open(path, encoding="utf-8") as file:
        unit = file.read().splitlines()
    assert {"RestrictAddressFamilies=AF_UNIX", "MemoryDenyWriteExecute=yes"} <= set(unit)
    seccomp, libc = ctypes.CDLL("libseccomp.so.2"), ctypes.CDLL(None, use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    filters = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(KILL)))
    for name in allowed(unit):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        # A call that the machine does not have has a negative number.
        if number >= 0 and name != "socket":
            assert seccomp.seccomp_rule_add(filters, ctypes.c_uint32(ALLOW), number, 0) == 0
    number = seccomp.seccomp_syscall_resolve_name(b"socket")
    for action, operation in [(ALLOW, 4), (NO_SUCH_FAMILY, NOT_EQUAL)]:
        family = Compare(0, operation, AF_UNIX, 0)
        action = ctypes.c_uint32(action)
        added = seccomp.seccomp_rule_add_array(filters, action, number, 1, ctypes.byref(family))
        assert added == 0
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.umask(0o077)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    # An older kernel does not have it.
    libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)
    assert seccomp.seccomp_load(filters) == 0
    os.execv(program, [program, *arguments])


main(*sys.argv[1:])
