"""Pictures, as PNG and SVG files, of plain arrays and dicts; the only place that knows matplotlib."""

from qna.plots.attention import plot_attention
from qna.plots.bench import plot_bars, plot_dots, plot_lines, plot_points, plot_table
from qna.plots.boxes import DrawnBox, plot_boxes
from qna.plots.calibration import plot_calibration
from qna.plots.confusion import plot_confusion
from qna.plots.explanation import HeatMap, plot_explanation
from qna.plots.learning import plot_learning
from qna.plots.matrices import plot_matrices
from qna.plots.on_image import with_boxes, with_mask
from qna.plots.overlays import plot_overlays
from qna.plots.polygons import DrawnPolygon, plot_polygons
from qna.plots.robustness import plot_robustness
from qna.plots.tile_pattern import plot_tile_pattern

__all__ = [
    "DrawnBox",
    "DrawnPolygon",
    "HeatMap",
    "plot_attention",
    "plot_bars",
    "plot_boxes",
    "plot_calibration",
    "plot_confusion",
    "plot_dots",
    "plot_explanation",
    "plot_learning",
    "plot_lines",
    "plot_matrices",
    "plot_points",
    "plot_polygons",
    "plot_overlays",
    "plot_robustness",
    "plot_table",
    "plot_tile_pattern",
    "with_boxes",
    "with_mask",
]
