// Classifies images with an ONNX file of fbnetv3-zoo. Class names and preprocessing are read from the file.
//     classify model.onnx cat.jpg dog.png
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

struct Preprocess {  // what the entry `preprocess` of the metadata says
    int resize, resolution;
    std::string interpolation;
    std::vector<float> mean, std;
};

struct Image {
    int width, height, channels;
    std::vector<uint8_t> levels;  // row by row, a pixel's channels together
};

struct Taps {  // the pixels from `start` on that make up one pixel of a resized line, with weights of 22 binary places
    int start;
    std::vector<int> weights;
};

Image read_image(const char* path, int channels) {  // transparent images over white, as gray or RGB
    int width, height, in_file;
    stbi_uc* pixels = stbi_load(path, &width, &height, &in_file, 4);
    if (!pixels) throw std::runtime_error(std::string(path) + ": " + stbi_failure_reason());
    Image image{width, height, channels, {}};
    image.levels.reserve(size_t(width) * height * channels);
    for (size_t n = 0; n < size_t(width) * height; ++n) {
        int rgb[3], alpha = pixels[4 * n + 3];
        for (int c = 0; c < 3; ++c) rgb[c] = (pixels[4 * n + c] * alpha + 255 * (255 - alpha) + 127) / 255;
        if (channels == 3) image.levels.insert(image.levels.end(), rgb, rgb + 3);
        else image.levels.push_back((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
    }
    stbi_image_free(pixels);
    return image;
}

double filter(const std::string& interpolation, double distance) {
    const double x = std::abs(distance), a = -0.5;
    if (interpolation == "bilinear") return std::max(0.0, 1 - x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// The taps of `count` pixels from `offset` on, when a line of `old` pixels is resized to `length`, antialiased.
std::vector<Taps> taps(int old, int length, int offset, int count, const std::string& interpolation) {
    std::vector<Taps> all;
    const double scale = double(old) / length, stretch = std::max(scale, 1.0);
    const double support = (interpolation == "bilinear" ? 1 : 2) * stretch;
    for (int n = offset; n < offset + count; ++n) {
        const double center = (n + 0.5) * scale;
        if (old == length || interpolation == "nearest") {
            all.push_back({std::min(int(center), old - 1), {1 << 22}});
            continue;
        }
        const int start = std::max(0, int(center - support + 0.5)), end = std::min(old, int(center + support + 0.5));
        std::vector<double> values;
        for (int k = start; k < end; ++k) values.push_back(filter(interpolation, (k - center + 0.5) / stretch));
        const double total = std::accumulate(values.begin(), values.end(), 0.0);
        Taps one{start, {}};
        for (double value : values) one.weights.push_back(int(std::round(value / total * (1 << 22))));
        all.push_back(one);
    }
    return all;
}

Image across(const Image& image, const std::vector<Taps>& taps) {  // resizes every row; the result is transposed
    const int channels = image.channels;
    Image out{image.height, int(taps.size()), channels, {}};
    out.levels.resize(size_t(out.width) * out.height * channels);
    for (int row = 0; row < image.height; ++row)
        for (size_t n = 0; n < taps.size(); ++n)
            for (int c = 0; c < channels; ++c) {
                const uint8_t* level = &image.levels[(size_t(row) * image.width + taps[n].start) * channels + c];
                int sum = 1 << 21;
                for (int weight : taps[n].weights) sum += *level * weight, level += channels;
                out.levels[(n * out.width + row) * channels + c] = std::clamp(sum >> 22, 0, 255);
            }
    return out;
}

std::vector<float> network_input(const Image& image, const Preprocess& p) {  // channel by channel, row by row
    const int shorter = std::min(image.width, image.height), side = p.resolution;
    const int width = int64_t(p.resize) * image.width / shorter, height = int64_t(p.resize) * image.height / shorter;
    const int left = std::nearbyint((width - side) / 2.0), top = std::nearbyint((height - side) / 2.0);
    const Image turned = across(image, taps(image.width, width, left, side, p.interpolation));
    const Image square = across(turned, taps(image.height, height, top, side, p.interpolation));
    std::vector<float> input;
    for (int c = 0; c < image.channels; ++c)
        for (size_t n = c; n < square.levels.size(); n += image.channels)
            input.push_back((square.levels[n] / 255.0f - p.mean[c]) / p.std[c]);
    return input;
}

nlohmann::json entry(const Ort::ModelMetadata& metadata, const char* key) {
    Ort::AllocatorWithDefaultOptions allocator;
    const auto text = metadata.LookupCustomMetadataMapAllocated(key, allocator);
    if (!text) throw std::runtime_error(std::string("the model has no entry ") + key + "; export it by fbnetv3");
    return nlohmann::json::parse(text.get());
}

int main(int count, char** arguments) try {
    if (count < 3) throw std::runtime_error("usage: classify MODEL.onnx IMAGE...");
    Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "classify");
    Ort::Session session(environment, std::filesystem::path(arguments[1]).c_str(), Ort::SessionOptions());
    const auto metadata = session.GetModelMetadata();
    const auto names = entry(metadata, "class_names"), told = entry(metadata, "preprocess");
    const Preprocess p{told["resize"], told["resolution"], told["interpolation"], told["mean"], told["std"]};
    Ort::AllocatorWithDefaultOptions allocator;
    const auto given = session.GetInputNameAllocated(0, allocator);
    const auto answered = session.GetOutputNameAllocated(0, allocator);
    const char *given_names[] = {given.get()}, *answered_names[] = {answered.get()};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    for (int n = 2; n < count; ++n) {
        const Image image = read_image(arguments[n], p.mean.size());
        std::vector<float> input = network_input(image, p);
        const std::vector<int64_t> shape{1, image.channels, p.resolution, p.resolution};
        const auto images = Ort::Value::CreateTensor<float>(memory, input.data(), input.size(), shape.data(), 4);
        const auto outputs = session.Run(Ort::RunOptions(), given_names, &images, 1, answered_names, 1);
        const float* logits = outputs[0].GetTensorData<float>();
        std::vector<int> order(outputs[0].GetTensorTypeAndShapeInfo().GetElementCount());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
        double total = 0;
        for (int index : order) total += std::exp(double(logits[index]) - logits[order[0]]);
        std::printf("%s\n", arguments[n]);
        for (size_t k = 0; k < std::min<size_t>(5, order.size()); ++k) {
            const double percent = 100 * std::exp(double(logits[order[k]]) - logits[order[0]]) / total;
            const std::string name = names.is_null() ? std::to_string(order[k]) : names[order[k]].get<std::string>();
            std::printf("  %6.2f%%  %s\n", percent, name.c_str());
        }
    }
} catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
