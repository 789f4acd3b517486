"""Bar charts as SVG, by gnuplot where it is installed."""

import os
import shutil
import subprocess

# Colours that stay apart for most kinds of colour blindness.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
           "#999999", "#000000", "#f0e442")


def _quote(text):
    return '"' + str(text).replace("\\", "").replace('"', "'") + '"'


def _panel(title, label, groups, series, values, note):
    """gnuplot commands for one clustered bar chart."""
    lines = [f"set title {_quote(title)}", f"set ylabel {_quote(label)}",
             f"set xrange [-0.6:{len(groups) - 0.4}]", "$data << EOD"]
    for group in groups:
        cells = [values.get((group, name)) for name in series]
        lines.append(" ".join([_quote(group)] + [
            f"{cell:.5g}" if cell is not None else "NaN"
            for cell in cells]))
    lines.append("EOD")
    plots = [f"$data using {i + 2}:xtic(1) title {_quote(name)} "
             f"linecolor rgb '{COLOURS[i % len(COLOURS)]}'"
             for i, name in enumerate(series)]
    if note:
        plots.append(f"1 with lines linecolor rgb '#444444' dashtype 2 "
                     f"title {_quote(note)}")
    lines.append("plot " + ", \\\n     ".join(plots))
    return lines


def bars(path, panels):
    """Write the SVG; returns None, or why there is none.

    A panel is (title, label of the axis, groups, series, values by (group,
    series), name of the line at 1 or None).
    """
    program = shutil.which("gnuplot")
    if not program:
        return "gnuplot is not installed"
    bars_wide = max(len(p[2]) * (len(p[3]) + 1) for p in panels)
    script = [
        f"set terminal svg size {max(760, 170 + bars_wide * 16)},"
        f"{380 * len(panels)} dynamic background rgb 'white' "
        "font 'sans,12' noenhanced",
        f"set output {_quote(path)}",
        "set style data histogram", "set style histogram cluster gap 1",
        "set style fill solid 0.9 border rgb '#ffffff'",
        "set boxwidth 1", "set yrange [0:*]", "set grid ytics",
        "set key outside right top", "set border 3",
        "set xtics nomirror" + (" rotate by -35" if any(
            len(p[2]) > 8 for p in panels) else ""),
        "set ytics nomirror",
        f"set multiplot layout {len(panels)},1"]
    for panel in panels:
        script += _panel(*panel)
    script.append("unset multiplot")
    try:
        done = subprocess.run([program], input="\n".join(script) + "\n",
                              capture_output=True, text=True, timeout=60,
                              check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"gnuplot failed: {problem}"
    if done.returncode or not os.path.exists(path) or \
            not os.path.getsize(path):
        said = done.stderr.strip().split("\n")
        return f"gnuplot failed: {said[-1]}"
    return None
