// Streams a recording through a network that co.export wrote:   stream NETWORK.onnx RECORDING.wav|.csv > outputs.csv
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

using std::string, std::to_string, std::vector;

[[noreturn]] void fail(const string& why) { throw std::runtime_error(why); }

struct Recording {  // frame by frame: the samples of a .wav file, from -1 to 1, or else lines of numbers with commas between them
    string name;
    std::ifstream file{name, std::ios::binary};
    bool wav = name.size() > 4 && name.substr(name.size() - 4) == ".wav";
    uint32_t frames = 0, samples = wav ? header() : 0;
    uint32_t number(int bytes) { uint32_t n = 0; return file.read(reinterpret_cast<char*>(&n), bytes), n; }  // low byte first
    uint32_t header() {  // goes to the samples; how many there are
        const uint32_t RIFF = 0x46464952, WAVE = 0x45564157, FORMAT = 0x20746d66, DATA = 0x61746164, PCM_MONO = 0x10001;
        if (number(4) != RIFF || (number(4), number(4)) != WAVE) fail("'" + name + "' can't be read, or is no .wav file");
        for (uint32_t id = number(4), size = number(4), known = 0; file; id = number(4), size = number(4)) {
            const auto start = std::streamoff(file.tellg());
            if (id == FORMAT) known = number(4) == PCM_MONO && (file.ignore(10), number(2)) == 16;
            if (id == DATA && known) return size / 2;
            file.seekg(start + size + size % 2);
        }
        fail("'" + name + "' holds no samples of one channel in 16-bit PCM");
    }
    bool next(vector<float>& frame) {
        string line;
        if (wav ? frames == samples || file.peek() == EOF : !std::getline(file, line)) return false;
        std::istringstream cells(wav ? to_string(int16_t(number(2))) : line);
        size_t found = 0, size = frame.size();
        for (char comma = ','; comma == ',' && cells >> frame[found % size]; found++, comma = 0, cells >> comma) {}
        if (wav) frame[0] /= 32768;
        if (++frames && found == size && cells.eof()) return true;
        fail("'" + name + "', frame " + to_string(frames) + ": the network takes frames of " + to_string(size) + " number(s)");
    }
};

long number(const string& json, const string& key, const string& behind = "{") {  // null is 0; more JSON is not needed
    const size_t at = json.find("\"" + key + "\":", json.find(behind));
    return at == string::npos ? 0 : std::atol(json.c_str() + at + key.size() + 3);
}

void stream(const string& network, Recording recording) {
    Ort::Env env(ORT_LOGGING_LEVEL_FATAL);
    Ort::Session session(env, network.c_str(), Ort::SessionOptions());
    Ort::AllocatorWithDefaultOptions allocator;
    const auto about = session.GetModelMetadata().LookupCustomMetadataMapAllocated("continual", allocator);
    if (!about || number(about.get(), "format_version") != 2) fail("'" + network + "' was not written by co.export (version 2)");
    const long chunk = number(about.get(), "chunk"), start = number(about.get(), "start"), first = number(about.get(), "first");

    vector<Ort::AllocatedStringPtr> names;
    vector<const char*> takes, gives;  // x, end, states; y, valid, new states
    vector<Ort::Value> in, out;
    vector<vector<int64_t>> zeros;  // with which a stream begins; 8 bytes hold a value of any type
    for (size_t i = 0; i < session.GetInputCount(); i++) {
        takes.push_back(names.emplace_back(session.GetInputNameAllocated(i, allocator)).get());
        const auto type = session.GetInputTypeInfo(i);
        auto shape = type.GetTensorTypeAndShapeInfo().GetShape();
        size_t count = 1;
        for (auto& size : shape) count *= size = std::max<int64_t>(size, 1);  // one row
        in.push_back(Ort::Value::CreateTensor(allocator.GetInfo(), zeros.emplace_back(count).data(), 8 * count, shape.data(),
                                              shape.size(), type.GetTensorTypeAndShapeInfo().GetElementType()));
    }
    for (size_t i = 0; i < session.GetOutputCount(); i++, out.emplace_back(nullptr))  // made by the first call, then written to
        gives.push_back(names.emplace_back(session.GetOutputNameAllocated(i, allocator)).get());
    vector<float> frame(zeros[0].size() / chunk);
    const bool last = number(about.get(), "time", "\"inputs\"") == 2 && number(about.get(), "time", "\"outputs\"") == 2;
    const vector<int64_t> chunks = {1, int64_t(frame.size()), chunk}, given = in[0].GetTensorTypeAndShapeInfo().GetShape();
    if (!last || given != chunks || takes[1] != string("end"))
        fail("'" + network + "' can't be streamed here: it needs one input of frames (B, C), any B, and an end (flush=True)");
    for (long call = 0, more = 1, done = 0; !done; call++) {
        float* const x = in[0].GetTensorMutableData<float>();
        std::fill(zeros[0].begin(), zeros[0].end(), 0);
        for (long i = call ? 0 : -start; i < chunk && (more = more && recording.next(frame)); i++)
            for (size_t c = 0; c < frame.size(); c++) x[c * chunk + i] = frame[c];
        if (!recording.frames) fail("'" + recording.name + "' can't be read, or is empty");
        if (!more) *in[1].GetTensorMutableData<int64_t>() = recording.frames;
        session.Run({}, takes.data(), in.data(), in.size(), gives.data(), out.data(), out.size());
        std::swap_ranges(in.begin() + 2, in.end(), out.begin() + 2);
        const auto shape = out[0].GetTensorTypeAndShapeInfo().GetShape();  // (1, C, per_call)
        const bool* const valid = out[1].GetTensorData<bool>();
        for (int64_t i = 0; i < shape[2]; i++)
            for (int64_t c = 0; valid[i] && c < shape[1]; c++)
                std::printf("%.9g%c", out[0].At<float>({0, c, i}), c + 1 < shape[1] ? ',' : '\n');
        if (std::fflush(stdout)) fail("the outputs can't be written");
        done = !more && first + shape[2] * (call + 1) > 0 && !std::count(valid, valid + shape[2], true);
    }
}

int main(int count, char** arguments) try {
    if (count != 3) fail("usage: stream NETWORK.onnx RECORDING.wav|.csv > outputs.csv");
    stream(arguments[1], {arguments[2]});
} catch (const std::exception& error) {
    return std::fprintf(stderr, "stream: %s\n", error.what()), 1;
}
