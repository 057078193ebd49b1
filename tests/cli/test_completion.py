"""Shell completion, and help without optional libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import COMMAND, Run


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("redisq qu", "queues"),
        ("redisq dro", "drop-group"),
        ("redisq groups --st", "--state"),
        ("redisq groups --state b", "busy"),
        ("redisq dead red", "redrive"),
        ("redisq completion z", "zsh"),
    ],
)
def test_bash_completes_commands_and_options(run: Run, words: str, completed: str) -> None:
    code, script, _ = run("completion", "bash")
    assert code == 0
    ask = f"\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_redisq; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == ([completed], "")


@pytest.mark.parametrize(("shell", "sign"), [("zsh", "#compdef redisq"), ("tcsh", "complete redisq")])
def test_other_shells(run: Run, shell: str, sign: str) -> None:
    code, out, _ = run("completion", shell)
    assert (code, sign in out) == (0, True)


def test_an_unknown_shell(run: Run) -> None:
    code, out, err = run("completion", "ksh")
    assert (code, out) == (2, "")
    assert "ksh" in err


def without(*modules: str) -> list[str]:
    """Return the beginning of a command line with these modules missing."""
    hidden = "".join(f"sys.modules[{module!r}] = None; " for module in modules)
    return [sys.executable, "-c", f"import sys; {hidden}from redisq.cli import main; sys.exit(main(sys.argv[1:]))"]


def test_completion_without_shtab() -> None:
    done = subprocess.run([*without("shtab"), "completion", "bash"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "redisq: completion needs shtab: pip install 'redisq-lua[cli]'\n"


@pytest.mark.parametrize("modules", [["rich"], ["rich_argparse"]])
@pytest.mark.parametrize("command", [["--help"], ["pause", "--help"], ["dead", "--help"]])
def test_help_is_the_same_without_rich(modules: list[str], command: list[str]) -> None:
    plain = subprocess.run([*without(*modules), *command], capture_output=True, text=True, timeout=60)
    rich = subprocess.run([*COMMAND, *command], capture_output=True, text=True, timeout=60)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout == rich.stdout


def test_the_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert (code, out.split()[0]) == (0, "redisq")
