// The model's arithmetic on a GPU, where candle's own passes over memory are too many. What is computed
// is said in ../ops.rs; who calls what with which numbers, in kernels.rs, whose structs are repeated here.
// Sums are f32 whatever the numbers are. Compiled with primitives.cuh before it, or on the CPU for the
// tests.

typedef __nv_bfloat16 bf16;

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;

__device__ inline float to_f32(float x) { return x; }
__device__ inline float to_f32(bf16 x) { return __bfloat162float(x); }

template <typename T> __device__ inline T from_f32(float x);
template <> __device__ inline float from_f32<float>(float x) { return x; }
template <> __device__ inline bf16 from_f32<bf16>(float x) { return __float2bfloat16_rn(x); }

// 16 bytes of neighbouring numbers, read and written at once.
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

// As many neighbouring f32 numbers as a pack of T holds.
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

// The sum over a warp, known to all its lanes.
__device__ inline float warp_sum(float x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(ALL, x, apart);
    return x;
}

// The sum over a block of whole warps, known to all its threads. `room`: a number for every warp.
__device__ inline float block_sum(float x, float *room) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0.f;
    for (unsigned warp = 0; warp < blockDim.x / WARP; warp++) sum += room[warp];
    return sum;
}

// ---------------------------------------------------------------------------------------------------
// Pixels

struct Patches {
    const uint8_t *tiles; // (tiles, 3, side, side)
    const float *levels;  // what each byte becomes
    void *out;            // (tiles, grid * grid, 3 * patch * patch)
    int count;            // numbers of `out`
    int side, grid, patch;
};

// One number a thread.
template <typename T> __device__ inline void patches(const Patches &a) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= static_cast<unsigned>(a.count)) return;
    unsigned area = a.patch * a.patch;
    unsigned within = i % (3 * area), patch = i / (3 * area);
    unsigned place = patch % (a.grid * a.grid), tile = patch / (a.grid * a.grid);
    unsigned plane = within / area;
    unsigned row = place / a.grid * a.patch + within % area / a.patch;
    unsigned column = place % a.grid * a.patch + within % a.patch;
    uint8_t byte = a.tiles[(static_cast<long long>(tile * 3 + plane) * a.side + row) * a.side + column];
    static_cast<T *>(a.out)[i] = from_f32<T>(a.levels[byte]);
}

// ---------------------------------------------------------------------------------------------------
// Norms

struct Norm {
    const void *x, *add; // (rows, width); nothing is added where `add` is null
    void *sum, *out;     // x + add, where `add` is there; the norm of it
    const float *weight, *shift; // LayerNorm where there is a shift, RMSNorm where not
    int width;
    float eps;
};

constexpr int NORM_WIDTH = 4096;
constexpr int NORM_THREADS = 128;

// One block a row. What is added is rounded before it is normed, as if it were an operation of its own.
template <typename T> __device__ inline void norm(const Norm &a) {
    constexpr int N = Pack<T>::SIZE;
    __shared__ float row[NORM_WIDTH];
    __shared__ float room[NORM_THREADS / WARP];
    long long first = static_cast<long long>(blockIdx.x) * a.width;
    const T *x = static_cast<const T *>(a.x) + first;
    const T *add = static_cast<const T *>(a.add);
    T *sum = static_cast<T *>(a.sum) + first;
    T *out = static_cast<T *>(a.out) + first;

    float total = 0.f, squares = 0.f;
    for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
        Pack<T> pack = load(x + i);
        if (add) {
            Pack<T> more = load(add + first + i);
            for (int j = 0; j < N; j++) pack.at[j] = from_f32<T>(to_f32(pack.at[j]) + to_f32(more.at[j]));
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
        mean = block_sum(total, room) / a.width;
        squares = 0.f;
        for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) {
            for (int j = 0; j < N; j++) squares += (row[i + j] - mean) * (row[i + j] - mean);
        }
    }
    float scale = rsqrtf(block_sum(squares, room) / a.width + a.eps);
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

// One block a row.
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
// Rotary positions, and the cache

