// The k largest of n floats by radix selection, one block: four rounds of a 256-bin histogram find the k-th largest, then
// the selected ones are written in order of position.
#include "device.cuh"

// Maps a float to bits whose unsigned order is that of the floats.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __builtin_bit_cast(u32, x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

extern "C" __global__ void __launch_bounds__(256) radix_select(u32 n, u32 k, const float *in, u32 *positions) {
    __shared__ u32 bins[256];
    __shared__ u32 chosen[2];  // the digit of the k-th largest, and how many are still to be selected in its bin
    __shared__ u32 of_warp[2][8];
    u32 t = threadIdx.x;
    u32 prefix = 0, mask = 0, wanted = k;
    for (int shift = 24; shift >= 0; shift -= 8) {
        bins[t] = 0;
        __syncthreads();
        for (u32 i = t; i < n; i += 256) {
            u32 key = ordered(in[i]);
            if ((key & mask) == prefix) atomicAdd(&bins[key >> shift & 255], 1u);
        }
        __syncthreads();
        if (t == 0) {
            u32 digit = 255, left = wanted;
            while (bins[digit] < left) left -= bins[digit--];
            chosen[0] = digit;
            chosen[1] = left;
        }
        __syncthreads();
        prefix |= chosen[0] << shift;
        mask |= 255u << shift;
        wanted = chosen[1];
        __syncthreads();
    }
    // Selects every key above the k-th, and the first `wanted` of those equal to it.
    u32 above_before = 0, equal_before = 0;
    for (u32 start = 0; start < n; start += 256) {
        u32 i = start + t;
        u32 key = i < n ? ordered(in[i]) : 0;
        bool above = i < n && key > prefix, equal = i < n && key == prefix;
        u32 above_votes = ballot(above), equal_votes = ballot(equal);
        u32 lower = (1u << t % 32) - 1;
        if (t % 32 == 0) {
            of_warp[0][t / 32] = __popc(above_votes);
            of_warp[1][t / 32] = __popc(equal_votes);
        }
        __syncthreads();
        u32 above_here = above_before + __popc(above_votes & lower), equal_here = equal_before + __popc(equal_votes & lower);
        for (u32 w = 0; w < 8; w++) {
            if (w < t / 32) {
                above_here += of_warp[0][w];
                equal_here += of_warp[1][w];
            }
            above_before += of_warp[0][w];
            equal_before += of_warp[1][w];
        }
        u32 ties = equal_here < wanted ? equal_here : wanted;
        if (above || (equal && equal_here < wanted)) positions[above_here + ties] = i;
        __syncthreads();
    }
}
