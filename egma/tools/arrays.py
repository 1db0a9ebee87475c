"""The one array type of figures and scores."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
