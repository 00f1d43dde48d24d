"""Values on one scale: 0 is what is typical of normal samples, and 1 the end of their range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from historyad.constants import CONSTANTS


class Scale(nn.Module):
    """Standardisation of some rows of values by their median and a quantile on normal samples."""

    center: Tensor
    spread: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n))
        self.register_buffer("spread", torch.ones(n))

    def forward(self, values: Tensor) -> Tensor:
        """Map rows of values (n, N) to the scale."""
        return (values - self.center[:, None]) / self.spread[:, None]

    def fit(
        self,
        values: Tensor,
        *,
        squared: Sequence[bool] | None = None,
        smallest: Mapping[int, float] | None = None,
    ) -> None:
        """Set the scale by values (n, N) of normal samples: one in twenty is beyond 1.

        Of a row that counts ``squared``, one in a hundred at most is beyond 2: some kind of normal
        samples may be plainer than all others, as ones are among digits. ``smallest`` are the
        smallest spreads of some rows.
        """
        self.center.copy_(values.median(dim=1).values)
        spread, far = (
            quantile(values, q) - self.center for q in (CONSTANTS.view_range, CONSTANTS.view_far)
        )
        wide = torch.tensor(squared or [False] * len(values), device=values.device)
        spread = torch.where(wide, torch.maximum(spread, far / 2), spread)
        self.spread.copy_(spread.clamp(min=CONSTANTS.smallest_spread))
        for row, least in (smallest or {}).items():
            self.spread[row].clamp_(min=least)

    def fit_tail(self, values: Tensor) -> None:
        """Set the scale by values (n, N) of normal samples: one in a hundred is beyond 1."""
        self.center.copy_(values.median(dim=1).values)
        self.spread.copy_(
            (quantile(values, CONSTANTS.score_zero) - self.center).clamp(
                min=CONSTANTS.smallest_spread
            )
        )


def scales_of(module: nn.Module) -> dict[str, Tensor]:
    """Return center and spread of each `Scale` in ``module``, by their names in its state."""
    return {
        f"{name}.{buffer}": value
        for name, part in module.named_modules()
        if isinstance(part, Scale)
        for buffer, value in part.named_buffers()
    }


def quantile(values: Tensor, q: float) -> Tensor:
    """Return a quantile of each row, (n, N) to (n,), between two values if need be.

    As `torch.quantile`, which takes no more than 16 million values.
    """
    place = values.new_tensor(q) * (values.shape[1] - 1)
    low = int(place)
    below = values.kthvalue(low + 1, dim=1).values
    above = values.kthvalue(min(low + 1, values.shape[1] - 1) + 1, dim=1).values
    return torch.lerp(below, above, place - low)
