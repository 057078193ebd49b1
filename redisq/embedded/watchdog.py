"""Run a server that ends when its parent does, however the parent ends: SIGKILL included.

Started by path with nothing but the standard library: `python watchdog.py PARENT DIRECTORY COMMAND...`. The parent
holds the other end of standard input; its end is seen there at once. A process that the parent forked may hold that end
open too, so the parent's id is looked at as well, twice a second. The directory is removed with the server.
"""

import os
import select
import shutil
import subprocess
import sys


def main() -> None:
    """Start the server, wait for its end or the parent's, and leave nothing behind."""
    parent, directory, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.exit(str(error))  # the parent quotes it, and removes the directory
    try:
        while server.poll() is None and os.getppid() == parent:
            if select.select([sys.stdin], [], [], 0.5)[0]:
                break
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if directory:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
