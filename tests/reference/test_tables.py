"""The paper's rows are printed as they are, ours beside them, in three forms."""

import csv
import io
import math
import re

import pytest

from reference.tables import TABLES, Measured, as_csv, as_latex, as_text, mean_at
from reference.testing import CaseResult


def case(name, dsc, hd95, rdsc, iterations, seconds):
    return CaseResult(name, name, dsc, hd95, rdsc, seconds, [1] * len(rdsc), iterations, 0.5, 0.9)


def measured(method="MLL", label="ours", dataset="nih", with_label=False):
    cases = [
        case("a", [0.5, 0.7, 0.8, 0.8], [9.0, 4.0, 3.0, 3.0], [0.9, 0.99, 1.0], 2, [1.0, 2.0, 3.0, 4.0]),
        case("b", [0.6, 0.9], [math.inf, 2.0], [0.95], None, [1.0, 5.0]),
    ]
    return Measured(method, label, dataset, with_label, cases, parameters=92_000_000, flops=149_400_000_000)


def ours(number, **options):
    (table,) = (table for table in TABLES if table.number == number)
    rows = table.with_ours([measured(**options)])
    assert len(rows) == len(table.rows) + 1
    (added,) = (index for index, row in enumerate(rows) if "ours" in "".join(row))
    return rows[added - 1], rows[added]


def test_every_table_is_whole():
    assert [table.number for table in TABLES] == [3, 4, 5, 6, 7, 8, 9]
    assert [len(table.rows) for table in TABLES] == [14, 4, 3, 3, 8, 7, 4]
    for table in TABLES:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        method = list(table.columns).index("Method")
        assert set(table.names.values()) <= {row[method] for row in table.rows}


def test_printed_means_lie_between_the_printed_extremes():
    """Slips of the pen in the printed rows would show here."""
    for table in TABLES:
        for row in table.rows:
            cells = dict(zip(table.columns, row, strict=True))
            dsc = cells.get("DSC", cells.get("Averaged DSC"))
            if dsc is None or cells["Max"] == "N/A":
                continue
            mean, low, high = (float(re.match(r"[\d.]+", cell)[0]) for cell in (dsc, cells["Min"], cells["Max"]))
            assert low < mean < high, row


def test_table_3_by_hand():
    # Reported: 0.8, in round 2, and 0.9, in the last round.
    printed, row = ours(3)
    assert printed[:2] == ("w/o label", "MLL model")
    assert row == ("w/o label", "MLL model, ours", "–", "85.00% ± 5.00%", "80.00%", "90.00%", "2-D")
    printed, row = ours(3, with_label=True)
    assert printed[:2] == ("with label", "MLL model")
    assert row[:2] == ("with label", "MLL model, ours")
    printed, row = ours(3, method="RSTN", with_label=True)
    assert printed[:2] == ("with label", "MLN model")  # The last of a half in which RSTN has no row.
    assert row[:2] == ("with label", "RSTN [60], ours")


def test_tables_4_to_6_by_hand():
    # Case b stops after round 1 and keeps its last figure.
    printed, row = ours(4)
    assert printed[0] == "MLL"
    assert row == ("MLL, ours", "0.9250", "0.9700", "0.9750", "0.9750", "0.9750", "1/2", "2.00 iters")
    _, row = ours(5)
    assert row == ("MLL, ours", "80.00%", "85.00%", "85.00%", "85.00%", "85.00%", "85.00%")
    _, row = ours(6)
    assert row == ("MLL, ours", "3.000", "2.500", "2.500", "2.500", "2.500", "2.500")


def test_tables_7_to_9_by_hand():
    printed, row = ours(7, dataset="isicdm-thin")
    assert printed[:2] == ("Thin", "MLL model")
    assert row == ("Thin", "MLL model, ours", "85.00% ± 5.00%", "80.00%", "90.00%", "2.00", "6.00")
    printed, row = ours(7, dataset="hippocampus", label="ours, on hippocampus")
    assert printed[:2] == ("Thick", "MLN model")
    assert row[:2] == ("Hippocampus", "MLL model, ours, on hippocampus")
    _, row = ours(8, dataset="msd-spleen")
    assert row == ("MLL model, ours", "85.00% ± 5.00%", "80.00%", "90.00%", "2.00", "0.10", "9.2×10⁷", "14.9×10¹⁰")
    printed, row = ours(9, dataset="msd-spleen", method="MLN w/o MLSG module")
    assert printed[0] == "w/o MLSG module"
    assert row[-3:] == ("6.0s", "9.2×10⁷", "1.5×10¹¹")


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, [3, 4, 5, 6]),
        ({"with_label": True}, [3]),
        ({"method": "Region loss"}, [4, 5, 6]),
        ({"method": "RSTN"}, [3, 4]),
        ({"method": "RSTN", "dataset": "msd-spleen"}, [8]),
        ({"method": "MLN", "dataset": "msd-spleen"}, [8, 9]),
        ({"dataset": "isicdm-thick"}, [7]),
        ({"method": "MLN", "dataset": "mine"}, [3, 7, 8, 9]),
        ({"method": "Region + pixel loss"}, []),
    ],
)
def test_where_a_result_belongs(options, numbers):
    assert [table.number for table in TABLES if table.holds(measured(**options))] == numbers


def test_means_by_round():
    assert mean_at([[1.0, 3.0], [5.0]], 0) == 3
    assert mean_at([[1.0, 3.0], [5.0]], 7) == 4
    assert mean_at([[math.inf], [2.0], []], 0) == 2
    assert math.isnan(mean_at([[]], 0))


def test_forms():
    header, rows = ["Method", "DSC", "Flops"], [("a & b_1", "95.00% ± 1.00%", "2.5×10¹¹"), ("c", "–", "-")]
    text = as_text("A title", header, rows)
    assert text.splitlines()[0] == "A title"
    assert re.search(r"a & b_1 +95.00% ± 1.00% +2.5×10¹¹", text)
    assert list(csv.reader(io.StringIO(as_csv(header, rows)))) == [header, *map(list, rows)]
    latex = as_latex("50% of a title", header, rows)
    assert r"\caption{50\% of a title}" in latex
    assert r"a \& b\_1 & 95.00\% $\pm$ 1.00\% & $2.5 \times 10^{11}$ \\" in latex
    assert r"c & -- & - \\" in latex
    assert latex.count("\\\\\n") == 3
