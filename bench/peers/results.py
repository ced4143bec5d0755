"""Results: medians, ratios and the page that tells them.

It must not know how anything was measured.
"""

import statistics


def median(values):
    """Returns the median; `None` of nothing."""
    return statistics.median(values) if values else None


def number(value):
    """Returns a number with three digits that count, and commas between thousands."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def with_spread(values):
    """Returns the median with the lowest and the highest of several values."""
    if len(set(values)) < 2:
        return number(median(values))
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def table(head, rows):
    """Returns a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def ratios(bar, found):
    """Returns the ratio of the medians, and the ratio of each round; `found` has figures by run, then round."""
    def of_medians(label, name):
        value = median([figures[name] for figures in found[label]])
        if value is None:
            raise KeyError(label)
        return value
    try:
        whole = bar.ratio(of_medians)
        rounds = min(len(found[label]) for label in found if found[label])
        each = [bar.ratio(lambda label, name, at=at: found[label][at][name]) for at in range(rounds)]
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None, []
    return whole, each


def is_met(bar, ratio):
    """Returns whether a ratio is what it has to be."""
    return ratio >= bar.limit if bar.is_least else ratio <= bar.limit


def verdict(bar, ratio, each):
    """Returns whether a bar is met, in a word, and whether some round says otherwise."""
    if ratio is None:
        return "not measured"
    word = "met" if is_met(bar, ratio) else "**missed**"
    return word if all(is_met(bar, one) == is_met(bar, ratio) for one in each) else f"{word}, but not by every round"


def alike(scenario, bar, found):
    """Returns the ratios of runs with equal numbers of threads, as texts; empty where a server has no such run."""
    wholes = [ratios(bar, {label: found[label] for label in labels})[0] for labels in scenario.variants.values()]
    return ["" if whole is None else f"{whole:.3f}" for whole in wholes]


def bar_table(scenario, found):
    """Returns the heads of the table of the bars, and a row for each."""
    # Figures of an earlier run may have names that this one does not.
    found = {label: found[label] for label in scenario.runs}
    rows = []
    for bar in scenario.bars:
        whole, each = ratios(bar, found)
        spread = f"{min(each):.3f} to {max(each):.3f}" if len(each) > 1 else ""
        sign = "at least" if bar.is_least else "at most"
        ratio = "–" if whole is None else f"{whole:.3f}"
        rows.append([bar.text, ratio, spread, *alike(scenario, bar, found), f"{sign} {bar.limit:g}",
                     verdict(bar, whole, each)])
    heads = [f"{count} thread{'s' * (count > 1)} each" for count in scenario.variants]
    return ["bar", "ratio", "rounds", *heads, "wanted", ""], rows


def measured_by(origins):
    """Returns a sentence about the commands that measured something; one may have been given several times."""
    told = [f"`{origin['command']}` ({origin['commit']}, {origin['date']})" for origin in origins]
    times = {text: told.count(text) for text in told}
    return f"Measured by {', '.join(text if count == 1 else f'{count} × {text}' for text, count in times.items())}."


def section(scenario, found, bars, failures, origins, lacks):
    """Returns what one scenario came to; `bars` is their table, `origins` are the commands that measured it, with commit and date."""
    heads = [heading for heading, _ in scenario.figures]
    rows = []
    for label in scenario.runs:
        values = [with_spread([figures[name] for figures in found[label]]) for _, name in scenario.figures]
        if not found[label]:
            values = ["failed"] * len(heads)
        base = next((text for name, text in lacks.items() if label.startswith(name)), "")
        rows.append([label, *values, scenario.lacks.get(label, base)])
    parts = [f"## {scenario.title}", scenario.how, table(["", *heads, "what it does not do"], rows),
             table(*bars), measured_by(origins)]
    if failures:
        parts.append("\n".join(f"- {label}: {why}" for label, why in failures))
    return "\n\n".join(parts)


def page(machine, versions, rounds, sections, short):
    """Returns the whole page; `rounds` are the numbers of rounds that there were, `short` says which bars are not met."""
    count = "no" if not rounds else f"{min(rounds)} to {max(rounds)}" if len(rounds) > 1 else str(max(rounds))
    outcome = "Not met: " + "; ".join(short) + "." if short else "Every bar is met."
    return "\n\n".join([
        "# Tidemill beside its peers",
        "Written by `bench/peers/run`; `bench/README.md` tells how to repeat it, with which configuration each "
        "server runs, and what the figures mean. "
        f"Medians of {count} round{'s' if count != '1' else ''}, lowest and highest in brackets; in each round the "
        "servers come in turn, each started anew. Ratios are those of the medians; of a server that was measured with "
        "one thread and with two the better counts, and the ratios of equal numbers stand beside.",
        outcome,
        table(["machine", ""], machine),
        table(["server", "version"], versions),
        *sections,
    ]) + "\n"
