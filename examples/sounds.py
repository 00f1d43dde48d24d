# %% [markdown]
# # Sounds: learn how a fan hums, and hear which one scrapes
#
# The cells `# %%` are those of a notebook: Jupyter, VS Code and PyCharm open this file as one. It
# takes half a minute, and writes into the folder `fan`: `python examples/sounds.py`. It needs the
# extra `sound`: `pip install 'historyad[sound]'`.

# %%
from pathlib import Path

import numpy as np
import soundfile

from historyad import HistoryAD

RATE = 16_000
random = np.random.default_rng(0)


def record(folder: str, n: int, *, scrapes: bool = False) -> None:
    """Write recordings of a fan: hum and air; one that scrapes chirps four times a second."""
    Path(folder).mkdir(parents=True)
    for i in range(n):
        t = np.arange(int(random.uniform(0.5, 1) * RATE)) / RATE
        sound = 0.1 * np.sin(2 * np.pi * random.uniform(110, 120) * t)
        sound += 0.02 * random.standard_normal(len(t))
        if scrapes:
            sound += 0.05 * np.sin(2 * np.pi * 3000 * t) * (np.sin(2 * np.pi * 4 * t) > 0.8)
        soundfile.write(f"{folder}/{i:03}.wav", sound, RATE)


record("fan/good", 120)
record("fan/fresh", 30)
record("fan/scraping", 10, scrapes=True)

# %% [markdown]
# A folder of `.wav` is a source as a folder of images is. `instant` trains no network.

# %%
detector = HistoryAD(preset="instant", false_positive_rate=0.05).fit("fan/good")
fresh, scraping = (detector.score_frame(f"fan/{name}") for name in ("fresh", "scraping"))
print(scraping.iloc[:3, :3])
print(f"false alarms {fresh['is_anomalous'].mean():.1%}")
print(f"found {scraping['is_anomalous'].mean():.1%}")

# %% [markdown]
# What gave it away? Each view says how rare a recording is, 1 being the end of the normal range;
# `spectrum` compares how loud each frequency is over all of the time.

# %%
print(scraping.iloc[:, 3:].median().round(1).sort_values(ascending=False))
