// Search among rows of bf16: search.cuh.
#include "search/search.cuh"

VARIANTS(bf16, FloatRow<bf16>)
WIDE_VARIANTS(bf16, FloatRow<bf16>)
