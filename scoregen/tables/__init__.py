r"""Tables of mixed columns: their types, the vectors that stand for their rows, and their files."""

from scoregen.tables.column import KINDS, Column
from scoregen.tables.encoding import Layout
from scoregen.tables.files import read_table, write_table
from scoregen.tables.schema import Schema
from scoregen.tables.text_form import TextForm

__all__ = ["KINDS", "Column", "Layout", "Schema", "TextForm", "read_table", "write_table"]
