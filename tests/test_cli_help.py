"""Every command explains itself, and every failure is one line with the right exit status."""

from __future__ import annotations

import importlib
import re

import click
import pytest
from click.testing import CliRunner

from mmdgen import __version__
from mmdgen.cli import main as cli_main
from mmdgen.errors import FormatError, MmdgenError


@pytest.mark.parametrize("name", list(cli_main.COMMANDS))
def test_help_has_examples_and_every_option_is_explained(name: str) -> None:
    result = CliRunner().invoke(cli_main.cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Examples:" in result.output
    assert re.search(rf"^\s+mmdgen {name}\b", result.output, re.MULTILINE), "no example of the command itself"
    command = importlib.import_module(cli_main.COMMANDS[name][0]).command
    silent = [param.name for param in command.params if isinstance(param, click.Option) and not param.help]
    assert silent == []


@pytest.mark.parametrize("name", list(cli_main.COMMANDS))
def test_the_examples_of_the_help_parse(name: str) -> None:
    """An example in the help must be one that the command accepts; nothing is run."""
    command = importlib.import_module(cli_main.COMMANDS[name][0]).command
    text = CliRunner().invoke(cli_main.cli, [name, "--help"]).output
    examples = [line.strip() for line in text.splitlines() if re.match(rf"^\s+mmdgen {name}\b", line)]
    for line in examples:
        words = re.split(r"\s{2,}| [>|] ", line)[0].split()[2:]  # without the remark or redirection behind it
        context = command.make_context(name, list(words), resilient_parsing=True)
        parser = command.make_parser(context)
        parser.parse_args(args=list(words))  # raises for an unknown option


def test_the_list_of_commands_has_a_line_for_each() -> None:
    result = CliRunner().invoke(cli_main.cli, ["--help"])
    assert result.exit_code == 0
    for name in cli_main.COMMANDS:
        assert re.search(rf"^\s+{name}\s+\w", result.output, re.MULTILINE)


def test_version() -> None:
    result = CliRunner().invoke(cli_main.cli, ["--version"])
    assert __version__ in result.output


@pytest.mark.parametrize("arguments", [["no-such-command"], ["doctor", "--no-such-option"], ["doctor", "surplus"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli_main.cli, arguments).exit_code == 2


@pytest.mark.parametrize("error", [MmdgenError("too bad"), FormatError("too bad", file="a.pmx", offset=7)])
def test_an_error_is_one_line_without_a_traceback(
    error: MmdgenError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(cli_main, "cli", fail)
    with pytest.raises(SystemExit) as stop:
        cli_main.main()
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"mmdgen: {error}\n"
