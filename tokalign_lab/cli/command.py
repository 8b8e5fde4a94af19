"""What every command is made with: the groups, the options that several have, and the way a result is printed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.errors import InputError, plain_disk_errors

app = typer.Typer(
    name="tokalign-lab",
    help="Give a language model somebody else's tokenizer: align, rearrange, tune back.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # a wrong option ends in plain lines, not in a box
    pretty_exceptions_enable=False,
)
assets_app = typer.Typer(help="Packaged models, tokenizers and texts.", no_args_is_help=True)
runs_app = typer.Typer(
    help="Jobs in their own processes: list, watch, pause, cancel, resume, rename, delete.", no_args_is_help=True
)
gallery_app = typer.Typer(help="Recorded runs that ship with the package: list, record.", no_args_is_help=True)
app.add_typer(assets_app, name="assets")
app.add_typer(runs_app, name="runs")
app.add_typer(gallery_app, name="gallery")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Text = Annotated[
    list[str],
    typer.Option("--text", help="A text: 'default', a file, a folder, or hub:org/name. May be repeated."),
]
# `--text a b` is how people write several texts; what follows the named arguments is taken as more of them.
MoreText = Annotated[list[str] | None, typer.Argument(hidden=True)]
MaxBytes = Annotated[int | None, typer.Option("--max-bytes", help="Take a sample of about this many bytes.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")]
SentenceEncoder = Annotated[str, typer.Option("--encoder", help="Sentence encoder: a name, a folder or a hub id.")]
Source = Annotated[str, typer.Argument(help="Tokenizer of the model as it is.")]
Target = Annotated[str, typer.Argument(help="Tokenizer the model shall get.")]


def command(
    group: typer.Typer, name: str, failed: Callable[[dict[str, Any]], bool] = lambda result: False
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Register a function that returns its result as a dict; print that as JSON or let `show` print it.

    The function returns `(result, show)`: `show()` prints the result for people. Bad input becomes one sentence on
    stderr and exit code 2; a result of which `failed` is true ends in exit code 1.
    """

    def register(function: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            console.set_up_logging()
            as_json = bool(kwargs.pop("json", False))
            try:
                with plain_disk_errors():
                    result, show = function(*args, **kwargs)
            except InputError as error:
                console.stderr.print(str(error), style="bold red", soft_wrap=True, markup=False)
                if as_json:
                    console.print_json({"error": str(error)})
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                console.stderr.print("Interrupted.")
                raise typer.Exit(130) from None
            if as_json:
                console.print_json(result)
            else:
                show()
            if failed(result):
                raise typer.Exit(1)

        signature = dict(function.__annotations__)
        signature.pop("return", None)
        run.__annotations__ = {**signature, "json": Json}
        run.__signature__ = _with_json(function)  # type: ignore[attr-defined]
        group.command(name)(run)
        return run

    return register


def _with_json(function: Callable[..., Any]) -> Any:
    import inspect

    signature = inspect.signature(function, eval_str=True)
    json = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    return signature.replace(parameters=[*signature.parameters.values(), json])


def check_out(out: Path, suffix: str = "") -> None:
    """Find out before the work, not after it, that its result could not be written."""
    if suffix and out.suffix != suffix:
        raise InputError(f"--out is '{out}', but the result is a {suffix} file; name it so.")
    if not suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' exists already and is not empty; choose another --out or remove it.")
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        raise InputError(f"'{parent}' cannot be written to; choose another --out.")


def resolved(name: str) -> str:
    """Make a relative path absolute, because a run's process may be resumed from another folder."""
    from tokalign_lab import catalog

    return str(Path(name).resolve()) if not catalog.is_known(name) and Path(name).exists() else name
