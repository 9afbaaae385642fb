import json
import math

import pytest
from pydantic import ValidationError

from nncc.compiler.writing.metrics import Metrics, largest, metrics, ratio
from outcomes import BROKEN, EQUAL, outcome, paired, row

# Section 8 of the design, as a tree of keys; tools rely on it.
KEYS = {
    "schema": None,
    "nncc": None,
    "model": {"name": None, "sha256": None},
    "target": None,
    "calibrated": None,
    "layers": {"total": None, "changed": None, "reverted": None},
    "size": {
        "reference_bytes": None,
        "compressed_bytes": None,
        "packed_bytes": None,
        "reference_bits": None,
        "compressed_bits": None,
        "rho_s": None,
        "parameters": None,
        "bits_per_parameter": None,
    },
    "ops": {
        "macs_reference": None,
        "macs_compressed": None,
        "rho_add": None,
        "rho_mult": None,
    },
    "error": {"max_rel_op": None, "max_rel_fro": None},
    "fidelity": {
        "inputs": None,
        "n": None,
        "sqnr_db": None,
        "top1_agreement": None,
        "max_abs_diff": None,
    },
    "quality": None,
    "latency": {
        "predicted_ms": {"reference": None, "compressed": None, "tier": None},
        "measured_ms": {
            "reference": None,
            "compressed": None,
            "speedup": None,
            "speedup_ci": None,
            "protocol": None,
        },
    },
    "compile_seconds": None,
    "verdict": {"budget_met": None, "exit_code": None},
}


def strict(text: str) -> dict:
    """JSON as strict parsers read it: no NaN, no Infinity."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def assert_keys(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for key, inner in expected.items():
        if inner is not None:
            assert_keys(found[key], inner)


def test_every_key_of_schema_1_is_there_in_order():
    assert_keys(strict(metrics(outcome(latency=paired())).to_json()), KEYS)


def test_keys_stay_when_nothing_was_measured():
    found = strict(metrics(outcome()).to_json())
    assert found["latency"] == {
        "predicted_ms": {"reference": None, "compressed": None, "tier": None},
        "measured_ms": None,
    }
    assert found["quality"] is None and found["size"]["packed_bytes"] is None


def test_published_schema_requires_every_key():
    schema = Metrics.model_json_schema()
    assert set(schema["required"]) == set(KEYS)
    for name, part in schema["$defs"].items():
        assert set(part["required"]) == set(part["properties"]), name


def test_a_file_reads_back_as_the_same_value():
    held = metrics(outcome(latency=paired()))
    assert Metrics.model_validate_json(held.to_json()) == held


def test_an_unknown_key_is_refused():
    text = metrics(outcome()).to_json().replace('"schema": 1', '"schema": 1, "extra": 2')
    with pytest.raises(ValidationError, match="extra"):
        Metrics.model_validate_json(text)


def test_ratios_are_reference_over_compressed_as_lc_part_v_counts():
    rows = row(weights=300), row("b", changed=False, weights=100)
    found = metrics(outcome(*rows))
    assert found.size.rho_s == (400 * 32) / (200 * 32)  # eq. 6
    assert (found.ops.macs_reference, found.ops.macs_compressed) == (40_000, 20_000)
    assert found.ops.rho_add == found.ops.rho_mult == 2.0  # eqs. 12, 13


def test_unknown_macs_are_null_and_partly_known_ones_are_summed_where_known():
    unknown = row("b", macs_reference=None, macs_compressed=None)
    assert metrics(outcome(unknown)).ops.macs_reference is None
    assert metrics(outcome(unknown)).ops.rho_mult is None
    assert metrics(outcome(row(weights=300), unknown)).ops.macs_reference == 30_000


def test_equal_outputs_have_null_sqnr_beside_a_zero_difference():
    found = strict(metrics(outcome(fidelity=EQUAL)).to_json())["fidelity"]
    assert found["sqnr_db"] is None and found["max_abs_diff"] == 0


def test_outputs_that_are_not_finite_have_null_for_both():
    found = strict(metrics(outcome(fidelity=BROKEN)).to_json())["fidelity"]
    assert found["sqnr_db"] is None and found["max_abs_diff"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_layer_error_that_is_not_finite_is_never_hidden_by_the_maximum(bad: float):
    assert largest([0.1, bad, 0.2]) is None
    found = strict(metrics(outcome(row(error_op=bad), row("b"))).to_json())
    assert found["error"]["max_rel_op"] is None


def test_a_model_without_layers_has_ratios_of_one():
    found = metrics(outcome(layers=()))
    assert found.size.rho_s == 1.0 and found.error.max_rel_op == 0.0


def test_a_ratio_to_nothing_is_null_not_infinite():
    assert ratio(5, 0) is None and ratio(0, 0) == 1.0


def test_floats_outside_the_layers_count_as_they_are_stored():
    rows = row(weights=300), row("b", changed=False, weights=100)
    found = metrics(outcome(*rows, other_floats=20, other_bits=32 * 20 - 16 * 5)).size
    assert found.parameters == 420
    assert found.reference_bits == 32 * 420
    assert found.compressed_bits == 32 * 200 + 32 * 15 + 16 * 5
    assert found.bits_per_parameter == found.compressed_bits / 420
