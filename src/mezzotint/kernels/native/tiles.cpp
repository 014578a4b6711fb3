// Attention over listed tiles of keys, and attention mass per pair of tiles, in fp32 on a CPU.
//
// The scheme is FlashAttention's (arXiv 2205.14135): a running maximum and sum per row, so that only one tile of scores exists at a time. Everything is laid
// out with query rows along the vector registers: a panel is ROWS rows, scores are (key, row), the mixture is (feature, row). So maxima, sums and rescaling
// are plain vector operations, and both products are one small kernel: out[m][row] += a[m] * b[row], with M numbers of `a` broadcast against a panel of `b`.
// Keys and values are packed once per call, tile by tile, in the order in which that kernel reads them; what may not be seen is left out there.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, VECTORS = 2;
#elif defined(__AVX__)
constexpr int LANES = 8, VECTORS = 2;
#else
constexpr int LANES = 4, VECTORS = 4;
#endif
constexpr int ROWS = LANES * VECTORS;
constexpr int MOST = 6;  // numbers broadcast at once; with ROWS rows, the accumulators fill the registers
constexpr float LOWEST = -3.0e38f;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

static inline Floats load(const float* from) {
    Floats x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

static inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }

static inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// 2^x for x <= 0, relative error below 2e-7; 2^-100 for anything smaller.
static inline Floats power(Floats x) {
    const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves the integer part in the lowest bits
    x = larger(x, Floats{} - 100.0f);
    const Floats shifted = x + round;
    const Floats f = x - (shifted - round);
    Floats p = f * 1.3398874e-3f + 9.6184373e-3f;
    p = p * f + 5.5503324e-2f;
    p = p * f + 2.4022648e-1f;
    p = p * f + 6.9314720e-1f;
    p = p * f + 1.0f;
    return (Floats)((Ints)p + ((Ints)shifted << 23));
}

// How many numbers of `a` the kernel takes next when `left` are left: sixes, and fours where the end asks for them.
static inline int part(int left) { return left % 6 == 0 || left > 8 || left == 5 ? 6 : 4; }

static inline int padded(int count) {
    int sum = 0;
    while (sum < count) sum += part(count - sum);
    return sum;
}

// out[m][row] (+)= sum over k of a[k][m] * b[k][row]; raises `highest` to the maximum over m where it starts from zero.
template <int M, bool ONTO>
static inline void multiply(const float* __restrict a, const float* __restrict b, int depth, float* __restrict out, Floats* highest) {
    Floats sum[M][VECTORS];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) sum[m][v] = ONTO ? load(out + m * ROWS + v * LANES) : Floats{};
#pragma GCC unroll 2
    for (int k = 0; k < depth; k++) {
        Floats row[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) row[v] = load(b + k * ROWS + v * LANES);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[m][v] += a[k * M + m] * row[v];
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            store(out + m * ROWS + v * LANES, sum[m][v]);
            if (!ONTO) highest[v] = larger(highest[v], sum[m][v]);
        }
}

template <bool ONTO>
static inline void multiply_all(const float* a, const float* b, int depth, int count, float* out, Floats* highest) {
    for (int done = 0; done < count;) {
        const int m = part(count - done);
        if (m == 6)
            multiply<6, ONTO>(a + done * depth, b, depth, out + done * ROWS, highest);
        else
            multiply<4, ONTO>(a + done * depth, b, depth, out + done * ROWS, highest);
        done += m;
    }
}

struct Task {
    int64_t batch, heads, kv, columns, dim, row_tiles, key_tiles, size, lists, most, first, threads;
    int64_t q_strides[3], k_strides[3], v_strides[3], out_strides[3];  // batch, head, position
    const float *q, *k, *v;
    const int32_t *row_starts, *key_starts;
    const uint8_t* valid;  // (batch, columns), null if everything is
    const int32_t *index, *count;  // (batch, lists, row_tiles, most), (batch, lists, row_tiles); null for all tiles
    float factor;  // of the scores
    float *out, *lse;  // lse: (batch, heads, rows), the log-sum-exp of a row's scores; null if nobody asks
    float *total, *within;  // (batch, heads, row_tiles, key_tiles), (batch, heads, row_tiles, key_tiles - first)
};

