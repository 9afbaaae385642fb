"""Inputs survive their file under any name."""

import numpy as np
import pytest

from nncc.runtime.feeds import save_feeds


@pytest.mark.parametrize("name", ["x", "file", "x:0", "a/b", "入力"])
def test_an_input_of_any_name_comes_back(tmp_path, name):
    feeds = {name: np.arange(6, dtype=np.int32).reshape(2, 3), "state": np.float32(1.5)}
    save_feeds(tmp_path / "feeds.npz", feeds)
    with np.load(tmp_path / "feeds.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(feeds)
        for key, array in feeds.items():
            np.testing.assert_array_equal(stored[key], array)
