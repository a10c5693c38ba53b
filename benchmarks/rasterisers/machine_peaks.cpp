// What one core of this machine can do: multiply-adds in a second, and bytes read and written in order in a second.
#include <chrono>
#include <cstdlib>
#include <cstring>

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
typedef float Float __attribute__((vector_size(4 * WIDTH)));

static double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

extern "C" {

// Floating point operations a second in twelve independent chains of fused multiply-adds.
double peak_flops() {
    constexpr int CHAINS = 12;
    constexpr long ROUNDS = 20000000;
    Float chain[CHAINS];
    for (int k = 0; k < CHAINS; k++) chain[k] = Float{} + (float)k;  // or they would be one
    const Float factor = Float{} + 0.999f, step = Float{} + 1e-3f;
    const double start = seconds();
    for (long i = 0; i < ROUNDS; i++)
        for (Float &c : chain) c = c * factor + step;
    const double took = seconds() - start;
    volatile float keep = 0;
    for (const Float &c : chain) keep = keep + c[0];
    return 2.0 * ROUNDS * CHAINS * WIDTH / took;
}

// Bytes a second over `bytes` of memory, read (write = 0) or written, the best of five passes.
double peak_stream(long bytes, int write) {
    char *memory = static_cast<char *>(std::aligned_alloc(4096, bytes));
    std::memset(memory, 1, bytes);
    double best = 1e9;
    for (int pass = 0; pass < 5; pass++) {
        const double start = seconds();
        Float sums[4] = {};
        Float *at = reinterpret_cast<Float *>(memory);
        for (long i = 0; i < bytes / (long)sizeof(Float); i += 4)
            for (int k = 0; k < 4; k++)
                if (write) at[i + k] = Float{} + (float)pass;
                else sums[k] += at[i + k];
        volatile float keep = (sums[0] + sums[1] + sums[2] + sums[3])[0];
        (void)keep;
        const double took = seconds() - start;
        best = took < best ? took : best;
    }
    std::free(memory);
    return bytes / best;
}
}
