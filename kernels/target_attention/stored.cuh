// Rows of any storage type, chosen at run time.
#pragma once
#include "shared/common.cuh"

// How rows are stored. Only loads and stores differ, so one kernel serves all types.
enum Storage : u32 {
    STORED_F32 = 0,
    STORED_F16 = 1,
    STORED_BF16 = 2
};

template <typename T>
__device__ __forceinline__ float load_as(const void *rows, u64 at) {
    return widen(((const T *)rows)[at]);
}

__device__ __forceinline__ float load_stored(u32 storage, const void *rows, u64 at) {
    if (storage == STORED_F32) return load_as<f32>(rows, at);
    return storage == STORED_F16 ? load_as<f16>(rows, at) : load_as<bf16>(rows, at);
}

// Four numbers, which are aligned as one access.
template <typename T>
__device__ __forceinline__ float4 load_four(const void *rows, u64 at) {
    const T *from = (const T *)rows + at;
    if constexpr (sizeof(T) == 4) {
        return *(const float4 *)from;
    } else {
        float out[4];
        uint2 pairs = *(const uint2 *)from;
        widen_pair<T>(pairs.x, out);
        widen_pair<T>(pairs.y, out + 2);
        return make_float4(out[0], out[1], out[2], out[3]);
    }
}
template <typename T>
__device__ __forceinline__ void store_four(void *rows, u64 at, const float *numbers) {
    T *to = (T *)rows + at;
    if constexpr (sizeof(T) == 4) *(float4 *)to = *(const float4 *)numbers;
    if constexpr (sizeof(T) == 2) {
        *(uint2 *)to = make_uint2(narrow_pair<T>(numbers[0], numbers[1]), narrow_pair<T>(numbers[2], numbers[3]));
    }
}

__device__ __forceinline__ void store_stored(u32 storage, void *rows, u64 at, float number) {
    if (storage == STORED_F32) return (void)(((f32 *)rows)[at] = number);
    if (storage == STORED_F16) return (void)(((f16 *)rows)[at] = narrow<f16>(number));
    ((bf16 *)rows)[at] = narrow<bf16>(number);
}

// Four numbers as they are stored.
__device__ __forceinline__ uint4 load_raw(u32 storage, const void *rows, u64 at) {
    if (storage == STORED_F32) return *(const uint4 *)((const f32 *)rows + at);
    uint2 pairs = *(const uint2 *)((const u16 *)rows + at);
    return make_uint4(pairs.x, pairs.y, 0, 0);
}
__device__ __forceinline__ void widen_raw(u32 storage, const uint4 &raw, float (&out)[4]) {
    if (storage == STORED_F32) {
        out[0] = __uint_as_float(raw.x), out[1] = __uint_as_float(raw.y);
        out[2] = __uint_as_float(raw.z), out[3] = __uint_as_float(raw.w);
    } else if (storage == STORED_F16) {
        widen_pair<f16>(raw.x, out), widen_pair<f16>(raw.y, out + 2);
    } else {
        widen_pair<bf16>(raw.x, out), widen_pair<bf16>(raw.y, out + 2);
    }
}
__device__ __forceinline__ void store_raw(u32 storage, void *rows, u64 at, const float (&numbers)[4]) {
    if (storage == STORED_F32) return store_four<f32>(rows, at, numbers);
    if (storage == STORED_F16) return store_four<f16>(rows, at, numbers);
    store_four<bf16>(rows, at, numbers);
}
