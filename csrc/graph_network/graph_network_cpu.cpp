// graph_network: a chain of graph convolutions in one call. What follows from the weights alone (packed panels, where
// each layer's result lies) is in a table made once.
#include "posekernels/graph_conv.h"
#include "posekernels/registry.h"
#include "posekernels/scratch.h"

POSEKERNELS_BEGIN
namespace {

constexpr int64_t nowhere = -1, network_input = -2;
constexpr int64_t portion_numbers = int64_t(1) << 19;  // 2 MB of results at a time

// One layer, as Python writes it into the table.
struct Layer {
    const float *weight, *adjacency, *modulation, *affine;  // weight packed; affine [2, Cout]
    int64_t Cin, Cout, K, activation;
    int64_t input, output, residual;  // buffers; or network_input; or nowhere: the network's y, no residual
};
static_assert(sizeof(Layer) == 11 * 8, "the table is made of 64-bit numbers");

}  // namespace

// Portions of poses go through all layers while their results stay in the cache: `buffers` of them, `widest` channels.
void graph_network(const float* x, float* y, int64_t B, int64_t J, const int64_t* table, int64_t depth, int64_t buffers,
                   int64_t widest) {
    const Layer* layers = reinterpret_cast<const Layer*>(table);
    const Layer& last = layers[depth - 1];
    const int64_t pose = J * widest;
    int64_t portion = portion_numbers / (pose * (buffers > 0 ? buffers : 1));
    if (portion < 1) portion = 1;
    if (portion > B) portion = B;
    Scratch scratch;
    float* workspace = scratch.floats(buffers * portion * pose);
    for (int64_t first = 0; first < B; first += portion) {
        const int64_t poses = B - first < portion ? B - first : portion;
        const auto at = [&](int64_t place) -> const float* {
            if (place == nowhere) return nullptr;
            return place == network_input ? x + first * J * layers[0].Cin : workspace + place * portion * pose;
        };
        for (int64_t i = 0; i < depth; ++i) {
            const Layer& layer = layers[i];
            float* out = layer.output == nowhere ? y + first * J * last.Cout : const_cast<float*>(at(layer.output));
            graph_conv_forward(at(layer.input), layer.weight, layer.adjacency, nullptr, layer.modulation, layer.affine,
                               layer.affine + layer.Cout, at(layer.residual), out, nullptr, poses, J, layer.Cin,
                               layer.Cout, layer.K, static_cast<int>(layer.activation));
        }
    }
}
POSEKERNELS_KERNEL(graph_network)

POSEKERNELS_END
