"""What a data set is labelled for."""

from typing import Literal

Task = Literal["segmentation", "classification", "multilabel"]
