"""Networks, layers and ops as files that run elsewhere, for inputs of any size: ONNX, torch.export."""

from qna.export.onnx_file import export_onnx
from qna.export.program_file import export_program
from qna.export.shapes import IMAGES
from qna.export.trial import TOLERANCE, Exported

__all__ = ["IMAGES", "TOLERANCE", "Exported", "export_onnx", "export_program"]