struct Rotate {
    const void *qkv;       // (rows, tokens, heads + 2 * key_heads, size)
    void *q;               // (rows, tokens, heads, size)
    void *keys, *values;   // (rows, key_heads, capacity, size)
    const void *cos, *sin; // (positions, size / 2)
    const int *starts;     // slot of the first real token of every row
    const int *len;        // slots in use, or null: then `first`
    int first, tokens, heads, key_heads, size, capacity, positions;
};

// One block a token. Queries are rotated, keys rotated and put into the cache, values put there.
template <typename T> __device__ inline void rotate(const Rotate &a) {
    int row = blockIdx.x / a.tokens, token = blockIdx.x % a.tokens;
    int slot = (a.len ? *a.len : a.first) + token;
    // Padding, and a row that is done and has not left, has no position.
    int position = min(max(slot - a.starts[row], 0), a.positions - 1);
    int half = a.size / 2, all = a.heads + 2 * a.key_heads;
    const T *in = static_cast<const T *>(a.qkv) + static_cast<long long>(blockIdx.x) * all * a.size;
    const T *cos = static_cast<const T *>(a.cos) + static_cast<long long>(position) * half;
    const T *sin = static_cast<const T *>(a.sin) + static_cast<long long>(position) * half;
    for (int i = threadIdx.x; i < all * half; i += blockDim.x) {
        int head = i / half, at = i % half;
        float x = to_f32(in[head * a.size + at]), y = to_f32(in[head * a.size + half + at]);
        T *out;
        if (head < a.heads) {
            out = static_cast<T *>(a.q) + (static_cast<long long>(blockIdx.x) * a.heads + head) * a.size;
        } else {
            bool is_key = head < a.heads + a.key_heads;
            int of = (head - a.heads) % a.key_heads;
            T *cache = static_cast<T *>(is_key ? a.keys : a.values);
            out = cache + ((static_cast<long long>(row) * a.key_heads + of) * a.capacity + slot) * a.size;
        }
        if (head < a.heads + a.key_heads) {
            float c = to_f32(cos[at]), s = to_f32(sin[at]);
            out[at] = from_f32<T>(x * c - y * s);
            out[half + at] = from_f32<T>(x * s + y * c);
        } else {
            out[at] = from_f32<T>(x);
            out[half + at] = from_f32<T>(y);
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Attention of many queries

// Distances between rows, heads and tokens, in numbers.
struct Strides {
    long long row, head, token;
};

struct Attention {
    const bf16 *q, *k, *v; // (rows, heads or key heads, queries or keys, size)
    bf16 *out;             // (rows, queries, heads, size)
    const int *starts;     // first key that a row sees; null: every query sees every key
    Strides q_at, k_at, v_at;
    int heads, group; // neighbouring heads of a group share keys and values
    int queries, keys;
    int first; // slot of the first query
    float scale;
};

constexpr int KEYS = 64; // of a tile
constexpr int WARPS = 4; // of a block

// After FlashAttention-2 (Dao 2023): a block has 64 or 128 queries of one head in registers, TILES of 16 to
// a warp, and goes over the keys a tile at a time, the next tile on its way; scores are never written to
// memory.
template <int SIZE, int TILES> __device__ inline void attention(const Attention &a) {
    constexpr int QUERIES = WARPS * TILES * 16;
    constexpr int PADDED = (SIZE + 15) / 16 * 16;
    constexpr int CHUNKS = SIZE / 8;
    // Whether every thread copies as much of a tile. Where not, its copies stay a loop: unrolled, they would
    // take more registers than there are.
    constexpr bool EVEN = KEYS * CHUNKS % (WARPS * WARP) == 0;
    // Eight numbers more than a row holds, so that rows of a matrix lie in different banks.
    constexpr int STRIDE = PADDED + 8;
    alignas(16) __shared__ bf16 k_tiles[2][KEYS * STRIDE];
    alignas(16) __shared__ bf16 v_tiles[2][KEYS * STRIDE];

    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int group_row = lane / 4, pair = lane % 4 * 2;
    const int row = blockIdx.z, head = blockIdx.y, block = blockIdx.x * QUERIES;
    const int mine = block + warp * TILES * 16 + group_row;
    const bf16 *q = a.q + row * a.q_at.row + head * a.q_at.head;
    const bf16 *k = a.k + row * a.k_at.row + head / a.group * a.k_at.head;
    const bf16 *v = a.v + row * a.v_at.row + head / a.group * a.v_at.head;
    const bool causal = a.starts != nullptr;
    const int start = causal ? a.starts[row] : 0;
    const int end = causal ? min(a.keys, a.first + block + QUERIES) : a.keys;

    if constexpr (PADDED > SIZE) {
        for (int i = threadIdx.x; i < KEYS * (PADDED - SIZE); i += blockDim.x) {
            int at = i / (PADDED - SIZE) * STRIDE + SIZE + i % (PADDED - SIZE);
            for (int stage = 0; stage < 2; stage++) {
                k_tiles[stage][at] = from_f32<bf16>(0.f);
                v_tiles[stage][at] = from_f32<bf16>(0.f);
            }
        }
    }

    uint32_t queries[TILES][PADDED / 16][4];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        for (int step = 0; step < PADDED / 16; step++) {
#pragma unroll
            for (int part = 0; part < 4; part++) {
                int query = mine + tile * 16 + part % 2 * 8, at = step * 16 + pair + part / 2 * 8;
                bool there = query < a.queries && at < SIZE;
                const bf16 *from = q + query * a.q_at.token + at;
                queries[tile][step][part] = there ? *reinterpret_cast<const uint32_t *>(from) : 0;
            }
        }
    }

    auto fetch = [&](int tile, int stage) {
#pragma unroll EVEN ? KEYS * CHUNKS / (WARPS * WARP) : 1
        for (int first = 0; first < KEYS * CHUNKS; first += WARPS * WARP) {
            int i = first + threadIdx.x;
            if (!EVEN && i >= KEYS * CHUNKS) break;
            int in_tile = i / CHUNKS, at = i % CHUNKS * 8;
            int key = tile * KEYS + in_tile;
            bool there = key < a.keys;
            long long from = there ? key : 0;
            cp_async(&k_tiles[stage][in_tile * STRIDE + at], k + from * a.k_at.token + at, there);
            cp_async(&v_tiles[stage][in_tile * STRIDE + at], v + from * a.v_at.token + at, there);
        }
        cp_async_commit();
    };

    float out[TILES][PADDED / 8][4] = {};
    float highest[TILES][2], total[TILES][2] = {};
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) highest[tile][0] = highest[tile][1] = -INFINITY;
    const float scale = a.scale * LOG2_E;

    const int tiles_end = (end + KEYS - 1) / KEYS;
    int tile_of_keys = start / KEYS;
    if (tile_of_keys < tiles_end) fetch(tile_of_keys, 0);
    for (int stage = 0; tile_of_keys < tiles_end; tile_of_keys++, stage ^= 1) {
        if (tile_of_keys + 1 < tiles_end) {
            fetch(tile_of_keys + 1, stage ^ 1);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        __syncthreads();

        float scores[TILES][KEYS / 8][4] = {};
#pragma unroll
        for (int step = 0; step < PADDED / 16; step++) {
#pragma unroll
            for (int two = 0; two < KEYS / 16; two++) {
                int matrix = lane / 8;
                int key = two * 16 + matrix / 2 * 8 + lane % 8, at = step * 16 + matrix % 2 * 8;
                uint32_t b[4];
                ldmatrix(b, &k_tiles[stage][key * STRIDE + at]);
#pragma unroll
                for (int tile = 0; tile < TILES; tile++) {
                    mma(scores[tile][two * 2], queries[tile][step], b[0], b[1]);
                    mma(scores[tile][two * 2 + 1], queries[tile][step], b[2], b[3]);
                }
            }
        }

        const int first_key = tile_of_keys * KEYS;
        const bool masked = first_key + KEYS > a.keys ||
                            (causal && (first_key < start || first_key + KEYS - 1 > a.first + block));
        if (masked) {
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    // Of the tile's keys these are seen, counted from this lane's first.
                    int slot = a.first + mine + tile * 16 + half * 8;
                    int after = causal ? min(a.keys, slot + 1) : a.keys;
                    int low = start - first_key - pair, high = after - first_key - pair;
#pragma unroll
                    for (int eight = 0; eight < KEYS / 8; eight++) {
#pragma unroll
                        for (int i = 0; i < 2; i++) {
                            int key = eight * 8 + i;
                            if (key < low || key >= high) scores[tile][eight][half * 2 + i] = -INFINITY;
                        }
                    }
                }
            }
        }

#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float most = highest[tile][half];
#pragma unroll
                for (int eight = 0; eight < KEYS / 8; eight++) {
                    most = fmaxf(most, fmaxf(scores[tile][eight][half * 2], scores[tile][eight][half * 2 + 1]));
                }
                most = fmaxf(most, __shfl_xor_sync(ALL, most, 1));
                most = fmaxf(most, __shfl_xor_sync(ALL, most, 2));
                // A query that has seen nothing yet has nothing to keep.
                float base = most == -INFINITY ? 0.f : most * scale;
                float kept = exp2_approx(highest[tile][half] * scale - base);
                highest[tile][half] = most;
                float sum = 0.f;
#pragma unroll
                for (int eight = 0; eight < KEYS / 8; eight++) {
#pragma unroll
                    for (int i = half * 2; i < half * 2 + 2; i++) {
                        scores[tile][eight][i] = exp2_approx(scores[tile][eight][i] * scale - base);
                        sum += scores[tile][eight][i];
                    }
                }
                total[tile][half] = total[tile][half] * kept + sum;
#pragma unroll
                for (int eight = 0; eight < PADDED / 8; eight++) {
                    out[tile][eight][half * 2] *= kept;
                    out[tile][eight][half * 2 + 1] *= kept;
                }
            }
        }