struct Aligned {
    std::unique_ptr<float[]> all;
    float* at;
    explicit Aligned(int64_t count) : all(new float[count + 16]), at((float*)(((uintptr_t)all.get() + 63) & ~(uintptr_t)63)) {}
};

// Lets one worker per thread, each with its own scratch memory, take items until none is left. This thread works too; fewer threads than asked for will do.
template <typename Worker>
static void divide(int64_t items, std::vector<Worker>& workers) {
    std::atomic<int64_t> next{0};
    auto run = [&](Worker& worker) {
        for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) worker(item);
    };
    std::vector<std::thread> others;
    others.reserve(workers.size());
    try {
        for (size_t n = 1; n < workers.size(); n++) others.emplace_back(run, std::ref(workers[n]));
    } catch (const std::system_error&) {
    }
    run(workers[0]);
    for (auto& other : others) other.join();
}

template <typename Worker, typename... Given>
static std::vector<Worker> workers(const Task& t, int64_t items, Given&... given) {
    std::vector<Worker> made;
    for (int64_t n = 0; n < std::max<int64_t>(1, std::min(t.threads, items)); n++) made.emplace_back(t, given...);
    return made;
}

// The call as calls for one batch row and some heads, one after another, so that little is packed at a time: as many heads as keep the threads busy, or as
// many as fit into a cache. Where there is little to do, fewer threads do it.
template <typename Work>
static void rounds(const Task& whole, Work work) {
    const int64_t groups = whole.heads / whole.kv, lists = whole.lists / whole.kv;
    const int64_t busy = 1 + (8 * whole.threads - 1) / std::max<int64_t>(1, groups * whole.row_tiles);
    const int64_t cached = (1 << 20) / std::max<int64_t>(1, 2 * whole.key_tiles * whole.size * whole.dim);
    const int64_t together = std::min(whole.kv, std::max(busy, cached));
    const int64_t products = together * groups * whole.row_tiles * (whole.index ? whole.most : whole.key_tiles) * whole.size * whole.size * whole.dim;
    for (int64_t b = 0; b < whole.batch; b++)
        for (int64_t head = 0; head < whole.kv; head += together) {
            Task t = whole;
            t.batch = 1;
            t.threads = std::min(whole.threads, 1 + products / 2000000);
            t.kv = std::min(together, whole.kv - head);
            t.heads = t.kv * groups;
            t.lists = t.kv * lists;
            t.factor *= 1.44269504f;  // powers of two are what is cheap
            t.q += b * t.q_strides[0] + head * groups * t.q_strides[1];
            t.k += b * t.k_strides[0] + head * t.k_strides[1];
            if (t.valid) t.valid += b * t.columns;
            const int64_t past_lists = (b * whole.kv + head) * lists * t.row_tiles, past = (b * whole.kv + head) * groups * t.row_tiles;
            if (t.index) t.index += past_lists * t.most, t.count += past_lists;
            if (t.v) {
                t.v += b * t.v_strides[0] + head * t.v_strides[1];
                t.out += b * t.out_strides[0] + head * groups * t.out_strides[1];
                if (t.lse) t.lse += (b * whole.heads + head * groups) * t.row_starts[t.row_tiles];
            } else {
                t.total += past * t.key_tiles;
                t.within += past * (t.key_tiles - t.first);
            }
            work(t);
        }
}

// Keys and values of a round, in the order of `multiply`: keys (part of the tile, feature, M), values (part of the features, key, M).
struct Packed {
    const Task& t;
    int64_t slots, width;
    Aligned keys, values;
    std::vector<int32_t> real;  // per tile, how many keys may be seen

