// Our own CUDA kernels. ../traits.rs says what they compute. launch.rs repeats their argument structs and fixes their
// launch dimensions; the kernels check neither. Sums are f32 whatever the element type is. nvcc includes primitives.cuh
// before this file; the tests compile it for the CPU with on_cpu.h instead.

typedef __nv_bfloat16 bf16;

constexpr int WARP = 32;
constexpr unsigned FULL_MASK = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;

__device__ inline float to_f32(float x) { return x; }
__device__ inline float to_f32(bf16 x) { return __bfloat162float(x); }

template <typename T> __device__ inline T from_f32(float x);
template <> __device__ inline float from_f32<float>(float x) { return x; }
template <> __device__ inline bf16 from_f32<bf16>(float x) { return __float2bfloat16_rn(x); }

// 16 bytes of neighbouring elements, loaded and stored by one instruction.
template <typename T> struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T at[SIZE];
};

template <typename T> __device__ inline Pack<T> load(const T *from) {
    return *reinterpret_cast<const Pack<T> *>(from);
}

template <typename T> __device__ inline void store(T *to, const Pack<T> &pack) {
    *reinterpret_cast<Pack<T> *>(to) = pack;
}

// Loads as many neighbouring f32 elements as a pack of T holds.
template <typename T> __device__ inline void load_f32(float (&to)[Pack<T>::SIZE], const float *from) {
    constexpr int FOUR = Pack<float>::SIZE;
#pragma unroll
    for (int i = 0; i < Pack<T>::SIZE; i += FOUR) {
        Pack<float> pack = load(from + i);
#pragma unroll
        for (int j = 0; j < FOUR; j++) to[i + j] = pack.at[j];
    }
}

__device__ inline float silu(float x) { return x / (1.f + expf(-x)); }

// The sum over a warp. Every lane gets it.
__device__ inline float warp_sum(float x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(FULL_MASK, x, offset);
    return x;
}

// The sum over a block of whole warps. Every thread gets it. `scratch` is shared memory, one element for each warp.
__device__ inline float block_sum(float x, float *scratch) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0.f;
    for (unsigned warp = 0; warp < blockDim.x / WARP; warp++) sum += scratch[warp];
    return sum;
}

// ---------------------------------------------------------------------------------------------------
// Pixels

struct Patches {
    const uint8_t *tiles; // (tiles, 3, side, side)
    const float *lut;     // 256 entries, by byte
    void *out;            // (tiles, grid * grid, 3 * patch * patch)
    int count;            // elements of `out`
    int side, grid, patch;
};

// One element of `out` per thread.
template <typename T> __device__ inline void patches(const Patches &a) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= static_cast<unsigned>(a.count)) return;
    unsigned area = a.patch * a.patch;
    unsigned within = i % (3 * area), patch = i / (3 * area);
    unsigned cell = patch % (a.grid * a.grid), tile = patch / (a.grid * a.grid);
    unsigned plane = within / area;
    unsigned row = cell / a.grid * a.patch + within % area / a.patch;
    unsigned column = cell % a.grid * a.patch + within % a.patch;
    uint8_t byte = a.tiles[(static_cast<long long>(tile * 3 + plane) * a.side + row) * a.side + column];
    static_cast<T *>(a.out)[i] = from_f32<T>(a.lut[byte]);
}

// ---------------------------------------------------------------------------------------------------
// Norms

struct Norm {
    const void *x, *add; // (rows, width); `add` may be null
    void *sum, *out;     // x + add, written only with `add`; the norm of that sum
    const float *weight, *shift; // (width); RMSNorm if `shift` is null, else LayerNorm
    int width;
    float eps;
};

constexpr int NORM_WIDTH = 4096; // at most
constexpr int NORM_THREADS = 128;

// One block per row. The sum is rounded to T before it is normed, as two separate operations would do.
template <typename T> __device__ inline void norm(const Norm &a) {
    constexpr int N = Pack<T>::SIZE;
    __shared__ float row[NORM_WIDTH];
    __shared__ float scratch[NORM_THREADS / WARP];
    long long first = static_cast<long long>(blockIdx.x) * a.width;
    const T *x = static_cast<const T *>(a.x) + first;
    const T *add = static_cast<const T *>(a.add);
    T *sum = static_cast<T *>(a.sum) + first;
    T *out = static_cast<T *>(a.out) + first;

    float total = 0.f, squares = 0.f;
    for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
        Pack<T> pack = load(x + i);
        if (add) {
            Pack<T> added = load(add + first + i);
            for (int j = 0; j < N; j++) pack.at[j] = from_f32<T>(to_f32(pack.at[j]) + to_f32(added.at[j]));
            store(sum + i, pack);
        }
        for (int j = 0; j < N; j++) {
            float value = to_f32(pack.at[j]);
            row[i + j] = value;
            total += value;
            squares += value * value;
        }
    }
    float mean = 0.f;
    if (a.shift) {
        mean = block_sum(total, scratch) / a.width;
        squares = 0.f;
        for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
            for (int j = 0; j < N; j++) squares += (row[i + j] - mean) * (row[i + j] - mean);
        }
    }
    float scale = rsqrtf(block_sum(squares, scratch) / a.width + a.eps);
    for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
        float weight[N], shift[N] = {};
        load_f32<T>(weight, a.weight + i);
        if (a.shift) load_f32<T>(shift, a.shift + i);
        Pack<T> pack;
        for (int j = 0; j < N; j++) pack.at[j] = from_f32<T>((row[i + j] - mean) * scale * weight[j] + shift[j]);
        store(out + i, pack);
    }
}

