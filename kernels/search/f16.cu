// Search among rows of f16: search.cuh.
#include "search/search.cuh"

VARIANTS(f16, FloatRow<f16>)
WIDE_VARIANTS(f16, FloatRow<f16>)
