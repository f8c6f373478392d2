"""The plots: an HTML page of all figures, and one picture for the README, drawn without a browser."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from core.queue.simulator import quantile
from tests.benchmarks.report import Row

Points = Sequence[tuple[float, float]]

_BIN_S = 150.0
_COLOURS = {"ours": "#1f6feb", "FIFO": "#d1242f"}
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 320, 56, 40, 34
_FONT = 'font-family="sans-serif" font-size="12"'
_TICKS_S = (45, 60, 120, 300, 600, 900)
BURST_S = (900.0, 2_700.0)


def p95_over_time(latencies: Points) -> Points:
    """The 95th percentile of what was submitted in each stretch, in minutes and seconds."""
    bins: defaultdict[int, list[float]] = defaultdict(list)
    for at_s, latency_s in latencies:
        bins[int(at_s // _BIN_S)].append(latency_s)
    return [((number + 0.5) * _BIN_S / 60, quantile(values, 0.95)) for number, values in sorted(bins.items())]


def html(path: Path, rows: Sequence[Row], monday: Mapping[str, Points]) -> None:
    """The page; it holds its own copy of plotly.js, so it needs no network."""
    figure = make_subplots(
        rows=2,
        cols=1,
        specs=[[{"type": "xy"}], [{"type": "table"}]],
        row_heights=[0.4, 0.6],
        vertical_spacing=0.06,
        subplot_titles=("The Monday morning: the other 199 tenants, submission to end, p95", "All rows"),
    )
    for name, latencies in monday.items():
        points = p95_over_time(latencies)
        line = {"color": _COLOURS[name]}
        figure.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], name=name, line=line, row=1, col=1)
    figure.add_vrect(x0=BURST_S[0] / 60, x1=BURST_S[1] / 60, opacity=0.1, fillcolor="grey", line_width=0, row=1, col=1)
    figure.update_yaxes(type="log", title="seconds", row=1, col=1)
    figure.update_xaxes(title="minutes", row=1, col=1)
    cells = [
        [row.what for row in rows],
        [f"{row.ours:.4g} {row.unit}" for row in rows],
        ["" if row.target is None else f"{row.comparison} {row.target:g}" for row in rows],
        ["" if row.target is None else "holds" if row.holds else "MISSED" for row in rows],
        [", ".join(f"{peer} {value:.4g}" for peer, value in row.peers.items()) for row in rows],
    ]
    head = {"values": ["what", "ours", "target", "", "beside it"], "align": "left"}
    table = go.Table(header=head, cells={"values": cells, "align": "left"}, columnwidth=[5, 2, 2, 1, 5])
    figure.add_trace(table, row=2, col=1)
    figure.update_layout(height=1_300, title="The fair queue", template="plotly_white")
    path.parent.mkdir(exist_ok=True)
    figure.write_html(path, include_plotlyjs=True)


def svg(path: Path, monday: Mapping[str, Points]) -> None:
    """The Monday morning as a picture of some kilobytes."""
    lines = {name: p95_over_time(latencies) for name, latencies in monday.items()}
    last = max(x for points in lines.values() for x, _ in points)
    from_log, to_log = _log(40), _log(1_000)

    def x_of(minutes: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 60) * minutes / last

    def y_of(seconds: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (_log(seconds) - from_log) / (to_log - from_log))

    bottom = _HEIGHT - _BOTTOM
    title = "Monday morning: 199 tenants beside one that submits 5,000 runs (p95, submission to end)"
    burst_x, burst_width = x_of(BURST_S[0] / 60), x_of(BURST_S[1] / 60) - x_of(BURST_S[0] / 60)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{title}</text>',
        f'<rect x="{burst_x:.0f}" y="{_TOP}" width="{burst_width:.0f}" height="{bottom - _TOP}" fill="#eaeef2"/>',
        f'<text x="{burst_x + 6:.0f}" y="{_TOP + 16}" fill="#57606a">5,000 runs are submitted</text>',
    ]
    for seconds in _TICKS_S:
        y = y_of(seconds)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 60}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{seconds} s</text>')
    parts += [
        f'<text x="{x_of(minutes):.0f}" y="{bottom + 18}" text-anchor="middle">{minutes} min</text>'
        for minutes in range(0, int(last) + 1, 15)
    ]
    for name, points in lines.items():
        path_of = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{_COLOURS[name]}" stroke-width="2.5" points="{path_of}"/>')
        x, y = min(points, key=lambda point: abs(point[0] - BURST_S[1] / 60))  # where they differ most
        parts.append(f'<text x="{x_of(x) + 8:.1f}" y="{y_of(y) - 8:.1f}" fill="{_COLOURS[name]}">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", "utf-8")


def _log(value: float) -> float:
    return math.log10(value)