// ---------------------------------------------------------------------------------------------------
// SwiGLU

struct Swiglu {
    const void *gate_up; // (rows, 2 * width)
    void *out;           // (rows, width)
    int width;
};

// One block per row.
template <typename T> __device__ inline void swiglu(const Swiglu &a) {
    constexpr int N = Pack<T>::SIZE;
    const T *gate = static_cast<const T *>(a.gate_up) + static_cast<long long>(blockIdx.x) * 2 * a.width;
    T *out = static_cast<T *>(a.out) + static_cast<long long>(blockIdx.x) * a.width;
    for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
        Pack<T> g = load(gate + i), u = load(gate + a.width + i);
        for (int j = 0; j < N; j++) g.at[j] = from_f32<T>(silu(to_f32(g.at[j])) * to_f32(u.at[j]));
        store(out + i, g);
    }
}

// ---------------------------------------------------------------------------------------------------
// Rotary embedding, and the KV cache

struct Rotate {
    const void *qkv;       // (sequences, tokens, heads + 2 * key_heads, size)
    void *q;               // (sequences, tokens, heads, size)
    void *keys, *values;   // (sequences, key_heads, capacity, size)
    const void *cos, *sin; // (positions, size / 2)
    const int *starts;     // slot of the first real token of every sequence
    const int *len;        // slots in use; null: `first` instead
    int first, tokens, heads, key_heads, size, capacity, positions;
};