    explicit Packed(const Task& task)
        : t(task), slots(t.size + 4), width(padded(t.dim)), keys(t.kv * t.key_tiles * slots * t.dim), values(t.v ? t.kv * t.key_tiles * t.size * width : 0),
          real(t.key_tiles) {
        std::vector<uint8_t> wanted(t.kv * t.key_tiles, t.index == nullptr);
        if (t.index)
            for (int64_t list = 0; list < t.lists * t.row_tiles; list++) {
                uint8_t* mine = wanted.data() + list / t.row_tiles / (t.lists / t.kv) * t.key_tiles;
                for (int32_t n = 0; n < t.count[list]; n++) mine[t.index[list * t.most + n]] = 1;
            }
        for (int64_t tile = 0; tile < t.key_tiles; tile++)
            for (int32_t c = t.key_starts[tile]; c < t.key_starts[tile + 1]; c++) real[tile] += !t.valid || t.valid[c];
        auto packers = workers<Packer>(t, t.kv * t.key_tiles, *this, wanted);
        divide(t.kv * t.key_tiles, packers);
    }

    struct Packer {
        const Task& t;
        Packed& packed;
        const std::vector<uint8_t>& wanted;
        std::vector<int32_t> seen;

        Packer(const Task& task, Packed& all, const std::vector<uint8_t>& tiles) : t(task), packed(all), wanted(tiles), seen(task.size) {}

        void operator()(int64_t item) {
            if (wanted[item]) packed.pack(item / t.key_tiles, item % t.key_tiles, seen.data());
        }
    };

    float* keys_of(int64_t head, int64_t tile) const { return keys.at + (head * t.key_tiles + tile) * slots * t.dim; }
    float* values_of(int64_t head, int64_t tile) const { return values.at + (head * t.key_tiles + tile) * t.size * width; }

    void pack(int64_t head, int64_t tile, int32_t* seen) {
        const int count = real[tile], dim = t.dim;
        if (count == 0) return;
        int n = 0;
        for (int32_t c = t.key_starts[tile]; c < t.key_starts[tile + 1]; c++)
            if (!t.valid || t.valid[c]) seen[n++] = c;
        float* to = keys_of(head, tile);
        const float* from[MOST];
        for (int done = 0, m; done < count; done += m, to += m * dim) {
            m = part(count - done);
            for (int i = 0; i < m; i++)  // the last key stands in for those that fill up the last part, so that the maximum stays one of a real key
                from[i] = t.k + head * t.k_strides[1] + seen[std::min(done + i, count - 1)] * t.k_strides[2];
            m == 6 ? interleave<6>(from, dim, to) : interleave<4>(from, dim, to);
        }
        if (!t.v) return;
        to = values_of(head, tile);
        for (int key = 0; key < count; key++) {
            const float* value = t.v + head * t.v_strides[1] + seen[key] * t.v_strides[2];
            for (int done = 0, m; done < dim; done += m) {
                m = part(dim - done);
                float* place = to + done * count + key * m;
                if (done + m > dim)
                    for (int i = 0; i < m; i++) place[i] = done + i < dim ? value[done + i] : 0.0f;
                else
                    std::memcpy(place, value + done, m == 6 ? 6 * sizeof(float) : 4 * sizeof(float));
            }
        }
    }

    template <int M>
    static void interleave(const float* const* from, int dim, float* to) {
        for (int d = 0; d < dim; d++)
            for (int i = 0; i < M; i++) to[d * M + i] = from[i][d];
    }
};

// One tile of rows of one head, as panels (feature, row). Rows that fill up the last panel are zero.
struct Queries {
    const Task& t;
    int64_t panels;
    Aligned packed;
    int filled = 0, used = 0;

    explicit Queries(const Task& task) : t(task), panels((t.size + ROWS - 1) / ROWS), packed(panels * t.dim * ROWS) {}

    float* panel(int n) const { return packed.at + n * t.dim * ROWS; }

