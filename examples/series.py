# %% [markdown]
# # A series: learn how a machine runs, and find when it does not
#
# The cells `# %%` are those of a notebook: Jupyter, VS Code and PyCharm open this file as one. It
# takes some seconds: `python examples/series.py`.
#
# A pump is read every minute: its flow, its pressure, its temperature. A week in which nothing
# happened is learnt from. On the day that follows, a valve sticks from 10:00 to 10:30, and a
# bearing rubs from 17:20 to 18:20, which shakes the pressure a little.

# %%
import numpy as np
import pandas
from PIL import Image, ImageDraw

from historyad import HistoryAD

random = np.random.default_rng(0)
times = pandas.date_range("2026-01-01", periods=8 * 24 * 60, freq="min")
turn = 2 * np.pi * np.arange(len(times)) / 45
log = pandas.DataFrame(
    {
        "flow": 30 + 5 * np.sin(turn) + random.normal(0, 0.5, len(times)),
        "pressure": 4 + 0.3 * np.cos(turn) + random.normal(0, 0.05, len(times)),
        "heat": 60 + random.normal(0, 0.3, len(times)),
    },
    index=times,
)
week, day = log[: 7 * 24 * 60], log[7 * 24 * 60 :].copy()
day.iloc[600:630, 0] = day.iloc[599, 0]
day.iloc[1040:1100, 1] += 0.2 * np.sin(np.arange(60) * 1.2)

# %% [markdown]
# What is judged is a *window*, a stretch of some steps. How long it is follows from the period of
# the series, unless you say so.

# %%
detector = HistoryAD(window="auto").fit(week)
print(detector.model_)

# %% [markdown]
# One line for each step: the score, the p-value, the verdict, and what each view of the detector
# says (0 is typical, above 1 is rare): its level, its shape, its spectrum.

# %%
frame = detector.score_frame(day)
print(frame.iloc[[0, 615]].round(2).T)

# %% [markdown]
# When was something wrong? Anomalous steps that are less than a window apart make one interval.

# %%
found = detector.intervals(day)
for interval in found:
    print(f"{day.index[interval.start]} to {day.index[interval.end]}: {interval.p_value:.4f}")

# %% [markdown]
# A picture: each channel in black, and what is anomalous behind it.

# %%
WIDTH, HEIGHT = len(day) // 2, 120
picture = Image.new("RGB", (WIDTH, 3 * HEIGHT), "white")
draw = ImageDraw.Draw(picture)
for interval in found:
    draw.rectangle([interval.start / 2, 0, interval.end / 2, 3 * HEIGHT], "#ffd9a0")
for place, name in enumerate(day.columns):
    values = day[name].to_numpy()
    low, high = values.min(), values.max()
    y = HEIGHT * (place + 0.9 - 0.8 * (values - low) / (high - low))
    draw.line(list(zip(np.arange(len(y)) / 2, y.tolist(), strict=True)), "black")
picture.save("pump.png")

# %% [markdown]
# A gap in the log, or rows that are not sorted, would be refused: a window over them would be no
# stretch of time.

# %%
try:
    detector.score_frame(day.drop(day.index[300:400]))
except ValueError as error:
    print(f"refused: {error}")