// One block per token. Rotates queries and keys, and stores keys and values in the cache.
template <typename T> __device__ inline void rotate(const Rotate &a) {
    int sequence = blockIdx.x / a.tokens, token = blockIdx.x % a.tokens;
    int slot = (a.len ? *a.len : a.first) + token;
    // Padding tokens and finished sequences that are still in the batch get a position within the table.
    int position = min(max(slot - a.starts[sequence], 0), a.positions - 1);
    int half = a.size / 2, all_heads = a.heads + 2 * a.key_heads;
    const T *in = static_cast<const T *>(a.qkv) + static_cast<long long>(blockIdx.x) * all_heads * a.size;
    const T *cos = static_cast<const T *>(a.cos) + static_cast<long long>(position) * half;
    const T *sin = static_cast<const T *>(a.sin) + static_cast<long long>(position) * half;
    for (int i = threadIdx.x; i < all_heads * half; i += blockDim.x) {
        int head = i / half, column = i % half;
        float x = to_f32(in[head * a.size + column]), y = to_f32(in[head * a.size + half + column]);
        T *out;
        if (head < a.heads) {
            out = static_cast<T *>(a.q) + (static_cast<long long>(blockIdx.x) * a.heads + head) * a.size;
        } else {
            bool is_key = head < a.heads + a.key_heads;
            int cache_head = (head - a.heads) % a.key_heads;
            T *cache = static_cast<T *>(is_key ? a.keys : a.values);
            out = cache + ((static_cast<long long>(sequence) * a.key_heads + cache_head) * a.capacity + slot) * a.size;
        }
        if (head < a.heads + a.key_heads) {
            float c = to_f32(cos[column]), s = to_f32(sin[column]);
            out[column] = from_f32<T>(x * c - y * s);
            out[half + column] = from_f32<T>(x * s + y * c);
        } else {
            out[column] = from_f32<T>(x);
            out[half + column] = from_f32<T>(y);
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Attention of many queries per sequence

// From one sequence, head and token to the next, in elements.
struct Strides {
    long long sequence, head, token;
};

struct Attention {
    const bf16 *q, *k, *v; // (sequences, heads or key heads, queries or keys, size)
    bf16 *out;             // (sequences, queries, heads, size)
    const int *starts;     // first key that a sequence attends to; null: every query attends to every key
    Strides q_strides, k_strides, v_strides;
    int heads, group; // `group` neighbouring heads share a key head
    int queries, keys;
    int first; // slot of the first query
    float scale;
};

constexpr int KEYS = 64; // per tile
constexpr int WARPS = 4; // per block

// FlashAttention-2 (Dao 2023). A block holds 64 or 128 queries of one head in registers: TILES tiles of 16 queries per
// warp. It iterates over tiles of keys while the next tile is being copied. Scores are never written to memory.
// Variables n8 and n16 count columns of a matrix in groups of 8 and 16.
template <int SIZE, int TILES> __device__ inline void attention(const Attention &a) {
    constexpr int QUERIES = WARPS * TILES * 16;
    constexpr int PADDED = (SIZE + 15) / 16 * 16;
    constexpr int CHUNKS = SIZE / 8;
    // Whether all threads copy equally many chunks of a tile. If not, the copies stay a loop: unrolled, they would take
    // more registers than there are.
    constexpr bool EVEN = KEYS * CHUNKS % (WARPS * WARP) == 0;
    // Eight elements of padding, so that the rows of a matrix lie in different banks.
    constexpr int STRIDE = PADDED + 8;
    alignas(16) __shared__ bf16 k_tiles[2][KEYS * STRIDE];
    alignas(16) __shared__ bf16 v_tiles[2][KEYS * STRIDE];

    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int group_row = lane / 4, pair = lane % 4 * 2;
    const int sequence = blockIdx.z, head = blockIdx.y, block_query = blockIdx.x * QUERIES;
    const int first_query = block_query + warp * TILES * 16 + group_row;
    const bf16 *q = a.q + sequence * a.q_strides.sequence + head * a.q_strides.head;
    const bf16 *k = a.k + sequence * a.k_strides.sequence + head / a.group * a.k_strides.head;
    const bf16 *v = a.v + sequence * a.v_strides.sequence + head / a.group * a.v_strides.head;
    const bool causal = a.starts != nullptr;
    const int start = causal ? a.starts[sequence] : 0;
    const int end = causal ? min(a.keys, a.first + block_query + QUERIES) : a.keys;

    if constexpr (PADDED > SIZE) {
        for (int i = threadIdx.x; i < KEYS * (PADDED - SIZE); i += blockDim.x) {
            int index = i / (PADDED - SIZE) * STRIDE + SIZE + i % (PADDED - SIZE);
            for (int stage = 0; stage < 2; stage++) {
                k_tiles[stage][index] = from_f32<bf16>(0.f);
                v_tiles[stage][index] = from_f32<bf16>(0.f);
            }
        }
    }

    uint32_t queries[TILES][PADDED / 16][4];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        for (int step = 0; step < PADDED / 16; step++) {
#pragma unroll
            for (int reg = 0; reg < 4; reg++) {
                int query = first_query + tile * 16 + reg % 2 * 8, column = step * 16 + pair + reg / 2 * 8;
                bool valid = query < a.queries && column < SIZE;
                const bf16 *from = q + query * a.q_strides.token + column;
                queries[tile][step][reg] = valid ? *reinterpret_cast<const uint32_t *>(from) : 0;
            }
        }
    }

    auto fetch = [&](int tile, int stage) {
#pragma unroll EVEN ? KEYS * CHUNKS / (WARPS * WARP) : 1
        for (int first = 0; first < KEYS * CHUNKS; first += WARPS * WARP) {
            int i = first + threadIdx.x;
            if (!EVEN && i >= KEYS * CHUNKS) break;
            int in_tile = i / CHUNKS, column = i % CHUNKS * 8;
            int key = tile * KEYS + in_tile;
            bool valid = key < a.keys;
            long long from = valid ? key : 0;
            cp_async(&k_tiles[stage][in_tile * STRIDE + column], k + from * a.k_strides.token + column, valid);
            cp_async(&v_tiles[stage][in_tile * STRIDE + column], v + from * a.v_strides.token + column, valid);
        }
        cp_async_commit();
    };

    float out[TILES][PADDED / 8][4] = {};
    float highest[TILES][2], total[TILES][2] = {};
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) highest[tile][0] = highest[tile][1] = -INFINITY;
    const float scale = a.scale * LOG2_E;

    const int tiles_end = (end + KEYS - 1) / KEYS;
    int key_tile = start / KEYS;
    if (key_tile < tiles_end) fetch(key_tile, 0);
    for (int stage = 0; key_tile < tiles_end; key_tile++, stage ^= 1) {
        if (key_tile + 1 < tiles_end) {
            fetch(key_tile + 1, stage ^ 1);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        __syncthreads();

        float scores[TILES][KEYS / 8][4] = {};
#pragma unroll
        for (int step = 0; step < PADDED / 16; step++) {
#pragma unroll
            for (int n16 = 0; n16 < KEYS / 16; n16++) {
                int matrix = lane / 8;
                int key = n16 * 16 + matrix / 2 * 8 + lane % 8, column = step * 16 + matrix % 2 * 8;
                uint32_t b[4];
                ldmatrix(b, &k_tiles[stage][key * STRIDE + column]);
#pragma unroll
                for (int tile = 0; tile < TILES; tile++) {
                    mma(scores[tile][n16 * 2], queries[tile][step], b[0], b[1]);
                    mma(scores[tile][n16 * 2 + 1], queries[tile][step], b[2], b[3]);
                }
            }
        }

        const int first_key = key_tile * KEYS;
        const bool masked = first_key + KEYS > a.keys ||
                            (causal && (first_key < start || first_key + KEYS - 1 > a.first + block_query));
        if (masked) {
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    // Visible keys of the tile, counted from this lane's first key.
                    int slot = a.first + first_query + tile * 16 + half * 8;
                    int visible_end = causal ? min(a.keys, slot + 1) : a.keys;
                    int low = start - first_key - pair, high = visible_end - first_key - pair;
#pragma unroll
                    for (int n8 = 0; n8 < KEYS / 8; n8++) {
#pragma unroll
                        for (int i = 0; i < 2; i++) {
                            int key = n8 * 8 + i;
                            if (key < low || key >= high) scores[tile][n8][half * 2 + i] = -INFINITY;
                        }
                    }
                }
            }
        }

#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float new_highest = highest[tile][half];
#pragma unroll
                for (int n8 = 0; n8 < KEYS / 8; n8++) {
                    new_highest = fmaxf(new_highest, fmaxf(scores[tile][n8][half * 2], scores[tile][n8][half * 2 + 1]));
                }
                new_highest = fmaxf(new_highest, __shfl_xor_sync(FULL_MASK, new_highest, 1));
                new_highest = fmaxf(new_highest, __shfl_xor_sync(FULL_MASK, new_highest, 2));
                // A query without visible keys so far has nothing to rescale.
                float base = new_highest == -INFINITY ? 0.f : new_highest * scale;
                float rescale = exp2_approx(highest[tile][half] * scale - base);
                highest[tile][half] = new_highest;
                float sum = 0.f;
#pragma unroll
                for (int n8 = 0; n8 < KEYS / 8; n8++) {
#pragma unroll
                    for (int i = half * 2; i < half * 2 + 2; i++) {
                        scores[tile][n8][i] = exp2_approx(scores[tile][n8][i] * scale - base);
                        sum += scores[tile][n8][i];
                    }
                }
                total[tile][half] = total[tile][half] * rescale + sum;
#pragma unroll
                for (int n8 = 0; n8 < PADDED / 8; n8++) {
                    out[tile][n8][half * 2] *= rescale;
                    out[tile][n8][half * 2 + 1] *= rescale;
                }
            }
        }

