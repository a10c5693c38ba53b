"""What all commands of ``jobs`` share: one line for an error, and the exit status."""

import argparse
import io
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end with status 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def run_command(main: Callable[[], int]) -> NoReturn:
    """Call ``main`` and end the process with its status: 2 for bad input, 3 when the run could not go on."""
    from ap3d.errors import Ap3dError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log shows each line as it comes
    try:
        status = main()
    except Ap3dError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 3
    except Exception:
        traceback.print_exc()
        status = 3
    sys.exit(status)
