"""Run a command that ends when its parent does: `python -I -S guard.py PARENT_PID COMMAND [ARGUMENT …]`.

A supervisor that is killed cannot stop its children, so the kernel does it (PR_SET_PDEATHSIG). The setting
survives execve, so this file becomes the command, under the same process id. Between fork and exec of the
supervisor itself (`preexec_fn`) Python code may deadlock where threads run; a pipe that the child watches would
need the child's help, which livekit-server does not give. Outside Linux the command is run without it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # SIGKILL, since a child that hangs must not survive either.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            sys.exit(1)  # The parent died before the kernel knew.
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