#pragma unroll
        for (int step = 0; step < KEYS / 16; step++) {
            uint32_t probabilities[TILES][4];
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
                for (int reg = 0; reg < 4; reg++) {
                    const float *values = &scores[tile][step * 2 + reg / 2][reg % 2 * 2];
                    probabilities[tile][reg] = bf16x2(values[0], values[1]);
                }
            }
#pragma unroll
            for (int n16 = 0; n16 < PADDED / 16; n16++) {
                int matrix = lane / 8;
                int key = step * 16 + matrix % 2 * 8 + lane % 8, column = n16 * 16 + matrix / 2 * 8;
                uint32_t b[4];
                ldmatrix_trans(b, &v_tiles[stage][key * STRIDE + column]);
#pragma unroll
                for (int tile = 0; tile < TILES; tile++) {
                    mma(out[tile][n16 * 2], probabilities[tile], b[0], b[1]);
                    mma(out[tile][n16 * 2 + 1], probabilities[tile], b[2], b[3]);
                }
            }
        }
        __syncthreads();
    }

#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[tile][half];
            sum += __shfl_xor_sync(FULL_MASK, sum, 1);
            sum += __shfl_xor_sync(FULL_MASK, sum, 2);
            float inverse = sum > 0.f ? 1.f / sum : 0.f;
            int query = first_query + tile * 16 + half * 8;
            if (query >= a.queries) continue;
            long long to = (static_cast<long long>(sequence) * a.queries + query) * a.heads + head;
