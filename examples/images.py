# %% [markdown]
# # Images: from good ones to verdicts, and a map of where it is
#
# The cells `# %%` are those of a notebook: Jupyter, VS Code and PyCharm open this file as one. It
# takes some seconds: `python examples/images.py`.
#
# Handwritten digits of 8 x 8 pixels come with scikit-learn. Those from 1 to 9 are normal; the
# zero has never been seen. For images of yours, write the name of their folder in place of
# `digits:...`.

# %%
import numpy as np
from PIL import Image

from historyad import HistoryAD, open_source
from historyad.judge.explain import picture

good = open_source("digits:train:!0")
fresh, zeros = open_source("digits:test:!0"), open_source("digits:test:0")
print(len(good), "images of", good.samples.shape[1:])

# %% [markdown]
# `instant` trains no network. Leave it out for the default, which takes some minutes, and finds
# more.

# %%
detector = HistoryAD(preset="instant", false_positive_rate=0.02).fit(good, verbose=True)
print(detector.model_)

# %% [markdown]
# A p-value is the share of normal images that look at least as odd. At 0.02 and below, the verdict
# is "anomalous": that rate of false alarms was asked for.

# %%
frame = detector.score_frame(zeros)
print(frame[["anomaly_score", "p_value", "is_anomalous"]].head())
print(f"found: {frame['is_anomalous'].mean():.0%} of the zeros")
print(f"false alarms: {detector.score_frame(fresh)['is_anomalous'].mean():.1%} of the others")

# %% [markdown]
# Where is it? The image, and beside it what raises its score, in orange.

# %%
worst = np.asarray(zeros.samples)[frame["anomaly_score"].to_numpy().argmax()]
drawn = Image.fromarray(picture(detector.model_, worst))
drawn.resize((20 * drawn.width, 20 * drawn.height), Image.Resampling.NEAREST).save("worst.png")

# %% [markdown]
# Keep it: two files, in which nothing can execute.

# %%
detector.save("digits-detector")
again = HistoryAD.load("digits-detector")
assert np.array_equal(again.anomaly_score(fresh), detector.anomaly_score(fresh))
