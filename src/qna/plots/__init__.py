"""Pictures, as PNG files, of plain arrays and dicts; the only place that knows matplotlib."""

from qna.plots.attention import plot_attention
from qna.plots.confusion import plot_confusion
from qna.plots.learning import plot_learning

__all__ = ["plot_attention", "plot_confusion", "plot_learning"]
