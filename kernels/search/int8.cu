// Search among rows of 8-bit codes with a scale and an offset each, and among rows of more codes than are added up in 32 bits:
// search.cuh.
#include "search/search.cuh"

VARIANTS(int8, FloatRow<i8>)
WIDE_VARIANTS(int8, FloatRow<i8>)
