"""`redisq completion`: the script by which a shell completes commands and options."""

from __future__ import annotations

import argparse

from .command import Commands, describe
from .exit import Failure

_SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = describe(
        commands,
        "completion",
        run,
        summary="print the script that lets a shell complete commands and options",
        text="Print the script that lets a shell complete this program's commands and options. Needs shtab.",
        example="redisq completion bash > ~/.local/share/bash-completion/completions/redisq\n"
        'redisq completion zsh > "${fpath[1]}/_redisq"\n'
        "redisq completion tcsh | sudo tee /etc/profile.d/redisq.completion.csh",
    )
    parser.add_argument("shell", choices=_SHELLS, metavar="|".join(_SHELLS), help="the shell")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise Failure("completion needs shtab: pip install 'redisq-lua[cli]'") from error
    from . import make_parser

    print(shtab.complete(make_parser(), args.shell))
    return 0
