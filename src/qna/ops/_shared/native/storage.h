// How the numbers of a tensor are stored; what they are computed in is float or double.
#pragma once

namespace qna {

enum class Storage : int { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

}  // namespace qna
