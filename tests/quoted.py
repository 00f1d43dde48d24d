"""Numbers that a page quotes from the output of a command, and that another machine has nearly."""

import re

# AUROC and shares, in the output of `evaluate`, `drift` and `probe`.
_RATE = re.compile(
    r"^(AUROC|AUPRC|false positives|anomalies found|share since|share before) {2,}([\d.]+)"
    r"|^([\w ]+?) {2,}not within the range: ([\d.]+)%",
    re.MULTILINE,
)


def rates(text):
    """Return the rates in what a terminal shows, by the name of their line."""
    return {
        match[1] or match[3]: float(match[2]) if match[1] else float(match[4]) / 100
        for match in _RATE.finditer(text)
    }


def assert_as_quoted(shown, output, tolerance):
    """Assert that the rates which a page shows are those of the output, within a tolerance."""
    found = rates(output)
    for name, value in rates(shown).items():
        assert name in found, (name, output)
        assert abs(found[name] - value) <= tolerance, (name, value, found[name])
