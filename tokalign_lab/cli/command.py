"""Parts that all commands share: groups, common options, `--config`, errors, and printing of results."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import typer
import yaml

from tokalign_lab import console
from tokalign_lab.errors import InputError, first_line, plain_disk_errors
from tokalign_lab.files import from_home, resolved
from tokalign_lab.runs.control import RunEnded
from tokalign_lab.settings.fields import Option, Settings
from tokalign_lab.settings.kinds import MOST_SEED, MeasuredTextSettings

app = typer.Typer(
    name="tokalign-lab",
    help="Replace the tokenizer of a language model: align, rearrange, recover by tuning.",
    no_args_is_help=True,
    rich_markup_mode=None,  # show usage errors as plain lines, not in a box
    pretty_exceptions_enable=False,
)
assets_app = typer.Typer(help="Packaged models, tokenizers and texts.", no_args_is_help=True)
runs_app = typer.Typer(
    help="Jobs in separate processes: list, watch, pause, cancel, resume, rename, delete.", no_args_is_help=True
)
gallery_app = typer.Typer(help="Recorded runs that ship with the package: list, record.", no_args_is_help=True)
tokenizer_app = typer.Typer(help="New tokenizers: train one, or add tokens to one.", no_args_is_help=True)
app.add_typer(assets_app, name="assets")
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(runs_app, name="runs")
app.add_typer(gallery_app, name="gallery")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Random seed.")]
SentenceEncoder = Annotated[str, typer.Option("--encoder", help="Sentence encoder: a name, a folder or a hub id.")]
# People write `--text a b` for several texts, so extra arguments are read as more texts.
_MoreText = Annotated[list[str] | None, typer.Argument(hidden=True)]


def _print_version(asked: bool) -> None:
    if asked:
        import tokalign_lab

        console.stdout.print(tokalign_lab.__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Register the options of the program itself."""


