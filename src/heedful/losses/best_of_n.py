"""How far choosing the best of n moves a policy."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def best_of_n_kl(n: ArrayLike, rounds: int = 1) -> NDArray[np.float64]:
    """KL of the best of n from the policy it is drawn from: ln N − (N − 1)/N nats, N = n, n at least 1.

    With `rounds` the best of n of the best of n of …, which is the best of N = nʳᵒᵘⁿᵈˢ; with 0 the policy itself. Exact
    where no two scores are equal; where some are, an upper bound (Beirami et al. 2024, arXiv 2401.01879).

    >>> best_of_n_kl([1, 4, 64]).round(4).tolist()
    [0.0, 0.6363, 3.1745]
    >>> best_of_n_kl(8, rounds=2).round(4).tolist()
    3.1745
    """
    n = np.asarray(n, dtype=np.float64)
    return np.asarray(rounds * np.log(n) - 1 + n ** -float(rounds))
