"""Published rows: what the shipped file holds, and how bad rows are refused."""

from collections import Counter

import pytest

from nncc.device_profiles.cost.fit import Limits
from nncc.device_profiles.errors import UsageError
from nncc.device_profiles.published.rows import COLUMNS, possible, read_rows

NANO = Limits(471.9, 25.6)
GOOD = "jetson-nano,fp16,resnet18,224,1000,11.4,torch2trt,fit,somewhere,"


def written(tmp_path, *lines):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n", encoding="utf-8")
    return path


def test_every_row_says_where_it_was_published():
    assert all(row.source and row.harness for row in read_rows())


def test_a_nano_has_26_possible_rows_of_17_architectures_in_fp16():
    rows = [r for r in read_rows() if (r.device, r.precision) == ("jetson-nano", "fp16")]
    kept, refused = possible(rows, NANO)
    assert len(kept) == 26 and len({row.architecture for row in kept}) == 17
    assert [row.net for row, _ in refused] == ["fcn_resnet50"]
    assert refused[0][1].startswith("69.2 GFLOP in 40 ms: at 2.25 x the peak of 471.9 GFLOP/s")


def test_every_other_jetson_has_two_anchors_and_three_rows_to_predict():
    rows = [r for r in read_rows() if r.device != "jetson-nano"]
    count = Counter((row.device, row.role) for row in rows)
    assert len({device for device, _ in count}) == 5
    assert {n for (_, role), n in count.items() if role == "fit"} == {2}
    assert {n for (_, role), n in count.items() if role == "test"} == {3}


def test_the_low_rank_nets_of_table_10_fit_nothing():
    rows = [row for row in read_rows() if row.net.startswith("low-rank")]
    assert [row.role for row in rows] == ["test"] * 3


def test_two_harnesses_that_time_a_call_from_python_have_a_constant_of_their_own():
    harnesses = {row.sample.harness for row in read_rows()}
    assert harnesses == {"", "torch2trt", "kentaroy47"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (GOOD.replace("11.4", "soon"), ":2: is not a number"),
        (GOOD.replace("11.4", "-1"), ":2: latency_ms cannot be '-1'"),
        (GOOD.replace("11.4", "nan"), ":2: latency_ms cannot be 'nan'"),
        (GOOD.replace("resnet18", "resnet19"), ":2: net cannot be 'resnet19'"),
        (GOOD.replace("fp16", "fp8"), ":2: precision cannot be 'fp8'"),
        (GOOD.replace("224", "999999999"), ":2: side cannot be '999999999'"),
        (GOOD.replace("somewhere", ""), ":2: source cannot be ''"),
        (GOOD + ",", ":2: has 11 columns of 10"),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_its_line(tmp_path, line, said):
    with pytest.raises(UsageError, match=said):
        read_rows(written(tmp_path, line))


def test_a_file_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UsageError, match="does not begin with the columns"):
        read_rows(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_rows(tmp_path / "nothing.csv")


def test_a_good_row_is_read(tmp_path):
    (row,) = read_rows(written(tmp_path, GOOD))
    assert (row.latency_ms, row.architecture, row.refusal(NANO)) == (11.4, "resnet18", "")
