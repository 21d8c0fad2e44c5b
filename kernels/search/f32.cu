// Search among rows of f32: search.cuh.
#include "search/search.cuh"

VARIANTS(f32, FloatRow<f32>)
WIDE_VARIANTS(f32, FloatRow<f32>)
