// Search among rows of packed signs: search.cuh.
#include "search/search.cuh"

VARIANTS(signs, SignRow)
