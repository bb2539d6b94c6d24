"""How good a network is on images that it has not seen."""

from qna.eval.boxes import BoxScores, BoxTally
from qna.eval.calibration import Calibration, ConfidenceBin
from qna.eval.classifier import Classifier, ImageView
from qna.eval.corruptions import CORRUPTIONS, Corruption
from qna.eval.detector import BoxFinder, find_boxes, judge_boxes
from qna.eval.found_boxes import BoxPrediction, FoundBox, predict_boxes
from qna.eval.found_masks import MaskPrediction, predict_masks
from qna.eval.judgement import (
    CLEAN,
    Condition,
    Failure,
    Judgement,
    Result,
    Speed,
    UnusableAnswers,
    judge,
    measure_speed,
)
from qna.eval.predictions import Guess, Prediction, find_images, predict
from qna.eval.regions import RegionScores, RegionTally
from qna.eval.scores import Scores, Tally, evaluate
from qna.eval.segmenter import Segmenter, full_size, judge_regions, segment
from qna.eval.shares import Shares, key_of

__all__ = [
    "BoxFinder",
    "BoxPrediction",
    "BoxScores",
    "BoxTally",
    "CLEAN",
    "CORRUPTIONS",
    "Calibration",
    "Classifier",
    "Condition",
    "ConfidenceBin",
    "Corruption",
    "Failure",
    "FoundBox",
    "Guess",
    "ImageView",
    "Judgement",
    "MaskPrediction",
    "Prediction",
    "RegionScores",
    "RegionTally",
    "Result",
    "Scores",
    "Segmenter",
    "Shares",
    "Speed",
    "Tally",
    "UnusableAnswers",
    "evaluate",
    "find_boxes",
    "find_images",
    "full_size",
    "judge",
    "judge_boxes",
    "judge_regions",
    "key_of",
    "measure_speed",
    "predict",
    "predict_boxes",
    "predict_masks",
    "segment",
]
