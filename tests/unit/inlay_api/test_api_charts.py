"""Charts are right when their numbers are."""

from inlay_api.charts import HEIGHT, LEFT, WIDTH, courses, shares


def test_a_column_is_as_high_as_its_shares() -> None:
    """Parts stand on each other, in order, and together reach 100 %."""
    chart = shares("t", [("W1", {"kept": 0.5, "edited": 0.25, "deleted": 0.25})])
    kept, edited, deleted = chart.bars
    top, bottom = chart.ticks[-1][0], chart.ticks[0][0]
    assert kept.y + kept.height == bottom
    assert edited.y + edited.height == kept.y
    assert (deleted.y, deleted.words) == (top, "W1: deleted 25%")
    assert kept.height == 2 * edited.height


def test_a_missing_value_is_not_invented() -> None:
    """A step without a value has no dot; the others stand at their height, inside the picture."""
    chart = courses("t", ["a", "b", "c"], {"x": [1.0, None, 4.0]})
    (line,) = chart.lines
    assert len(line.dots) == len(line.points.split()) == 2
    low, high = (dot[1] for dot in line.dots)
    zero, _, top = (y for y, _ in chart.ticks)
    assert (zero - low) * 4 == zero - high
    assert high == top
    assert all(LEFT <= x <= WIDTH and 0 <= y <= HEIGHT for x, y, _ in line.dots)


def test_nothing_draws_nothing() -> None:
    """No data: no bars, no lines, no division by zero."""
    assert shares("t", []).bars == ()
    assert courses("t", [], {"x": []}).lines[0].points == ""
    assert courses("t", ["a"], {"x": [0.0]}).lines[0].dots[0][1] == HEIGHT - 28


def test_labels_have_room() -> None:
    """A year of weeks has fewer labels than columns."""
    chart = shares("t", [(f"2026-W{n}", {"kept": 1.0}) for n in range(52)])
    assert len(chart.bars) == 52
    assert len(chart.labels) <= 9
