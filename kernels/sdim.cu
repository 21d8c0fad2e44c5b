// SDIM.
#include "common.cuh"

struct AddParams {
    float *table;
    const float *other;
    u64 length;
};

// table += other, one number a thread.
extern "C" __global__ void __launch_bounds__(256) sdim_add(const AddParams p) {
    u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
    if (i < p.length) {
        p.table[i] += p.other[i];
    }
}
