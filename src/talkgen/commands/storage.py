"""`python -m talkgen stats`, `python -m talkgen cleanup`: what a storage holds, and less of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
import attrs
from rich.console import Console
from rich.table import Table

from talkgen.commands import DONE
from talkgen.commands.folder import add_folder_options, print_json, print_table, settings_of
from talkgen.defaults import default_storage

if TYPE_CHECKING:
    import argparse

    from talkgen.commands import Commands
    from talkgen.protocols import CleanupReport, StorageStats
    from talkgen.storage import LocalStorage

__all__ = ["add"]

MEBIBYTE = 2**20


def add(commands: Commands) -> None:
    """Describe the commands."""
    stats = commands.add_parser("stats", help="what a storage holds")
    stats.set_defaults(command=_stats)
    cleanup = commands.add_parser("cleanup", help="delete files whose time is over")
    cleanup.set_defaults(command=_cleanup)
    for one in (stats, cleanup):
        add_folder_options(one)


def _stats(options: argparse.Namespace, console: Console) -> int:  # noqa: ARG001 - all commands alike
    stats = anyio.run(_storage(options).stats)
    if options.json:
        print_json(stats.to_dict())
    else:
        _show(stats)
    return DONE


def _cleanup(options: argparse.Namespace, console: Console) -> int:  # noqa: ARG001 - all commands alike
    report = anyio.run(_storage(options).cleanup)
    if options.json:
        print_json(attrs.asdict(report))
    else:
        sys.stdout.write(_sentence(report) + "\n")
    return DONE


def _storage(options: argparse.Namespace) -> LocalStorage:
    return default_storage(settings_of(options, holding="videos", what="storage"))


def _show(stats: StorageStats) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("tier")
    for name in ("files", "MB", "kept"):
        table.add_column(name, justify="right")
    for tier, held in stats.tiers.items():
        kept = _span(held.retention_days)
        table.add_row(tier, f"{held.file_count:,}", f"{held.size_mb:,.2f}", kept)
    table.add_row("total", f"{stats.total_files:,}", f"{stats.total_size_mb:,.2f}", "")
    console = Console()
    console.print(stats.storage_root, markup=False, highlight=False, soft_wrap=True)
    print_table(table)
    if disk := stats.disk:
        console.print(
            f"disk: {disk.free_gb:,.1f} GB free of {disk.total_gb:,.1f} GB, "
            f"{disk.percent_used:.0f} % used",
            highlight=False,
            soft_wrap=True,
        )


def _span(days: float) -> str:
    return f"{days:.3g} days" if days >= 1 else f"{24 * days:.3g} h"


def _sentence(report: CleanupReport) -> str:
    tasks = len(report.tasks_expired)
    return (
        f"Deleted {report.files_deleted:,} files, freed {report.bytes_freed / MEBIBYTE:,.2f} MB; "
        f"{tasks:,} tasks have expired."
    )
