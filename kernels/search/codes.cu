// Search among rows of 8-bit codes that are the values: search.cuh.
#include "search/search.cuh"

VARIANTS(codes, CodeRow)