#pragma unroll
        for (int step = 0; step < KEYS / 16; step++) {
            uint32_t shares[TILES][4];
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
                for (int part = 0; part < 4; part++) {
                    const float *two = &scores[tile][step * 2 + part / 2][part % 2 * 2];
                    shares[tile][part] = bf16x2(two[0], two[1]);
                }
            }
#pragma unroll
            for (int two = 0; two < PADDED / 16; two++) {
                int matrix = lane / 8;
                int key = step * 16 + matrix % 2 * 8 + lane % 8, at = two * 16 + matrix / 2 * 8;
                uint32_t b[4];
                ldmatrix_trans(b, &v_tiles[stage][key * STRIDE + at]);
#pragma unroll
                for (int tile = 0; tile < TILES; tile++) {
                    mma(out[tile][two * 2], shares[tile], b[0], b[1]);
                    mma(out[tile][two * 2 + 1], shares[tile], b[2], b[3]);
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
            sum += __shfl_xor_sync(ALL, sum, 1);
            sum += __shfl_xor_sync(ALL, sum, 2);
            float share = sum > 0.f ? 1.f / sum : 0.f;
            int query = mine + tile * 16 + half * 8;
            if (query >= a.queries) continue;
            long long to = (static_cast<long long>(row) * a.queries + query) * a.heads + head;
#pragma unroll
            for (int eight = 0; eight < SIZE / 8; eight++) {
                const float *two = &out[tile][eight][half * 2];
                *reinterpret_cast<uint32_t *>(a.out + to * SIZE + eight * 8 + pair) =
                    bf16x2(two[0] * share, two[1] * share);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Attention of one query a row, its keys split over blocks (as Flash-Decoding)

struct DecodeAttention {
    const void *q;             // (rows, heads, size)
    const void *keys, *values; // (rows, key heads, capacity, size)
    void *out;                 // (rows, heads, size)
    const int *starts, *len;   // a row sees the slots from its start up to the one at `len`
    float *parts;              // (rows, heads, splits, size + 2): weighted sum, total, highest score
    unsigned *done;            // (rows, key heads): blocks that are through; zeros before and after
    int key_heads, capacity, splits;
    float scale;
};

constexpr int DECODE_THREADS = 128;
constexpr int DECODE_SPLITS = 660; // at most
constexpr int DECODE_AHEAD = 4;    // keys and values of a lane on their way at a time

// A block has one row, one key head with its GROUP heads of SIZE numbers, and one part of the slots. A few
// lanes share a key, so that neighbouring lanes read neighbouring numbers. The last block of a row and key
// head puts the parts together.
template <typename T, int SIZE, int GROUP> __device__ inline void decode_attention(const DecodeAttention &a) {
    constexpr int N = Pack<T>::SIZE, LANES = SIZE / N, TEAMS = DECODE_THREADS / LANES;
    constexpr int WIDTH = SIZE + 2; // of a part
    __shared__ float sums[GROUP][DECODE_THREADS * N];
    __shared__ float tops[GROUP][DECODE_THREADS], totals[GROUP][DECODE_THREADS], highest[GROUP];
    // Of lanes that share a key, then of splits.
    __shared__ float shares[GROUP * DECODE_SPLITS];
    __shared__ bool last;

    const int split = blockIdx.x, key_head = blockIdx.y, row = blockIdx.z;
    const int team = threadIdx.x / LANES, at = threadIdx.x % LANES * N;
    const int start = a.starts[row], seen = *a.len + 1 - start;
    const int from = start + static_cast<int>(static_cast<long long>(seen) * split / a.splits);
    const int to = start + static_cast<int>(static_cast<long long>(seen) * (split + 1) / a.splits);
    const long long cache = (static_cast<long long>(row) * a.key_heads + key_head) * a.capacity;
    const T *keys = static_cast<const T *>(a.keys) + cache * SIZE + at;
    const T *values = static_cast<const T *>(a.values) + cache * SIZE + at;
    const int heads = a.key_heads * GROUP;
    const long long first_head = static_cast<long long>(row) * heads + key_head * GROUP;
    const T *q = static_cast<const T *>(a.q) + first_head * SIZE + at;
    const float scale = a.scale * LOG2_E;

    float query[GROUP][N], sum[GROUP][N] = {}, top[GROUP], total[GROUP] = {};
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
        top[g] = -INFINITY;
        Pack<T> pack = load(q + g * SIZE);
#pragma unroll
        for (int j = 0; j < N; j++) query[g][j] = to_f32(pack.at[j]) * scale;
    }
    // All lanes of a warp stay in step: the shuffles need them.
    for (int first = from; first < to; first += DECODE_AHEAD * TEAMS) {
        Pack<T> k[DECODE_AHEAD], v[DECODE_AHEAD];
#pragma unroll
        for (int i = 0; i < DECODE_AHEAD; i++) {
            long long key = min(first + i * TEAMS + team, to - 1);
            k[i] = load(keys + key * SIZE);
            v[i] = load(values + key * SIZE);
        }
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            float scores[DECODE_AHEAD] = {};
            float most = top[g];
#pragma unroll
            for (int i = 0; i < DECODE_AHEAD; i++) {
#pragma unroll
                for (int j = 0; j < N; j++) scores[i] += query[g][j] * to_f32(k[i].at[j]);
#pragma unroll
                for (int apart = LANES / 2; apart > 0; apart /= 2) {
                    scores[i] += __shfl_xor_sync(ALL, scores[i], apart);
                }
                if (first + i * TEAMS + team >= to) scores[i] = -INFINITY;
                most = fmaxf(most, scores[i]);
            }
            // A team that has seen nothing yet has nothing to keep.
            float base = most == -INFINITY ? 0.f : most;
            float kept = exp2_approx(top[g] - base);
            top[g] = most;
            total[g] *= kept;
#pragma unroll
            for (int j = 0; j < N; j++) sum[g][j] *= kept;
#pragma unroll
            for (int i = 0; i < DECODE_AHEAD; i++) {
                float share = exp2_approx(scores[i] - base);
                total[g] += share;
#pragma unroll
                for (int j = 0; j < N; j++) sum[g][j] += share * to_f32(v[i].at[j]);
            }
        }
    }

#pragma unroll
    for (int g = 0; g < GROUP; g++) {
#pragma unroll
        for (int j = 0; j < N; j++) sums[g][team * SIZE + at + j] = sum[g][j];
        if (at == 0) {
            tops[g][team] = top[g];
            totals[g][team] = total[g];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < GROUP * TEAMS; i += blockDim.x) {
        const float *of = tops[i / TEAMS];
        float most = -INFINITY;
        for (int j = 0; j < TEAMS; j++) most = fmaxf(most, of[j]);
        // A part without slots has nothing to give.
        shares[i] = most == -INFINITY ? 0.f : exp2_approx(of[i % TEAMS] - most);
        if (i % TEAMS == 0) highest[i / TEAMS] = most;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < GROUP * WIDTH; i += blockDim.x) {
        int g = i / WIDTH, column = i % WIDTH;
        float all = 0.f;
        for (int j = 0; j < TEAMS; j++) {
            all += shares[g * TEAMS + j] * (column < SIZE ? sums[g][j * SIZE + column] : totals[g][j]);
        }
        float *part = a.parts + ((first_head + g) * a.splits + split) * WIDTH;
        part[column] = column <= SIZE ? all : highest[g];
    }

    // Every part is in memory before its block counts as done.
    __threadfence();
    __syncthreads();
    unsigned *done = &a.done[row * a.key_heads + key_head];
    if (threadIdx.x == 0) last = atomicAdd(done, 1u) + 1 == static_cast<unsigned>(a.splits);
    __syncthreads();
    if (!last) return;
    __threadfence();
    if (threadIdx.x == 0) *done = 0;
    for (int i = threadIdx.x; i < GROUP * a.splits; i += blockDim.x) {
        const float *part = a.parts + (first_head + i / a.splits) * a.splits * WIDTH;
        float most = -INFINITY;
        for (int j = 0; j < a.splits; j++) most = fmaxf(most, __ldcg(part + j * WIDTH + SIZE + 1));
        shares[i] = exp2_approx(__ldcg(part + i % a.splits * WIDTH + SIZE + 1) - most);
    }
    __syncthreads();
    T *out = static_cast<T *>(a.out) + first_head * SIZE;
    for (int i = threadIdx.x; i < GROUP * SIZE; i += blockDim.x) {
        int g = i / SIZE;
        const float *part = a.parts + (first_head + g) * a.splits * WIDTH;
        float all = 0.f, of = 0.f;
        for (int j = 0; j < a.splits; j++) {
            all += shares[g * a.splits + j] * __ldcg(part + j * WIDTH + i % SIZE);
            of += shares[g * a.splits + j] * __ldcg(part + j * WIDTH + SIZE);
        }
        out[i] = from_f32<T>(all / of);
    }
}

// ---------------------------------------------------------------------------------------------------
// Few rows through a linear layer (GEMV)

struct Gemv {
    const void *x;      // (rows, inputs)
    const float *norm;  // RMSNorm's weight: the norm of x is what goes in; null: x itself
    const void *weight; // (outputs, inputs); of SwiGLU the gates, then the ups
    void *out;          // (rows, outputs)
    int inputs, outputs;
    float eps;
};

// What becomes of a sum.
enum Epilogue { KEEP, ADD, SWIGLU, SCORES };

constexpr int GEMV_THREADS = 256;
constexpr int GEMV_AHEAD = 8; // packs of weights of a lane on their way at a time

// A warp an output: bound by reading the weights, each of which is read once. Of the inputs as many are taken
// at a time as a warp's packs on their way hold.
template <typename T, Epilogue EPILOGUE, int ROWS> __device__ inline void gemv(const Gemv &a) {
    constexpr int N = Pack<T>::SIZE;
    constexpr int AHEAD = EPILOGUE == SWIGLU ? GEMV_AHEAD / 2 : GEMV_AHEAD, INPUTS = AHEAD * WARP * N;
    static_assert(INPUTS <= GEMV_THREADS * N, "a thread takes one pack of every row");
    alignas(16) __shared__ T x[ROWS][INPUTS];
    __shared__ float scales[ROWS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int output = blockIdx.x * (GEMV_THREADS / WARP) + warp;
    const T *in = static_cast<const T *>(a.x);
    // A warp too many does the last output again, and keeps it to itself.
    const long long first = static_cast<long long>(min(output, a.outputs - 1)) * a.inputs;
    const T *weight = static_cast<const T *>(a.weight) + first;
    const T *up = weight + static_cast<long long>(a.outputs) * a.inputs;

    Pack<T> w[AHEAD], u[AHEAD];
    auto fetch = [&](int from) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int at = from + (i * WARP + lane) * N;
            if (at < a.inputs) {
                w[i] = load(weight + at);
                if (EPILOGUE == SWIGLU) u[i] = load(up + at);
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

    float sum[ROWS] = {}, second[ROWS] = {};
    for (int from = 0; from < a.inputs; from += INPUTS) {
        int here = min(INPUTS, a.inputs - from);
        __syncthreads();
        if (int at = threadIdx.x * N; at < here) {
            float weights[N];
            if (a.norm) load_f32<T>(weights, a.norm + from + at);
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                Pack<T> pack = load(in + row * a.inputs + from + at);
                if (a.norm) {
                    // Rounded as the norm's own result would be.
                    for (int j = 0; j < N; j++) {
                        pack.at[j] = from_f32<T>(to_f32(pack.at[j]) * scales[row] * weights[j]);
                    }
                }
                store(&x[row][at], pack);
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int at = (i * WARP + lane) * N;
            if (at >= here) break;
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                Pack<T> v = load(&x[row][at]);
#pragma unroll
                for (int j = 0; j < N; j++) {
                    sum[row] += to_f32(w[i].at[j]) * to_f32(v.at[j]);
                    if (EPILOGUE == SWIGLU) second[row] += to_f32(u[i].at[j]) * to_f32(v.at[j]);
                }
            }
        }
        fetch(from + INPUTS);
    }
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        float y = warp_sum(sum[row]);
        float z = EPILOGUE == SWIGLU ? warp_sum(second[row]) : 0.f;
        if (lane != 0 || output >= a.outputs) continue;
        long long at = static_cast<long long>(row) * a.outputs + output;
        T *out = static_cast<T *>(a.out);
        if (EPILOGUE == KEEP) out[at] = from_f32<T>(y);
        if (EPILOGUE == ADD) out[at] = from_f32<T>(to_f32(out[at]) + to_f32(from_f32<T>(y)));
        if (EPILOGUE == SWIGLU) out[at] = from_f32<T>(silu(to_f32(from_f32<T>(y))) * to_f32(from_f32<T>(z)));
        if (EPILOGUE == SCORES) static_cast<float *>(a.out)[at] = y;
    }
}

// ---------------------------------------------------------------------------------------------------
// Tokens

struct Embed {
    const void *table; // (words, width)
    const unsigned *ids;
    void *out; // (rows, width)
    int words, width;
};

// One block a row.
template <typename T> __device__ inline void embed(const Embed &a) {
    constexpr int N = Pack<T>::SIZE;
    long long id = min(a.ids[blockIdx.x], static_cast<unsigned>(a.words - 1));
    const T *from = static_cast<const T *>(a.table) + id * a.width;
    T *to = static_cast<T *>(a.out) + static_cast<long long>(blockIdx.x) * a.width;
    for (int i = threadIdx.x * N; i < a.width; i += blockDim.x * N) store(to + i, load(from + i));
}

struct Argmax {
    const float *scores; // (rows, words)
    unsigned *ids;       // the likeliest of every row, the first of equals
    int *len;            // one more
    int words;
};

constexpr int ARGMAX_THREADS = 1024;
constexpr int ARGMAX_AT_ONCE = 4; // reads under way of a thread

// One block a row.
__device__ inline void find_argmax(const Argmax &a) {
    __shared__ float bests[ARGMAX_THREADS / WARP];
    __shared__ unsigned ids[ARGMAX_THREADS / WARP];
    const float *scores = a.scores + static_cast<long long>(blockIdx.x) * a.words;
    float best = -INFINITY;
    unsigned id = 0;
    for (int i = threadIdx.x; i < a.words; i += ARGMAX_AT_ONCE * blockDim.x) {
        float some[ARGMAX_AT_ONCE];
#pragma unroll
        for (int j = 0; j < ARGMAX_AT_ONCE; j++) {
            int at = i + j * blockDim.x;
            some[j] = at < a.words ? scores[at] : -INFINITY;
        }
#pragma unroll
        for (int j = 0; j < ARGMAX_AT_ONCE; j++) {
            if (some[j] > best) {
                best = some[j];
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
    for (int apart = WARP / 2; apart > 0; apart /= 2) {
        float other = __shfl_xor_sync(ALL, best, apart);
        unsigned other_id = __shfl_xor_sync(ALL, id, apart);
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
// What kernels.rs asks for by name

#ifndef KERNEL
#define KERNEL(NAME, THREADS, ARGS, ...) \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(const ARGS a) { __VA_ARGS__(a); }
#endif

#define BOTH(NAME, THREADS, ARGS, CALL)             \
    KERNEL(NAME##_f32, THREADS, ARGS, CALL<float>) \
    KERNEL(NAME##_bf16, THREADS, ARGS, CALL<bf16>)

#define BOTH_OF(NAME, THREADS, ARGS, CALL, ...)                  \
    KERNEL(NAME##_f32, THREADS, ARGS, CALL<float, __VA_ARGS__>) \
    KERNEL(NAME##_bf16, THREADS, ARGS, CALL<bf16, __VA_ARGS__>)

BOTH(patches, 256, Patches, patches)
BOTH(norm, NORM_THREADS, Norm, norm)
BOTH(swiglu, 128, Swiglu, swiglu)
BOTH(rotate, 256, Rotate, rotate)
KERNEL(attention_64_1, WARPS *WARP, Attention, attention<64, 1>)
KERNEL(attention_64_2, WARPS *WARP, Attention, attention<64, 2>)
KERNEL(attention_72_1, WARPS *WARP, Attention, attention<72, 1>)
KERNEL(attention_72_2, WARPS *WARP, Attention, attention<72, 2>)
BOTH_OF(decode_attention_32_1, DECODE_THREADS, DecodeAttention, decode_attention, 32, 1)
BOTH_OF(decode_attention_32_2, DECODE_THREADS, DecodeAttention, decode_attention, 32, 2)
BOTH_OF(decode_attention_32_3, DECODE_THREADS, DecodeAttention, decode_attention, 32, 3)
BOTH_OF(decode_attention_32_4, DECODE_THREADS, DecodeAttention, decode_attention, 32, 4)
BOTH_OF(decode_attention_64_1, DECODE_THREADS, DecodeAttention, decode_attention, 64, 1)
BOTH_OF(decode_attention_64_2, DECODE_THREADS, DecodeAttention, decode_attention, 64, 2)
BOTH_OF(decode_attention_64_3, DECODE_THREADS, DecodeAttention, decode_attention, 64, 3)
BOTH_OF(decode_attention_64_4, DECODE_THREADS, DecodeAttention, decode_attention, 64, 4)
BOTH_OF(gemv_keep_1, GEMV_THREADS, Gemv, gemv, KEEP, 1)
BOTH_OF(gemv_keep_2, GEMV_THREADS, Gemv, gemv, KEEP, 2)
BOTH_OF(gemv_keep_3, GEMV_THREADS, Gemv, gemv, KEEP, 3)
BOTH_OF(gemv_keep_4, GEMV_THREADS, Gemv, gemv, KEEP, 4)
BOTH_OF(gemv_add_1, GEMV_THREADS, Gemv, gemv, ADD, 1)
BOTH_OF(gemv_add_2, GEMV_THREADS, Gemv, gemv, ADD, 2)
BOTH_OF(gemv_add_3, GEMV_THREADS, Gemv, gemv, ADD, 3)
BOTH_OF(gemv_add_4, GEMV_THREADS, Gemv, gemv, ADD, 4)
BOTH_OF(gemv_swiglu_1, GEMV_THREADS, Gemv, gemv, SWIGLU, 1)
BOTH_OF(gemv_swiglu_2, GEMV_THREADS, Gemv, gemv, SWIGLU, 2)
BOTH_OF(gemv_swiglu_3, GEMV_THREADS, Gemv, gemv, SWIGLU, 3)
BOTH_OF(gemv_swiglu_4, GEMV_THREADS, Gemv, gemv, SWIGLU, 4)
BOTH_OF(gemv_scores_1, GEMV_THREADS, Gemv, gemv, SCORES, 1)
BOTH_OF(gemv_scores_2, GEMV_THREADS, Gemv, gemv, SCORES, 2)
BOTH_OF(gemv_scores_3, GEMV_THREADS, Gemv, gemv, SCORES, 3)
BOTH_OF(gemv_scores_4, GEMV_THREADS, Gemv, gemv, SCORES, 4)
BOTH(embed, 128, Embed, embed)
KERNEL(argmax, ARGMAX_THREADS, Argmax, find_argmax)
