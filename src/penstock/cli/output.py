"""Every result of every command, as a table, JSON or YAML.

A command returns one of three results; each holds the document a machine reads and how a person sees it:

    Listing   rows alike                       a JSON array of objects
    Details   one thing, perhaps with lists    a JSON object
    Notice    something was done               a JSON object, and a sentence

Documents hold raw numbers and ISO 8601 times; units and grouping are for tables only. Tables are drawn by rich on a
terminal and as aligned columns elsewhere, so `awk` and `less` see no boxes and no colours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO

from penstock.base.dataclasses import dataclass

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
Row = Mapping[str, Json]

FORMATS = ("table", "json", "yaml")


def printable(text: str) -> str:
    """A text without what a terminal would obey: clients choose names."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def plain_text(value: Json) -> str:
    """A value as a person reads it, without any unit."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case str() | int() | float():
            return str(value)
        case Mapping():
            return ", ".join(f"{key}={plain_text(item)}" for key, item in value.items())
        case _:
            return ",".join(plain_text(item) for item in value) or "-"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a listing, or one line of details."""

    key: str
    title: str = ""
    show: Callable[..., str] = plain_text
    right: bool = False
    style: Callable[[Json], str] | None = None
    """Colour of a value on a terminal, as rich names it."""
    wraps: bool = False
    """Whether a terminal that is too narrow may have it in several lines: sentences and lists, not names or numbers."""
    is_extra: bool = False
    """Whether a table does without it where no row has anything there."""
    is_below: bool = False
    """Whether a table has it below its row, where there is something: a remark, for which no column is wide enough."""

    @property
    def heading(self) -> str:
        """The title, by default the key in words."""
        return self.title or self.key.replace("_", " ")


def number(key: str, title: str = "", show: Callable[..., str] = plain_text) -> Column:
    """A column of numbers."""
    return Column(key, title, show, right=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Rows alike."""

    rows: Sequence[Row]
    columns: Sequence[Column]
    empty: str
    """What to say to a person when there is no row."""

    @property
    def document(self) -> Json:
        """What a machine reads."""
        return list(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A list inside details."""

    key: str
    title: str
    columns: Sequence[Column]
    empty: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """One thing: fields, then lists."""

    document: Row
    fields: Sequence[Column] = ()
    sections: Sequence[Section] = ()
    footer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something was done, or would be."""

    document: Row
    sentence: str


Result = Listing | Details | Notice


def emit(result: Result, output_format: str, stream: TextIO | None = None) -> None:
    """Write a result to standard output, or to another stream."""
    stream = sys.stdout if stream is None else stream
    match output_format:
        case "json":
            # Escapes say the same to a machine, where the locale is one that has not all letters.
            ascii_only = (stream.encoding or "utf-8").lower() != "utf-8"
            stream.write(json.dumps(result.document, indent=2, ensure_ascii=ascii_only) + "\n")
        case "yaml":
            stream.write(yaml_text(result.document))
        case _:
            _for_people(result, stream)
    stream.flush()


def yaml_text(document: object) -> str:
    """A document as YAML, keys in their order."""
    import yaml  # 70 ms that only this format pays.

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))


def _for_people(result: Result, stream: TextIO) -> None:
    match result:
        case Notice():
            stream.write(result.sentence + "\n")
        case Listing():
            _rows(result.rows, result.columns, result.empty, stream)
        case Details():
            _details(result, stream)


def _details(result: Details, stream: TextIO) -> None:
    width = max((len(field.heading) for field in result.fields), default=0)
    for field in result.fields:
        heading, value = field.heading.ljust(width), result.document[field.key]
        if is_terminal(stream):
            heading = f"\x1b[2m{heading}\x1b[0m"
        stream.write(f"{heading}  {printable(field.show(value))}\n")
    blank = bool(result.fields)
    for section in result.sections:
        rows = result.document[section.key]
        if not isinstance(rows, list) or (not rows and not section.empty):
            continue
        stream.write(("\n" if blank else "") + (section.title + "\n" if section.title else ""))
        _rows(rows, section.columns, section.empty, stream)
        blank = True
    if result.footer:
        stream.write(("\n" if blank else "") + result.footer + "\n")


def _rows(rows: Sequence[Row], columns: Sequence[Column], empty: str, stream: TextIO) -> None:
    columns = [column for column in columns if not column.is_extra or any(row[column.key] for row in rows)]
    below = next((column for column in columns if column.is_below), None)
    columns = [column for column in columns if not column.is_below]
    if not rows:
        stream.write(empty + "\n")
    elif is_terminal(stream):
        _draw(rows, columns, stream, below)
    else:
        stream.writelines(aligned(rows, columns, below))


def aligned(rows: Sequence[Row], columns: Sequence[Column], below: Column | None = None) -> Iterable[str]:
    """Lines of columns two spaces apart, headings in capitals, nothing behind the last value. A remark below a row
    begins under its last column."""
    cells = [[column.heading.upper() for column in columns]]
    cells += [[printable(column.show(row[column.key])) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    indent = " " * sum(width + 2 for width in widths[:-1])
    for line, row in zip(cells, [None, *rows], strict=True):
        padded = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        yield "  ".join(padded).rstrip() + "\n"
        if row is not None and below is not None and row[below.key]:
            yield f"{indent}{ARROW}{printable(below.show(row[below.key]))}\n"


WRAPPED_LEAST = 24
"""How narrow a column becomes whose texts go into several lines."""


ARROW = "→ "


def _draw(rows: Sequence[Row], columns: Sequence[Column], stream: TextIO, below: Column | None = None) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    least = 2 * (len(columns) - 1)
    cells: list[list[Text]] = []
    for column in columns:
        values = [row[column.key] for row in rows]
        texts = [(printable(column.show(value)), column.style(value) if column.style else "") for value in values]
        width = max(cell_len(text) for text in (column.heading, *(text for text, _ in texts)))
        width = min(width, WRAPPED_LEAST) if column.wraps else width
        least += width
        table.add_column(
            column.heading.capitalize(), justify="right" if column.right else "left", overflow="fold",
            no_wrap=not column.wraps, min_width=width,
        )  # fmt: skip
        cells.append([Text(text, style=style) for text, style in texts])
    for line, row in zip(zip(*cells, strict=True), rows, strict=True):
        if below is not None and row[below.key]:
            style = below.style(row[below.key]) if below.style else ""
            line[-1].append(f"\n{ARROW}{printable(below.show(row[below.key]))}", style=style)
        table.add_row(*line)
    console = Console(file=stream, highlight=False)
    if least > console.width:
        # What does not fit is the terminal's to break, in one piece: a name that is cut up cannot be copied.
        console = Console(file=stream, highlight=False, width=least)
    console.print(table, crop=False)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches this stream and wants colours."""
    from os import environ

    return stream.isatty() and "NO_COLOR" not in environ and environ.get("TERM") != "dumb"