    void read(int64_t head, int64_t tile) {
        const int64_t begin = t.row_starts[tile];
        filled = t.row_starts[tile + 1] - begin;
        used = (filled + ROWS - 1) / ROWS;
        const float* from = t.q + head * t.q_strides[1] + begin * t.q_strides[2];
        for (int row = 0; row < used * ROWS; row++) {
            float* to = panel(row / ROWS) + row % ROWS;
            for (int d = 0; d < t.dim; d++) to[d * ROWS] = row < filled ? from[row * t.q_strides[2] + d] * t.factor : 0.0f;
        }
    }
};

struct Attending {
    const Task& t;
    const Packed& packed;
    Queries q;
    Aligned mixed, scores, highest, sums;

    Attending(const Task& task, const Packed& keys)
        : t(task), packed(keys), q(task), mixed(q.panels * keys.width * ROWS), scores(keys.slots * ROWS), highest(q.panels * ROWS), sums(q.panels * ROWS) {}

    void operator()(int64_t item) {
        const int64_t head = item / t.row_tiles, tile = item % t.row_tiles, source = head / (t.heads / t.kv);
        const int64_t list = head / (t.heads / t.lists) * t.row_tiles + tile;
        q.read(head, tile);
        const int rows = q.used * ROWS;
        std::fill(mixed.at, mixed.at + q.used * packed.width * ROWS, 0.0f);
        std::fill(highest.at, highest.at + rows, LOWEST);
        std::fill(sums.at, sums.at + rows, 0.0f);
        for (int64_t n = 0, listed = t.index ? t.count[list] : t.key_tiles; n < listed; n++) {
            const int64_t key_tile = t.index ? t.index[list * t.most + n] : n;
            const int count = packed.real[key_tile];
            if (count == 0) continue;
            const float *keys = packed.keys_of(source, key_tile), *values = packed.values_of(source, key_tile);
            for (int p = 0; p < q.used; p++) turn(p, keys, values, count);
        }
        write(head, t.row_starts[tile]);
    }

    // One panel of rows looks at one tile of keys.
    void turn(int p, const float* keys, const float* values, int count) {
        float *out = mixed.at + p * packed.width * ROWS, *peak = highest.at + p * ROWS, *sum = sums.at + p * ROWS;
        Floats top[VECTORS], mine[VECTORS], fade[VECTORS];
        for (int v = 0; v < VECTORS; v++) top[v] = load(peak + v * LANES);
        multiply_all<false>(keys, q.panel(p), t.dim, count, scores.at, top);
        bool higher = false;
        for (int v = 0; v < VECTORS; v++) {
            const Floats before = load(peak + v * LANES);
            const Ints changed = top[v] > before;
            for (int i = 0; i < LANES; i++) higher |= changed[i] != 0;
            fade[v] = power(before - top[v]);
            store(peak + v * LANES, top[v]);
            mine[v] = Floats{};
        }
        for (int key = 0; key < count; key++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                float* at = scores.at + key * ROWS + v * LANES;
                const Floats weight = power(load(at) - top[v]);
                store(at, weight);
                mine[v] += weight;
            }
        for (int v = 0; v < VECTORS; v++) store(sum + v * LANES, load(sum + v * LANES) * fade[v] + mine[v]);
        if (higher)
            for (int d = 0; d < packed.width; d++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) store(out + d * ROWS + v * LANES, load(out + d * ROWS + v * LANES) * fade[v]);
        multiply_all<true>(values, scores.at, count, t.dim, out, nullptr);
    }

    void write(int64_t head, int64_t begin) {
        for (int row = 0; row < q.filled; row++) {
            const float sum = sums.at[row], inverse = sum > 0 ? 1.0f / sum : 0.0f;
            const float* from = mixed.at + row / ROWS * packed.width * ROWS + row % ROWS;
            float* to = t.out + head * t.out_strides[1] + (begin + row) * t.out_strides[2];
            for (int d = 0; d < t.dim; d++) to[d] = from[d * ROWS] * inverse;
            if (t.lse) t.lse[head * t.row_starts[t.row_tiles] + begin + row] = sum > 0 ? (highest.at[row] + std::log2(sum)) * 0.69314718f : -INFINITY;
        }
    }
};

