"""Run a command that ends when its parent does: `python -I -S guard.py PARENT_PID COMMAND [ARGUMENT …]`.

A supervisor that is killed cannot stop its children, so the kernel does it (PR_SET_PDEATHSIG). The setting
survives execve, so this file becomes the command, under the same process id. Rejected: doing it between the
supervisor's own fork and exec (`preexec_fn`), where Python code may deadlock if threads run; and a pipe that
the child watches, which needs a child that does so. Outside Linux the command is run without it.
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
    # A shell that runs its parent in the background lets it ignore Ctrl-C, which is inherited; only somebody
    # who means this child sends it one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
