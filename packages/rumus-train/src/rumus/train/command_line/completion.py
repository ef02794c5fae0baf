"""`rumus completion`: scripts that let a shell complete commands and options.

They are made of the parser itself, so that they know all of it, and run nothing when Tab is hit.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rumus.train.command_line.exit_codes import ExitCode
from rumus.train.command_line.parser import FILE, FOLDER, parser


@dataclass(frozen=True)
class Continuations:
    """What may follow some words: further commands, options, and what an argument is."""

    words: tuple[str, ...]
    commands: Mapping[str, str]  # with what they do
    options: Mapping[str, str]
    choices: tuple[str, ...]
    completes: str | None


def completion(arguments: Namespace) -> int:
    """Do `rumus completion`."""
    print(_SCRIPTS[arguments.shell](list(levels(parser(), ()))), end="")
    return ExitCode.OK


def levels(of: ArgumentParser, words: tuple[str, ...]) -> Iterator[Continuations]:
    """Yield a parser's level and those below."""
    commands: dict[str, str] = {}
    options: dict[str, str] = {}
    choices: tuple[str, ...] = ()
    completes = None
    below: list[Continuations] = []
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = {each.dest: each.help or "" for each in action._choices_actions}
            for name, inner in action.choices.items():
                below += levels(inner, (*words, name))
        elif action.option_strings:
            help_text = action.help or ""
            if "%" in help_text:
                help_text = help_text % {"default": action.default}
            options |= dict.fromkeys((o for o in action.option_strings if o[:2] == "--"), help_text)
        else:
            choices = tuple(action.choices or ())
            completes = getattr(action, "completes", None)
    yield Continuations(words, commands, options, choices, completes)
    yield from below


def _bash(found: list[Continuations]) -> str:
    cases = []
    for level in found:
        words = " ".join([*level.commands, *level.choices, *level.options])
        kind = {FILE: "-f", FOLDER: "-d"}.get(level.completes or "", "")
        cases.append(f'    "{" ".join(level.words)}") words="{words}"; kind="{kind}" ;;')
    known = "|".join(f'"{" ".join(level.words)}"' for level in found if level.words)
    lines = "\n".join(cases)
    return f"""\
# bash completion for rumus: source <(rumus completion bash)
_rumus() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" path="" words="" kind="" longer i
  for ((i = 1; i < COMP_CWORD; i++)); do
    longer="${{path:+$path }}${{COMP_WORDS[i]}}"
    case "$longer" in {known}) path="$longer" ;; esac
  done
  case "$path" in
{lines}
  esac
  case "${{COMP_WORDS[COMP_CWORD - 1]}}" in
    --config|--picture|--output) words=""; kind="-f" ;;
    --run-dir) words=""; kind="-d" ;;
    --resume) words="auto must never"; kind="-d" ;;
    --profile) words="steps kernels"; kind="" ;;
  esac
  local IFS=$'\n'  # names with spaces stay whole
  COMPREPLY=($(IFS=$' \n'; compgen $kind -W "$words" -- "$current"))
}}
complete -o filenames -F _rumus rumus
"""


def _zsh(found: list[Continuations]) -> str:
    cases = []
    for level in found:
        items = {**level.commands, **dict.fromkeys(level.choices, ""), **level.options}
        told = " ".join(_quoted(f"{name}:{text}") for name, text in items.items())
        files = {FILE: "_files", FOLDER: "_files -/"}.get(level.completes or "", ":")
        cases.append(f"    '{' '.join(level.words)}') items=({told}); {files} ;;")
    known = "|".join(f"'{' '.join(level.words)}'" for level in found if level.words)
    lines = "\n".join(cases)
    return f"""\
#compdef rumus
# zsh completion for rumus: rumus completion zsh > a folder of $fpath, named _rumus
_rumus() {{
  local at="" longer
  local -a items
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    longer="${{at:+$at }}$word"
    case "$longer" in ({known}) at="$longer" ;; esac
  done
  case "$at" in
{lines}
  esac
  _describe -t commands rumus items
}}
compdef _rumus rumus
"""


def _fish(found: list[Continuations]) -> str:
    lines = ["# fish completion for rumus: rumus completion fish | source", "complete -c rumus -f"]
    for level in found:
        seen = " && ".join(f"__fish_seen_subcommand_from {word}" for word in level.words)
        deeper = " ".join(level.commands)
        condition = seen or "__fish_use_subcommand"
        if seen and deeper:
            condition += f" && not __fish_seen_subcommand_from {deeper}"
        start = f"complete -c rumus -n {_quoted(condition)}"
        lines += [f"{start} -a {name} -d {_quoted(text)}" for name, text in level.commands.items()]
        lines += [f"{start} -a {name}" for name in level.choices]
        lines += [
            f"{start} -l {name[2:]} -d {_quoted(text)}" for name, text in level.options.items()
        ]
        if level.completes:
            lines.append(f"{start} -F")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "") + "'"


_SCRIPTS: Final[Mapping[str, Callable[[list[Continuations]], str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
