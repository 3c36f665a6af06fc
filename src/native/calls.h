// Functions of the library that others of it call, as Python does; each is explained where it is.
#pragma once

#include "griffin.h"

extern "C" {
using griffin::Index;
using griffin::bf16;
void griffin_norm(const void* x, int wide, const void* scale, int scale_wide, void* out,
                  float* root, Index rows, Index width, float eps, int offset, int threads);
void griffin_gate(const void* gate, int gate_wide, const void* x, int x_wide, void* out, int gelu,
                  Index count, int threads);
void griffin_linear_bf16(const void* x, const void* w, const void* bias, int bias_kind, void* y,
                         int kind, Index m, Index k, Index n, int threads);
void griffin_linear_fp32(const float* x, const float* w, const void* bias, int bias_kind, float* y,
                         Index m, Index k, Index n, int threads);
void griffin_linear_int8(const void* x, const int8_t* w, const float* scale, const int32_t* sums,
                         const void* bias, int bias_kind, void* y, int kind, Index m, Index k,
                         Index n, int threads);
void griffin_linear_int4(const void* x, const uint8_t* w, const void* scale, const void* bias,
                         int bias_kind, void* y, int kind, Index m, Index k, Index n, int threads);
void griffin_block_linear_bf16(const void* x, const void* w, const void* bias, void* y, Index m,
                               Index blocks, Index k, Index n, int threads);
void griffin_block_linear_fp32(const float* x, const float* w, const float* bias, float* y,
                               Index m, Index blocks, Index k, Index n, int threads);
void griffin_conv(const void* x, const void* past, const void* w, const void* bias, int wide,
                  const int64_t* position, void* out, Index batch, Index steps, Index width,
                  Index taps, int threads);
void griffin_rg_lru(const void* x, const void* r, const void* i, int wide, const float* rate,
                    const uint8_t* starts, const float* h0, float* hs, Index batch, Index steps,
                    Index width, int threads);
void griffin_ring_attention(const void* q, const void* k, const void* v, const void* ring_k,
                            const void* ring_v, int wide, const int64_t* read,
                            const int64_t* seen, void* out, Index batch, Index steps, Index heads,
                            Index kv_heads, Index width, Index slots, int threads);
void griffin_write_ring(void* ring, const void* fresh, const int64_t* read, const int64_t* count,
                        Index batch, Index steps, Index slots, Index bytes);
}