def command(
    group: typer.Typer,
    name: str,
    failed: Callable[[dict[str, Any]], bool] = lambda result: False,
    make: Callable[[Mapping[str, Any]], Settings] | None = None,
    needs: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Register a function that returns `(result, show)`: a dict for `--json`, and a function that prints it as text.

    Bad input becomes one sentence on stderr and exit code 2. A run that did not finish, or a result for which `failed`
    is true, ends in exit code 1.

    A parameter whose type is a settings class is replaced by the options of that class, except options that are
    parameters of the function. The function gets the settings object, which `make` (by default `from_dict`) makes from
    the options.

    `needs` names options that have no effect without another one: such an option alone is refused on the command line.
    """

    def register(function: Callable[..., Any]) -> Callable[..., None]:
        parameters = inspect.signature(function, eval_str=True).parameters
        kinds = {one.name: one.annotation for one in parameters.values() if inspect.isclass(one.annotation)}
        classes = {name: kind for name, kind in kinds.items() if issubclass(kind, Settings)}
        own = [one.replace(kind=one.KEYWORD_ONLY) for one in parameters.values() if one.name not in classes]
        taken = {one.name for one in own}
        options = {  # by name; two classes may share some
            one.name: one for kind in classes.values() for one in kind.options() if one.name not in taken
        }

        @functools.wraps(function)
        def run(context: typer.Context, config: object, json: bool, **values: Any) -> None:
            console.set_up_logging()
            # a shell leaves `~` in --out=~/x, and in a file for --config
            values = {name: from_home(value) if isinstance(value, Path) else value for name, value in values.items()}
            try:
                with plain_disk_errors():
                    given = _given(options, values)
                    made = {
                        parameter: (make or kind.from_dict)({k: v for k, v in given.items() if k in kind.names()})
                        for parameter, kind in classes.items()
                    }
                    _check_partners(context, needs, ChainMap(*map(vars, made.values()), values))
                    _check_not_read(values.get("out"), made.values())
                    result, show = function(**made, **{k: v for k, v in values.items() if k in taken})
                with plain_disk_errors("the output"):
                    console.print_json(result) if json else show()
            except (InputError, RunEnded) as error:
                console.stderr.print(str(error), style="bold red", soft_wrap=True, markup=False)
                if json:
                    with suppress(OSError):  # the error may be that the output cannot be written
                        console.print_json({"error": str(error)})
                raise typer.Exit(2 if isinstance(error, InputError) else 1) from None
            except KeyboardInterrupt:
                console.stderr.print("Interrupted.")
                raise typer.Exit(130) from None
            if failed(result):
                raise typer.Exit(1)

        def load(context: typer.Context, path: Path | None) -> Path | None:
            _read_config(context, path, tuple(classes.values()))
            return path

        words = "A YAML file of options, or the run.json of a run; options on the command line override it."
        config = Annotated[Path | None, typer.Option("--config", is_eager=True, callback=load, help=words)]
        signature = [*map(_parameter, options.values()), *own]
        signature.sort(key=lambda one: one.default is not inspect.Parameter.empty)  # required options first
        if "text" in options and options["text"].required:
            signature.append(_keyword("more_text", _MoreText, None))
        signature += [_keyword("config", config, None), _keyword("json", Json, False)]
        signature.insert(0, _keyword("context", typer.Context, inspect.Parameter.empty))
        run.__annotations__ = {one.name: one.annotation for one in signature}
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        group.command(name)(run)
        return run

    return register


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _check_partners(context: typer.Context, needs: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Refuse an option on the command line whose partner was not given; a file for `--config` may have more options."""
    flags = {one.name: max(one.opts, key=len) for one in context.command.params}
    for name, partner in needs.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and not values[partner]:
            raise InputError(f"{flags[name]} has no effect without {flags[partner]}; add that, or leave this one out.")


def _check_not_read(out: Path | None, given: Iterable[Settings]) -> None:
    """Refuse an output file that is also an input, which would be lost."""
    for settings in given if out is not None and out.is_file() else ():
        for one in (option for option in settings.options() if option.path):
            value = getattr(settings, one.name)
            for name in value if isinstance(value, tuple) else [value]:
                if name and os.path.exists(name) and os.path.samefile(name, str(out)):
                    raise InputError(
                        f"--out is '{out}', which {one.flag or one.name} reads and which would be lost; choose another."
                    )


def _parameter(one: Option) -> inspect.Parameter:
    """Make an option or argument of the command line from a setting."""
    kind: Any = list[str] if one.kind in (tuple, dict) else one.kind
    if one.required:
        made = typer.Option(one.flag, help=one.help) if one.flag else typer.Argument(help=one.help)
        return _keyword(one.name, Annotated[kind, made], inspect.Parameter.empty)
    # The default is None, for "not given", so typer cannot show the real one.
    default = ", ".join(map(repr, one.default)) if isinstance(one.default, tuple) else str(one.default or 0)
    words = one.help if one.default in (None, "", {}) or kind is bool else f"{one.help} [default: {default}]"
    made = typer.Option(one.flag, help=words, show_default=False)
    return _keyword(one.name, Annotated[kind | None, made], None)


def _given(options: Mapping[str, Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as values of their settings; an empty text means None."""
    given = {}
    for name, one in options.items():
        value = values[name]
        if name == "text":
            value = [*(value or []), *(values.get("more_text") or [])]
        if value is None or value in ([], ()):  # a repeatable option that was not given is empty
            continue
        if one.kind is tuple:
            value = [os.path.expanduser(item) if one.path else item for item in value if item]
        elif one.kind is dict:
            value = _numbers(f"--{name}", value)
        elif one.path:
            value = os.path.expanduser(value)
        given[name] = None if value == "" and one.optional else value
    return given


def _numbers(flag: str, given: list[str]) -> dict[str, float]:
    """Read factors such as `de=2`."""
    numbers = {}
    for one in given:
        name, _, factor = one.rpartition("=")
        try:
            numbers[name] = float(factor)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"{flag} is {one!r}; write a slice and a factor, as de=2.")
    return numbers


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with decimal numbers only, and without yes, no and dates.

    YAML 1.1 reads 5e-5 as a text, 010 as 8, 1:30 as 90, the slice `no` as false, and 2024-1-1 as 2024-01-01.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, words) for tag, words in pairs if not tag.endswith((":int", ":float", ":bool", ":timestamp"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a name that occurs twice, of which YAML takes the last."""
        names = [name.value for name, _ in node.value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"{twice!r} occurs twice; leave one out")
        return dict(super().construct_mapping(node, deep))


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9]\d*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$"), list("-+.0123456789")
)


def _read_config(context: typer.Context, path: Path | None, classes: Sequence[type[Settings]]) -> None:
    """Make the options in a file the defaults of a command; ends the command with code 2 if the file cannot be used."""
    if path is None or context.resilient_parsing:
        return
    several = {str(one.name): getattr(one, "multiple", False) for one in context.command.params}
    known = several.keys() - {"config", "json", "help", "more_text"}
    try:
        values = _read(path)
        if isinstance(values.get("kind"), str) and isinstance(values.get("settings"), dict):
            values = _of_run(path, values, classes, known)
        unknown = sorted(map(str, values.keys() - known))
        if unknown:
            takes = ", ".join(sorted(known)) or "no options"
            raise InputError(f"'{path}' has the option {unknown[0]!r}, but `{context.info_name}` takes {takes}.")
    except InputError as error:
        console.stderr.print(str(error), style="bold red", soft_wrap=True, markup=False)
        raise typer.Exit(2) from None
    # As strings, as on the command line, which then checks them as usual (2.5 is no whole number).
    given = {name: _words(value) for name, value in values.items() if value is not None}
    context.default_map = {k: [v] if several[k] and isinstance(v, str) else v for k, v in given.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"'{path}' cannot be read as YAML ({first_line(error)}).") from error
    if not isinstance(values, dict):
        raise InputError(f"'{path}' must hold options and values, a line each, such as `seed: 1`.")
    return values


def _of_run(path: Path, run: dict[str, Any], classes: Sequence[type[Settings]], known: Set[str]) -> dict[str, Any]:
    """Return a run's settings; if the command is of another kind, only those that determine its text."""
    from tokalign_lab.runs.kinds import kind_of
    from tokalign_lab.runs.schema import placed_settings

    of_run = kind_of(run["kind"]).settings
    names = {name for one in classes if issubclass(of_run, one) for name in one.names()}
    names |= known & set(MeasuredTextSettings.names())
    return {name: value for name, value in placed_settings(run, path.parent).items() if name in names}


def _words(value: Any) -> Any:
    if isinstance(value, dict):
        return [f"{key}={number}" for key, number in value.items()]
    if isinstance(value, list | tuple):
        return [str(one) for one in value] or [""]
    return str(value)


def check_out(out: Path, suffix: str = "", option: str = "--out") -> None:
    """Raise `InputError` if the result could not be written; to be called before the work."""
    resolved(out)
    if suffix and out.suffix != suffix:
        raise InputError(f"{option} is '{out}', but the result is a {suffix} file; name it so.")
    if not suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' exists already and is not empty; choose another {option} or remove it.")
    if suffix and out.is_dir():
        raise InputError(f"{option} is '{out}', but that is a folder; name a file.")
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"'{parent}' is a file, so nothing can be written below it; choose another {option}.")
    if not os.access(parent, os.W_OK):
        raise InputError(f"'{parent}' cannot be written to; choose another {option}.")
