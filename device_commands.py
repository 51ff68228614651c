"""``mlc devices``: the machines that ``mlc tune --rpc`` measures on."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .console import JsonOption, examples, out, print_json
from .errors import OptionError

app = typer.Typer(
    name="devices",
    help="Serve machines for 'mlc tune --rpc' to measure on. Whoever reaches one can run code on it: use trusted networks only.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

HostOption = Annotated[str, typer.Option(help="Address to listen on; of this machine alone unless given.")]
TrackerOption = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where 'mlc devices tracker' listens.")]
_TRACKER = "127.0.0.1:9190"


@app.command(epilog=examples("mlc devices tracker", "mlc devices tracker --host 10.0.0.1 --port 9190"))
def tracker(
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9190,
) -> None:
    """Run the tracker: devices report to it, and tuning jobs ask it for them. Ends with Ctrl-C."""
    from .autotune.rpc_server import track

    track(host, port, lambda port: print(f"tracker at {host}:{port}", flush=True))


@app.command(
    epilog=examples(
        "mlc devices serve --key board",
        "mlc devices serve --tracker 10.0.0.1:9190 --key board --host 0.0.0.0",
    )
)
def serve(
    key: Annotated[str, typer.Option(show_default=False, help="What jobs ask for: one key for machines that are alike.")],
    tracker: TrackerOption = _TRACKER,
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="First port to try.")] = 9091,
) -> None:
    """Serve this machine to tuning jobs, one at a time. Ends with Ctrl-C.

    Candidates are verified and timed here, in processes of their own; nothing else should run meanwhile. A C compiler is needed.
    """
    from .autotune.rpc_server import serve as serve_device
    from .autotune.rpc_tracker import Tracker
    from .codegen.target import Target

    if not key or ":" in key or key != "".join(key.split()):
        raise OptionError(f"--key {key!r}: give a word without spaces and colons, such as --key board")
    target = Target.parse("cpu")
    serve_device(
        host, port, Tracker.parse(tracker), key, lambda port: print(f"serving '{target}' under key '{key}' at {host}:{port}", flush=True)
    )


@app.command("list", epilog=examples("mlc devices list", "mlc devices list --tracker 10.0.0.1:9190 --json"))
def list_(tracker: TrackerOption = _TRACKER, json: JsonOption = False) -> None:
    """List the devices of a tracker."""
    from .autotune.rpc_tracker import Tracker

    place = Tracker.parse(tracker)
    servers, grid = place.servers(), Table(box=None, pad_edge=False)
    free = {key: place.free(key) for key in servers}
    if json:
        print_json([{"key": key, "devices": addresses, "free": free[key]} for key, addresses in sorted(servers.items())])
        return
    for heading in ("key", "devices", "free", "addresses"):
        grid.add_column(heading, justify="right" if heading in ("devices", "free") else "left")
    for key, addresses in sorted(servers.items()):
        grid.add_row(escape(key), str(len(addresses)), str(free[key]), escape(", ".join(sorted(addresses))))
    out.print(grid)
