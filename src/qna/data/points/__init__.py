"""Points in the plane with exact answers: convex hulls, Delaunay triangulations, shortest tours."""

from qna.data.points.geometry import area, convex_hull, from_lowest, is_simple, places_of
from qna.data.points.problems import NOTHING, PROBLEMS, PointBatch, PointProblem, padded, point_problem
from qna.data.points.tours import MOST_CITIES, shortest_tours, tour_lengths
from qna.data.points.triangulation import delaunay, incentres

__all__ = [
    "MOST_CITIES",
    "NOTHING",
    "PROBLEMS",
    "PointBatch",
    "PointProblem",
    "area",
    "convex_hull",
    "delaunay",
    "from_lowest",
    "incentres",
    "is_simple",
    "padded",
    "places_of",
    "point_problem",
    "shortest_tours",
    "tour_lengths",
]
