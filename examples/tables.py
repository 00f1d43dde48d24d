# %% [markdown]
# # A table: learn what healthy is, and name what is not
#
# The cells `# %%` are those of a notebook: Jupyter, VS Code and PyCharm open this file as one. It
# takes some seconds: `python examples/tables.py`.
#
# The Wisconsin table of scikit-learn has thirty measures of cells. Benign ones are normal here,
# and malignant ones are only there to see what becomes of them.

# %%
from sklearn.datasets import load_breast_cancer

from historyad import HistoryAD
from historyad.judge.explain import feature_contributions

table = load_breast_cancer(as_frame=True).frame
is_malignant = table.pop("target") == 0
benign, malignant = table[~is_malignant], table[is_malignant]
train, fresh = benign[:260], benign[260:]

# %% [markdown]
# `instant` trains no network. Leave it out for the default, which takes a minute or two.

# %%
detector = HistoryAD(preset="instant", false_positive_rate=0.05).fit(train)
print(detector.model_)

# %% [markdown]
# One line for each row, called as in the table: the score, the p-value, the verdict, and what
# each view of the detector says (0 is typical, above 1 is rare).

# %%
frame = detector.score_frame(malignant)
print(frame.head())

# %% [markdown]
# How often is it right? Of benign rows, about one in twenty should be called anomalous: that was
# asked for.

# %%
false_alarms = detector.score_frame(fresh)["is_anomalous"].mean()
found = frame["is_anomalous"].mean()
print(f"false alarms {false_alarms:.1%}, found {found:.1%}")

# %% [markdown]
# Why is the most anomalous row anomalous? What each measure adds to it:

# %%
worst = malignant.loc[frame["anomaly_score"].idxmax()]
added = feature_contributions(detector.model_, worst.to_numpy("float32"))
for i in added.argsort()[::-1][:3]:
    print(f"{table.columns[i]}: adds {added[i]:.2f}, is {worst.iloc[i]:g}")