// A row's share for a tile is the softmax over tiles of the tiles' log-sums, so one pass over the keys leaves a maximum and a sum per row and tile.
struct Weighing {
    const Task& t;
    const Packed& packed;
    Queries q;
    Aligned scores, peaks, sums;

    Weighing(const Task& task, const Packed& keys)
        : t(task), packed(keys), q(task), scores(keys.slots * ROWS), peaks(t.key_tiles * q.panels * ROWS), sums(t.key_tiles * q.panels * ROWS) {}

    void operator()(int64_t item) {
        const int64_t head = item / t.row_tiles, tile = item % t.row_tiles;
        q.read(head, tile);
        for (int64_t key_tile = 0; key_tile < t.key_tiles; key_tile++) {
            const float* keys = packed.keys_of(head / (t.heads / t.kv), key_tile);
            const int count = packed.real[key_tile];
            for (int p = 0; p < q.used; p++) weigh(p, keys, count, (key_tile * q.panels + p) * ROWS);
        }
        average(0, t.key_tiles, t.total + item * t.key_tiles);
        average(t.first, t.key_tiles, t.within + item * (t.key_tiles - t.first));
    }

    void weigh(int p, const float* keys, int count, int64_t place) {
        Floats top[VECTORS], mine[VECTORS];
        for (int v = 0; v < VECTORS; v++) top[v] = Floats{} + LOWEST, mine[v] = Floats{};
        if (count) multiply_all<false>(keys, q.panel(p), t.dim, count, scores.at, top);
        for (int key = 0; key < count; key++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) mine[v] += power(load(scores.at + key * ROWS + v * LANES) - top[v]);
        for (int v = 0; v < VECTORS; v++) store(peaks.at + place + v * LANES, top[v]), store(sums.at + place + v * LANES, mine[v]);
    }

    // The mean over real rows of the softmax over the tiles from `begin` to `end`.
    void average(int64_t begin, int64_t end, float* to) {
        std::fill(to, to + (end - begin), 0.0f);
        for (int p = 0; p < q.used; p++)
            for (int v = 0; v < VECTORS; v++) {
                Floats top = Floats{} + LOWEST, sum = Floats{}, counts;
                const int64_t step = q.panels * ROWS, base = p * ROWS + v * LANES;
                for (int i = 0; i < LANES; i++) counts[i] = base + i < q.filled ? 1.0f / q.filled : 0.0f;
                for (int64_t n = begin; n < end; n++) top = larger(top, load(peaks.at + n * step + base));
                for (int64_t n = begin; n < end; n++) sum += load(sums.at + n * step + base) * power(load(peaks.at + n * step + base) - top);
                const Floats share = counts / larger(sum, Floats{} + 1e-30f);
                for (int64_t n = begin; n < end; n++) {
                    const Floats mine = load(sums.at + n * step + base) * power(load(peaks.at + n * step + base) - top) * share;
                    for (int i = 0; i < LANES; i++) to[n - begin] += mine[i];
                }
            }
    }
};

extern "C" {

int mezzotint_task_size() { return sizeof(Task); }

// 0, or 1 if memory ran out.
int mezzotint_attend(const Task* task) {
    try {
        rounds(*task, [](const Task& t) {
            const Packed packed(t);
            auto attending = workers<Attending>(t, t.heads * t.row_tiles, packed);
            divide(t.heads * t.row_tiles, attending);
        });
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

int mezzotint_weigh(const Task* task) {
    try {
        rounds(*task, [](const Task& t) {
            const Packed packed(t);
            auto weighing = workers<Weighing>(t, t.heads * t.row_tiles, packed);
            divide(t.heads * t.row_tiles, weighing);
        });
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
}