#pragma unroll
            for (int n8 = 0; n8 < SIZE / 8; n8++) {
                const float *values = &out[tile][n8][half * 2];
                *reinterpret_cast<uint32_t *>(a.out + to * SIZE + n8 * 8 + pair) =
                    bf16x2(values[0] * inverse, values[1] * inverse);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Attention of one query per sequence, its keys split over blocks (as Flash-Decoding)

struct DecodeAttention {
    const void *q;             // (sequences, heads, size)
    const void *keys, *values; // (sequences, key heads, capacity, size)
    void *out;                 // (sequences, heads, size)
    const int *starts, *len;   // a sequence attends to the slots from its start to slot `len`
    float *partials;           // (sequences, heads, splits, size + 2): weighted sum, sum of weights, highest score
    unsigned *finished;        // (sequences, key heads): finished blocks; 0 before and after the launch
    int key_heads, capacity, splits;
    float scale;
};

constexpr int DECODE_THREADS = 128;
constexpr int DECODE_SPLITS = 660; // at most
constexpr int DECODE_AHEAD = 4;    // keys and values that a lane loads ahead

// A block computes one split of the slots for one sequence and one key head with its GROUP heads of SIZE elements. The
// LANES lanes of a subwarp share a key, so that neighbouring lanes load neighbouring elements. The last block of a
// sequence and key head combines the partial results of all splits.
template <typename T, int SIZE, int GROUP> __device__ inline void decode_attention(const DecodeAttention &a) {
    constexpr int N = Pack<T>::SIZE, LANES = SIZE / N, SUBWARPS = DECODE_THREADS / LANES;
    constexpr int WIDTH = SIZE + 2; // of a partial result
    __shared__ float sums[GROUP][DECODE_THREADS * N];
    __shared__ float maxima[GROUP][DECODE_THREADS], totals[GROUP][DECODE_THREADS], group_max[GROUP];
    // Rescaling factors of the subwarps, then of the splits.
    __shared__ float factors[GROUP * DECODE_SPLITS];
    __shared__ bool is_last;

    const int split = blockIdx.x, key_head = blockIdx.y, sequence = blockIdx.z;
    const int subwarp = threadIdx.x / LANES, first_column = threadIdx.x % LANES * N;
    const int start = a.starts[sequence], visible = *a.len + 1 - start;
    const int from = start + static_cast<int>(static_cast<long long>(visible) * split / a.splits);
    const int to = start + static_cast<int>(static_cast<long long>(visible) * (split + 1) / a.splits);
    const long long cache = (static_cast<long long>(sequence) * a.key_heads + key_head) * a.capacity;
    const T *keys = static_cast<const T *>(a.keys) + cache * SIZE + first_column;
    const T *values = static_cast<const T *>(a.values) + cache * SIZE + first_column;
    const int heads = a.key_heads * GROUP;
    const long long first_head = static_cast<long long>(sequence) * heads + key_head * GROUP;
    const T *q = static_cast<const T *>(a.q) + first_head * SIZE + first_column;
    const float scale = a.scale * LOG2_E;

    float query[GROUP][N], sum[GROUP][N] = {}, running_max[GROUP], total[GROUP] = {};
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
        running_max[g] = -INFINITY;
        Pack<T> pack = load(q + g * SIZE);
#pragma unroll
        for (int j = 0; j < N; j++) query[g][j] = to_f32(pack.at[j]) * scale;
    }
    // All lanes of a warp run the same iterations, because the shuffles need all of them.
    for (int first = from; first < to; first += DECODE_AHEAD * SUBWARPS) {
        Pack<T> k[DECODE_AHEAD], v[DECODE_AHEAD];
#pragma unroll
        for (int i = 0; i < DECODE_AHEAD; i++) {
            long long key = min(first + i * SUBWARPS + subwarp, to - 1);
            k[i] = load(keys + key * SIZE);
            v[i] = load(values + key * SIZE);
        }
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            float scores[DECODE_AHEAD] = {};
            float new_max = running_max[g];
#pragma unroll
            for (int i = 0; i < DECODE_AHEAD; i++) {
#pragma unroll
                for (int j = 0; j < N; j++) scores[i] += query[g][j] * to_f32(k[i].at[j]);
#pragma unroll
                for (int offset = LANES / 2; offset > 0; offset /= 2) {
                    scores[i] += __shfl_xor_sync(FULL_MASK, scores[i], offset);
                }
                if (first + i * SUBWARPS + subwarp >= to) scores[i] = -INFINITY;
                new_max = fmaxf(new_max, scores[i]);
            }
            // A subwarp without slots so far has nothing to rescale.
            float base = new_max == -INFINITY ? 0.f : new_max;
            float rescale = exp2_approx(running_max[g] - base);
            running_max[g] = new_max;
            total[g] *= rescale;
#pragma unroll
            for (int j = 0; j < N; j++) sum[g][j] *= rescale;
#pragma unroll
            for (int i = 0; i < DECODE_AHEAD; i++) {
                float weight = exp2_approx(scores[i] - base);
                total[g] += weight;
#pragma unroll
                for (int j = 0; j < N; j++) sum[g][j] += weight * to_f32(v[i].at[j]);
            }
        }
    }

