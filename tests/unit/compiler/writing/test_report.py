import re
from html.parser import HTMLParser

import pytest

from nncc.compiler.writing.charts import layer_chart, nice
from nncc.compiler.writing.metrics import metrics
from nncc.compiler.writing.report import page, short
from outcomes import BROKEN, EQUAL, HOSTILE, outcome, paired, row

VOID = {"meta", "br", "img", "link", "input", "hr", "rect", "circle", "line"}


class Page(HTMLParser):
    """The page as a parser sees it: tags, attributes, text; refuses unbalanced tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("p", "li"):
            assert self.open.pop() == tag
        else:
            self.open.remove(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(told=None, command: str = "nncc compile m.onnx -t x86-cpu") -> str:
    told = told or outcome(latency=paired())
    return page(told, metrics(told), command)


def test_the_page_reaches_for_nothing_outside_itself():
    text = rendered()
    assert not re.search(r"(?:src|href|url|import)\s*[=(]", text)
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")


def test_hostile_names_stay_text_everywhere():
    told = outcome(
        row(HOSTILE, reason=HOSTILE, form=HOSTILE, op=HOSTILE),
        model_name=HOSTILE,
        target=HOSTILE,
        warnings=(HOSTILE,),
        undone=(HOSTILE,),
        budget=HOSTILE,
        latency_note=HOSTILE,
        compile_seconds={HOSTILE: 1.0},
    )
    seen = Page(rendered(told, HOSTILE))
    assert seen.tags.count("script") == 1 and "img" not in seen.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert "{{7*7}}" in seen.text


def test_the_only_script_that_may_run_is_the_page_s_own():
    import base64
    import hashlib

    text = rendered()
    body = re.search(r"<script>(.*?)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_the_banner_is_there_exactly_when_layers_changed_unseen():
    assert 'role="alert"' in rendered(outcome())
    assert 'role="alert"' not in rendered(outcome(calibrated=True))
    assert 'role="alert"' not in rendered(outcome(row(changed=False)))


def test_a_speed_up_is_shown_only_when_it_was_measured():
    assert "1.99 ×" in rendered() and "1.95 to 2.03" in rendered()
    without = Page(rendered(outcome())).text
    assert "not measured" in without and "x86-cpu is not this machine" in without
    assert "Speed-up" not in without


def test_every_layer_warning_and_undone_part_is_listed():
    told = outcome(*(row(f"/block/{i}/Conv", weights=1000 + i) for i in range(130)))
    text = Page(rendered(told)).text
    for i in (0, 64, 129):
        assert f"/block/{i}/Conv" in text and f"{1000 + i:,}" in text
    assert all(line in text for line in (*told.undone, *told.warnings))


@pytest.mark.parametrize(
    "told",
    [
        outcome(layers=(), exit_code=7),
        outcome(row(macs_reference=0, macs_compressed=0, weights=1)),
        outcome(row(error_op=float("nan"), error_fro=float("inf"))),
        outcome(fidelity=EQUAL),
        outcome(fidelity=BROKEN),
        outcome(compressed_bytes=0, reference_bytes=0),
    ],
    ids=["no layer", "no macs", "nan", "equal", "broken", "no bytes"],
)
def test_odd_outcomes_give_a_whole_page(told):
    Page(rendered(told))


def test_the_same_outcome_gives_the_same_bytes():
    assert rendered() == rendered()


def test_bars_are_in_proportion_to_the_numbers():
    svg = layer_chart([row(weights=300), row("b", changed=False, weights=150)])
    bars = re.findall(r'<rect class="(ref|new)"[^>]* height="([\d.]+)"', svg)
    heights = [float(height) for _, height in bars]
    assert heights[0] / heights[1] == pytest.approx(3, rel=0.02)
    assert heights[0] / heights[2] == pytest.approx(2, rel=0.02)
    assert heights[2] == heights[3]


@pytest.mark.parametrize("value", [1e-9, 0.3, 1, 7, 9.99, 101, 3e12])
def test_an_axis_holds_its_largest_value_and_wastes_less_than_half(value: float):
    assert value <= nice(value) * (1 + 1e-9) and nice(value) <= 2 * value


def test_a_long_name_keeps_both_ends():
    assert short("a" * 100 + "z" * 100) == "a" * 45 + "…" + "z" * 45
