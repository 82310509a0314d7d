"""Tables of named columns: to the rows of numbers that a network takes, and its answers back.

What a network has to know of the table that it was trained on is an `Encoding`, which goes into
`Network.metadata` and so into the model's file. pandas holds tables; it is imported when used.
"""

from fastnn.tables.columns import Category, Number
from fastnn.tables.encoding import ENTRY, Encoding
from fastnn.tables.preparation import MISSING, TASKS, Prepared, prepare
from fastnn.tables.reading import holds_rows, is_table, read, read_rows, text
from fastnn.tables.targets import Classes, Quantity

__all__ = [
    "ENTRY",
    "MISSING",
    "TASKS",
    "Category",
    "Classes",
    "Encoding",
    "Number",
    "Prepared",
    "Quantity",
    "holds_rows",
    "is_table",
    "prepare",
    "read",
    "read_rows",
    "text",
]