#pragma unroll
    for (int g = 0; g < GROUP; g++) {
#pragma unroll
        for (int j = 0; j < N; j++) sums[g][subwarp * SIZE + first_column + j] = sum[g][j];
        if (first_column == 0) {
            maxima[g][subwarp] = running_max[g];
            totals[g][subwarp] = total[g];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < GROUP * SUBWARPS; i += blockDim.x) {
        const float *head_maxima = maxima[i / SUBWARPS];
        float new_max = -INFINITY;
        for (int j = 0; j < SUBWARPS; j++) new_max = fmaxf(new_max, head_maxima[j]);
        // A split without slots contributes nothing.
        factors[i] = new_max == -INFINITY ? 0.f : exp2_approx(head_maxima[i % SUBWARPS] - new_max);
        if (i % SUBWARPS == 0) group_max[i / SUBWARPS] = new_max;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < GROUP * WIDTH; i += blockDim.x) {
        int g = i / WIDTH, column = i % WIDTH;
        float combined = 0.f;
        for (int j = 0; j < SUBWARPS; j++) {
            combined += factors[g * SUBWARPS + j] * (column < SIZE ? sums[g][j * SIZE + column] : totals[g][j]);
        }
        float *partial = a.partials + ((first_head + g) * a.splits + split) * WIDTH;
        partial[column] = column <= SIZE ? combined : group_max[g];
    }

    // Makes the partial result visible to other blocks before the block counts as finished.
    __threadfence();
    __syncthreads();
    unsigned *finished = &a.finished[sequence * a.key_heads + key_head];
    if (threadIdx.x == 0) is_last = atomicAdd(finished, 1u) + 1 == static_cast<unsigned>(a.splits);
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    if (threadIdx.x == 0) *finished = 0;
    for (int i = threadIdx.x; i < GROUP * a.splits; i += blockDim.x) {
        const float *partial = a.partials + (first_head + i / a.splits) * a.splits * WIDTH;
        float new_max = -INFINITY;
        for (int j = 0; j < a.splits; j++) new_max = fmaxf(new_max, __ldcg(partial + j * WIDTH + SIZE + 1));
        factors[i] = exp2_approx(__ldcg(partial + i % a.splits * WIDTH + SIZE + 1) - new_max);
    }
    __syncthreads();
    T *out = static_cast<T *>(a.out) + first_head * SIZE;
    for (int i = threadIdx.x; i < GROUP * SIZE; i += blockDim.x) {
        int g = i / SIZE;
        const float *partial = a.partials + (first_head + g) * a.splits * WIDTH;
        float combined = 0.f, denominator = 0.f;
        for (int j = 0; j < a.splits; j++) {
            combined += factors[g * a.splits + j] * __ldcg(partial + j * WIDTH + i % SIZE);
            denominator += factors[g * a.splits + j] * __ldcg(partial + j * WIDTH + SIZE);
        }
        out[i] = from_f32<T>(combined / denominator);
    }
}

// ---------------------------------------------------------------------------------------------------
// A linear layer for a small batch (GEMV)

struct Gemv {
    const void *x;      // (rows, inputs)
    const float *norm;  // (inputs), RMSNorm's weight: the input is the norm of x; null: x itself
    const void *weight; // (outputs, inputs); for SwiGLU the gate rows, then as many up rows
    void *out;          // (rows, outputs)
    int inputs, outputs;
    float eps;
};

// What is done with a dot product.
enum Epilogue { KEEP, ADD, SWIGLU, LOGITS };

constexpr int GEMV_THREADS = 256;
constexpr int GEMV_AHEAD = 8; // packs of weights that a lane loads ahead

