"""Labels that no figure or table may lack."""

import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import plots


def test_label_names_edition_and_weights():
    assert plots.label("phantom", "untrained") == (
        "phantom edition: procedural scans, no patients | network: untrained"
    )
    assert "published" in plots.label("published")


@pytest.mark.parametrize(("edition", "weights"), [("phantoms", None), ("phantom", "random")])
def test_label_refuses_what_it_does_not_know(edition, weights):
    with pytest.raises(ValueError, match="unknown"):
        plots.label(edition, weights)


def test_stamp_writes_the_label_on_the_figure():
    figure = plots.stamp(plt.figure(), "released", "released features")
    assert "released features" in figure.get_supxlabel()
    plt.close(figure)


def test_a_table_shows_the_words_of_strangers_as_text():
    bad = "<script>alert(1)</script>"
    frame = pd.DataFrame({bad: [bad, 1.0]}, index=pd.Index([bad, "b"], name=bad))
    shown = plots.table(frame.rename_axis(columns=bad), "phantom", caption=bad).to_html()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 6


def test_table_ends_its_caption_with_the_label():
    html = plots.table(pd.DataFrame({"auc": [0.123]}), "phantom", caption="Scores.").to_html()
    assert "Scores. [phantom edition" in html
    assert "0.12" in html and "0.123" not in html


def test_forest_puts_the_first_name_on_top():
    figure, axes = plt.subplots()
    plots.forest(axes, ["a", "b"], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7], reference=0.5)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]
    plt.close(figure)


def test_an_estimate_stays_on_one_line():
    assert plots.estimate(0.5, 0.4, 0.613).split(" ") == ["0.50\xa0(0.40\xa0to\xa00.61)"]
    assert plots.estimate(float("nan"), 0.4, 0.6) == "–"


def test_names_of_near_points_do_not_cover_each_other():
    figure, axes = plt.subplots()
    x = np.array([0.5, 0.501, 0.502, 0.9])
    axes.scatter(x, x)
    plots.name_points(axes, x, x, ["one of them", "another", "a third", "far away"])
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    plt.close(figure)


def test_forests_share_an_axis_and_colour_the_rows_that_are_named():
    table = pd.DataFrame({"C": [0.6, 0.8], "low": [0.5, 0.7], "high": [0.7, 0.9]}, ["a", "truth"])
    figure, panels = plots.forests({"x": table, "y": table[:1]}, 0.5, "C", colors={"truth": 2})
    assert [axes.get_title() for axes in panels] == ["x", "y"] and panels[1].get_xlabel() == "C"
    assert panels[0].collections[1].get_offsets()[:, 0].tolist() == [0.6, 0.8]
    shades = [matplotlib.colors.to_hex(c) for c in panels[0].collections[0].get_colors()]
    assert shades == [plots.PALETTE[0].lower(), plots.PALETTE[2].lower()]
    plt.close(figure)
