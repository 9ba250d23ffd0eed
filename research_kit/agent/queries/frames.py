"""DataFrames of the notebook, whatever class they have.

Owns what counts as a frame and the names of its columns; computes nothing. Invariant: a subclass's own
methods and properties are not run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from research_kit.agent.variables import class_dict, class_order

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["column_names", "is_frame", "is_number", "plain_frame"]


def is_frame(value: object) -> bool:
    """Return True for a pandas DataFrame; does not import pandas."""
    pandas = sys.modules.get("pandas")
    frame_type = getattr(pandas, "DataFrame", None)
    # The type itself: `isinstance` would ask the object's `__class__`, which may be a property.
    return frame_type is not None and issubclass(type(value), frame_type) and _is_readable(type(value))


def plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of ``frame`` as they are now in a plain DataFrame, which shares the values."""
    import pandas as pd

    return pd.DataFrame(frame).copy(deep=False)


def column_names(frame: pd.DataFrame) -> list[str]:
    """Return the names of the columns as text, by position."""
    return [_label_text(label, position) for position, label in enumerate(frame.columns)]


def is_number(series: pd.Series) -> bool:
    """Return True for a column of real numbers; booleans are none."""
    import pandas as pd

    kind = pd.api.types
    return bool(
        kind.is_numeric_dtype(series) and not kind.is_bool_dtype(series) and not kind.is_complex_dtype(series)
    )


def _is_readable(frame_type: type) -> bool:
    """Return True when reading the values of a frame of this class runs pandas' code only."""
    from pandas import DataFrame

    order = class_order(frame_type)
    own = order[: order.index(DataFrame)]
    return not any({"__getattribute__", "_mgr"} & class_dict(base).keys() for base in own)


def _label_text(label: object, position: int) -> str:
    try:
        return str(label)
    except Exception:  # noqa: BLE001 -- a label may be an object of any class
        return f"column {position}"