// One warp per output. Reading the weights takes most of the time; each is read once. An iteration covers as many
// inputs as the packs hold that a warp loads ahead.
template <typename T, Epilogue EPILOGUE, int ROWS> __device__ inline void gemv(const Gemv &a) {
    constexpr int N = Pack<T>::SIZE;
    constexpr int AHEAD = EPILOGUE == SWIGLU ? GEMV_AHEAD / 2 : GEMV_AHEAD, INPUTS = AHEAD * WARP * N;
    static_assert(INPUTS <= GEMV_THREADS * N, "a thread loads one pack of every row");
    alignas(16) __shared__ T x[ROWS][INPUTS];
    __shared__ float scales[ROWS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int output = blockIdx.x * (GEMV_THREADS / WARP) + warp;
    const T *in = static_cast<const T *>(a.x);
    // A warp beyond the last output computes that output again and does not store it.
    const long long first = static_cast<long long>(min(output, a.outputs - 1)) * a.inputs;
    const T *weight = static_cast<const T *>(a.weight) + first;
    const T *up = weight + static_cast<long long>(a.outputs) * a.inputs;

    Pack<T> w[AHEAD], u[AHEAD];
    auto fetch = [&](int from) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int column = from + (i * WARP + lane) * N;
            if (column < a.inputs) {
                w[i] = load(weight + column);
                if (EPILOGUE == SWIGLU) u[i] = load(up + column);
            }
        }
    };
    fetch(0);

    if (a.norm && warp < ROWS) {
        float squares = 0.f;
#pragma unroll 4
        for (int i = lane * N; i < a.inputs; i += WARP * N) {
            Pack<T> pack = load(in + warp * a.inputs + i);
            for (int j = 0; j < N; j++) squares += to_f32(pack.at[j]) * to_f32(pack.at[j]);
        }
        scales[warp] = rsqrtf(warp_sum(squares) / a.inputs + a.eps);
    }

    float sum[ROWS] = {}, up_sum[ROWS] = {};
    for (int from = 0; from < a.inputs; from += INPUTS) {
        int count = min(INPUTS, a.inputs - from);
        __syncthreads();
        if (int column = threadIdx.x * N; column < count) {
            float weights[N];
            if (a.norm) load_f32<T>(weights, a.norm + from + column);
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                Pack<T> pack = load(in + row * a.inputs + from + column);
                if (a.norm) {
                    // Rounded to T, as the norm kernel rounds its result.
                    for (int j = 0; j < N; j++) {
                        pack.at[j] = from_f32<T>(to_f32(pack.at[j]) * scales[row] * weights[j]);
                    }
                }
                store(&x[row][column], pack);
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int column = (i * WARP + lane) * N;
            if (column >= count) break;
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                Pack<T> v = load(&x[row][column]);
#pragma unroll
                for (int j = 0; j < N; j++) {
                    sum[row] += to_f32(w[i].at[j]) * to_f32(v.at[j]);
                    if (EPILOGUE == SWIGLU) up_sum[row] += to_f32(u[i].at[j]) * to_f32(v.at[j]);
                }
            }
        }
        fetch(from + INPUTS);
    }
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        float y = warp_sum(sum[row]);
        float z = EPILOGUE == SWIGLU ? warp_sum(up_sum[row]) : 0.f;
        if (lane != 0 || output >= a.outputs) continue;
        long long index = static_cast<long long>(row) * a.outputs + output;
        T *out = static_cast<T *>(a.out);
        if (EPILOGUE == KEEP) out[index] = from_f32<T>(y);
        if (EPILOGUE == ADD) out[index] = from_f32<T>(to_f32(out[index]) + to_f32(from_f32<T>(y)));
        if (EPILOGUE == SWIGLU) out[index] = from_f32<T>(silu(to_f32(from_f32<T>(y))) * to_f32(from_f32<T>(z)));
        if (EPILOGUE == LOGITS) static_cast<float *>(a.out)[index] = y;
    }
}

// ---------------------------------------------------------------------------------------------------
// Tokens

struct Embed {
    const void *table; // (vocab, width)
    const unsigned *ids;
    void *out; // (sequences, width)
    int vocab, width;
};

// One block per sequence.
template <typename T> __device__ inline void embed(const Embed &a) {
    constexpr int N = Pack<T>::SIZE;
    long long id = min(a.ids[blockIdx.x], static_cast<unsigned>(a.vocab - 1));
    const T *from = static_cast<const T *>(a.table) + id * a.width;
    T *to = static_cast<T *>(a.out) + static_cast<long long>(blockIdx.x) * a.width;
    for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) store(to + i, load(from + i));
}

struct Argmax {
    const float *scores; // (sequences, vocab)
    unsigned *ids;       // (sequences): the token with the highest score, the first of equal ones
    int *len;            // incremented by 1
    int vocab;
};

constexpr int ARGMAX_THREADS = 1024;
constexpr int ARGMAX_AHEAD = 4; // scores that a thread loads ahead

// One block per sequence.
__device__ inline void find_argmax(const Argmax &a) {
    __shared__ float bests[ARGMAX_THREADS / WARP];
    __shared__ unsigned ids[ARGMAX_THREADS / WARP];
    const float *scores = a.scores + static_cast<long long>(blockIdx.x) * a.vocab;
    float best = -INFINITY;
    unsigned id = 0;
    for (int i = threadIdx.x; i < a.vocab; i += ARGMAX_AHEAD * blockDim.x) {
        float candidates[ARGMAX_AHEAD];
#pragma unroll
        for (int j = 0; j < ARGMAX_AHEAD; j++) {
            int at = i + j * blockDim.x;
            candidates[j] = at < a.vocab ? scores[at] : -INFINITY;
        }
#pragma unroll
        for (int j = 0; j < ARGMAX_AHEAD; j++) {
            if (candidates[j] > best) {
                best = candidates[j];
                id = i + j * blockDim.x;
            }
        }
    }
    auto better = [&](float other, unsigned other_id) {
        if (other > best || (other == best && other_id < id)) {
            best = other;
            id = other_id;
        }
    };
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        float other = __shfl_xor_sync(FULL_MASK, best, offset);
        unsigned other_id = __shfl_xor_sync(FULL_MASK, id, offset);
        better(other, other_id);
    }
    if (threadIdx.x % WARP == 0) {
        bests[threadIdx.x / WARP] = best;
        ids[threadIdx.x / WARP] = id;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (unsigned warp = 1; warp < blockDim.x / WARP; warp++) better(bests[warp], ids[warp]);
    a.ids[blockIdx.x] = id;
    if (blockIdx.x == 0) *a.len += 1;
}

