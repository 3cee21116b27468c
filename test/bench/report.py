"""What a run prints and keeps: Markdown tables, and a plot of the CPU that each contender took."""
import datetime
import os
import pathlib
import platform
import subprocess
from xml.sax.saxutils import escape


def machine():
    model = next(
        (
            line.split(":")[1].strip()
            for line in open("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    release = next(
        (line.split('"')[1] for line in open("/etc/os-release") if line.startswith("PRETTY_NAME")),
        "",
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    return (
        f"{datetime.date.today()}, {model}, {len(os.sched_getaffinity(0))} cores, {release}, Linux "
        f"{platform.release()}"
        + (f", wxlogind at {commit}" if commit else "")
    )


class Report:
    def __init__(self, work, until=None):
        """until: a time of the monotonic clock after which no round begins that can be left out."""
        self.until = until
        self.work, self.parts, self.plots, self.found, self.machine, self.failed = (
            work, [], [], {}, machine(), [],
        )
        self._print(f"`scripts/bench {work}` on {self.machine}\n")

    def _print(self, text):
        print(text, flush=True)
        self.parts.append(text)

    def section(self, title):
        self._print(f"## {title}\n")

    def table(self, header, rows, text=1):
        """The first so many columns are text, the others figures."""
        self._print(
            "\n".join(
                [
                    "| " + " | ".join(header) + " |",
                    "|" + " --- |" * text + " ---: |" * (len(header) - text),
                    *("| " + " | ".join(str(c) for c in row) + " |" for row in rows),
                ]
            )
            + "\n"
        )

    def note(self, text):
        self._print(text + "\n")

    def record(self, name, what):
        """For whoever reads the run later: what JSON can hold."""
        self.found[name] = what

    def fail(self, why):
        """The run goes on, and ends with an error."""
        self.failed.append(why)

    def plot(self, title, bars):
        """bars: (name, figure, whether it is ours)."""
        self.plots.append((title, bars))

    def keep(self, directory):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if self.plots:
            (directory / f"{self.work}.svg").write_text(svg(self.plots))
            self.parts.insert(1, f"![CPU for each request]({self.work}.svg)\n")
        (directory / f"{self.work}.md").write_text("\n".join(self.parts))


def svg(plots):
    """Horizontal bars, a block for each plot; within a block all bars have one scale."""
    width, left, line, out, y = 760, 210, 22, [], 24
    for title, bars in plots:
        out.append(
            f'<text x="12" y="{y}" font-weight="bold">{escape(title)}: CPU µs per request</text>'
        )
        y += 10
        most = max(figure for _, figure, _ in bars)
        for name, figure, ours in bars:
            length = (width - left - 90) * figure / most
            out.append(
                f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="{line - 6}" '
                f'fill="{"#2b7a4b" if ours else "#9aa5b1"}"/>'
                f'<text x="{left + length + 6:.1f}" y="{y + 15}">{figure:.1f}</text>'
            )
            y += line
        y += 30
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y - 20}" viewBox="0 0 '
        f'{width} {y - 20}" '
        'font-family="sans-serif" font-size="13" fill="#222"><rect width="100%" height="100%" '
        'fill="#fff"/>'
        + "\n".join(out)
        + "</svg>\n"
    )