// ---------------------------------------------------------------------------------------------------
// Entry points; launch.rs names them

#ifndef KERNEL
#define KERNEL(NAME, THREADS, ARGS, ...) \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(const ARGS a) { __VA_ARGS__(a); }
#endif

#define BOTH_TYPES(NAME, THREADS, ARGS, CALL)       \
    KERNEL(NAME##_f32, THREADS, ARGS, CALL<float>) \
    KERNEL(NAME##_bf16, THREADS, ARGS, CALL<bf16>)

#define BOTH_TYPES_OF(NAME, THREADS, ARGS, CALL, ...)            \
    KERNEL(NAME##_f32, THREADS, ARGS, CALL<float, __VA_ARGS__>) \
    KERNEL(NAME##_bf16, THREADS, ARGS, CALL<bf16, __VA_ARGS__>)

BOTH_TYPES(patches, 256, Patches, patches)
BOTH_TYPES(norm, NORM_THREADS, Norm, norm)
BOTH_TYPES(swiglu, 128, Swiglu, swiglu)
BOTH_TYPES(rotate, 256, Rotate, rotate)
KERNEL(attention_64_1, WARPS *WARP, Attention, attention<64, 1>)
KERNEL(attention_64_2, WARPS *WARP, Attention, attention<64, 2>)
KERNEL(attention_72_1, WARPS *WARP, Attention, attention<72, 1>)
KERNEL(attention_72_2, WARPS *WARP, Attention, attention<72, 2>)
BOTH_TYPES_OF(decode_attention_32_1, DECODE_THREADS, DecodeAttention, decode_attention, 32, 1)
BOTH_TYPES_OF(decode_attention_32_2, DECODE_THREADS, DecodeAttention, decode_attention, 32, 2)
BOTH_TYPES_OF(decode_attention_32_3, DECODE_THREADS, DecodeAttention, decode_attention, 32, 3)
BOTH_TYPES_OF(decode_attention_32_4, DECODE_THREADS, DecodeAttention, decode_attention, 32, 4)
BOTH_TYPES_OF(decode_attention_64_1, DECODE_THREADS, DecodeAttention, decode_attention, 64, 1)
BOTH_TYPES_OF(decode_attention_64_2, DECODE_THREADS, DecodeAttention, decode_attention, 64, 2)
BOTH_TYPES_OF(decode_attention_64_3, DECODE_THREADS, DecodeAttention, decode_attention, 64, 3)
BOTH_TYPES_OF(decode_attention_64_4, DECODE_THREADS, DecodeAttention, decode_attention, 64, 4)
BOTH_TYPES_OF(gemv_keep_1, GEMV_THREADS, Gemv, gemv, KEEP, 1)
BOTH_TYPES_OF(gemv_keep_2, GEMV_THREADS, Gemv, gemv, KEEP, 2)
BOTH_TYPES_OF(gemv_keep_3, GEMV_THREADS, Gemv, gemv, KEEP, 3)
BOTH_TYPES_OF(gemv_keep_4, GEMV_THREADS, Gemv, gemv, KEEP, 4)
BOTH_TYPES_OF(gemv_add_1, GEMV_THREADS, Gemv, gemv, ADD, 1)
BOTH_TYPES_OF(gemv_add_2, GEMV_THREADS, Gemv, gemv, ADD, 2)
BOTH_TYPES_OF(gemv_add_3, GEMV_THREADS, Gemv, gemv, ADD, 3)
BOTH_TYPES_OF(gemv_add_4, GEMV_THREADS, Gemv, gemv, ADD, 4)
BOTH_TYPES_OF(gemv_swiglu_1, GEMV_THREADS, Gemv, gemv, SWIGLU, 1)
BOTH_TYPES_OF(gemv_swiglu_2, GEMV_THREADS, Gemv, gemv, SWIGLU, 2)
BOTH_TYPES_OF(gemv_swiglu_3, GEMV_THREADS, Gemv, gemv, SWIGLU, 3)
BOTH_TYPES_OF(gemv_swiglu_4, GEMV_THREADS, Gemv, gemv, SWIGLU, 4)
BOTH_TYPES_OF(gemv_logits_1, GEMV_THREADS, Gemv, gemv, LOGITS, 1)
BOTH_TYPES_OF(gemv_logits_2, GEMV_THREADS, Gemv, gemv, LOGITS, 2)
BOTH_TYPES_OF(gemv_logits_3, GEMV_THREADS, Gemv, gemv, LOGITS, 3)
BOTH_TYPES_OF(gemv_logits_4, GEMV_THREADS, Gemv, gemv, LOGITS, 4)
BOTH_TYPES(embed, 128, Embed, embed)
KERNEL(argmax, ARGMAX_THREADS, Argmax, find_argmax)
