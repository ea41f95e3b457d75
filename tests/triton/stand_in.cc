// A stand-in for Triton's onnxruntime backend, which the wheel of the server does not have: a library of the same name that gives every
// batch away over a socket, and takes the outputs and the new states back. What the server itself does with implicit state is real: it makes
// the initial states, hands them in, keeps the new ones, and fills batches up with requests of nobody.
//
// The functions are those of the server's library, as its documentation of the backend API declares them; no header of it is needed.
//
// Messages are whole numbers of 8 bytes, and bytes with their number before them. To the socket: the model, and each request's tensors; from
// the socket: each request's tensors. A tensor is its name, its data type, its shape, its bytes.

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" {
struct Error;
struct Model;
struct Instance;
struct Request;
struct Response;
struct Input;
struct Output;
struct State;
Error* TRITONSERVER_ErrorNew(int code, const char* message);
const char* TRITONSERVER_ErrorMessage(Error*);
Error* TRITONBACKEND_ModelInstanceModel(Instance*, Model**);
Error* TRITONBACKEND_ModelName(Model*, const char** name);
Error* TRITONBACKEND_RequestInputCount(Request*, uint32_t* count);
Error* TRITONBACKEND_RequestInputByIndex(Request*, uint32_t index, Input**);
Error* TRITONBACKEND_RequestOutputCount(Request*, uint32_t* count);
Error* TRITONBACKEND_RequestOutputName(Request*, uint32_t index, const char** name);
Error* TRITONBACKEND_RequestRelease(Request*, uint32_t flags);
Error* TRITONBACKEND_InputProperties(
    Input*, const char** name, int* type, const int64_t** shape, uint32_t* dims, uint64_t* bytes, uint32_t* buffers);
Error* TRITONBACKEND_InputBuffer(
    Input*, uint32_t index, const void** buffer, uint64_t* bytes, int* memory, int64_t* memory_id);
Error* TRITONBACKEND_ResponseNew(Response**, Request*);
Error* TRITONBACKEND_ResponseOutput(Response*, Output**, const char* name, int type, const int64_t* shape, uint32_t dims);
Error* TRITONBACKEND_OutputBuffer(Output*, void** buffer, uint64_t bytes, int* memory, int64_t* memory_id);
Error* TRITONBACKEND_ResponseSend(Response*, uint32_t flags, Error*);
Error* TRITONBACKEND_StateNew(State**, Request*, const char* name, int type, const int64_t* shape, uint32_t dims);
Error* TRITONBACKEND_StateBuffer(State*, void** buffer, uint64_t bytes, int* memory, int64_t* memory_id);
Error* TRITONBACKEND_StateUpdate(State*);
}

namespace {

constexpr uint32_t kFinal = 1, kReleaseAll = 1;
constexpr int kInternal = 1;

void Check(Error* error) {
  if (error != nullptr) throw std::runtime_error(TRITONSERVER_ErrorMessage(error));
}

class Socket {
 public:
  Socket() : file_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const char* path = std::getenv("CONTINUAL_STAND_IN");
    std::strncpy(address.sun_path, path == nullptr ? "" : path, sizeof(address.sun_path) - 1);
    if (connect(file_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) throw std::runtime_error("no socket");
  }
  ~Socket() { close(file_); }

  void Put(int64_t number) { message_.append(reinterpret_cast<const char*>(&number), sizeof(number)); }
  void Put(const void* data, uint64_t bytes) {
    Put(static_cast<int64_t>(bytes));
    message_.append(static_cast<const char*>(data), bytes);
  }
  void Send() {
    for (size_t at = 0; at < message_.size();) {
      ssize_t sent = send(file_, message_.data() + at, message_.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) throw std::runtime_error("the other side is gone");
      at += sent;
    }
  }
  int64_t Number() {
    int64_t number;
    Receive(&number, sizeof(number));
    return number;
  }
  std::string Bytes() {
    std::string found(Number(), '\0');
    Receive(found.data(), found.size());
    return found;
  }

 private:
  void Receive(void* to, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
      ssize_t got = recv(file_, static_cast<char*>(to) + at, bytes - at, 0);
      if (got <= 0) throw std::runtime_error("the other side is gone");
      at += got;
    }
  }
  int file_;
  std::string message_;
};

void PutRequest(Socket& socket, Request* request) {
  uint32_t count;
  Check(TRITONBACKEND_RequestInputCount(request, &count));
  socket.Put(static_cast<int64_t>(count));
  for (uint32_t i = 0; i < count; ++i) {
    Input* input;
    const char* name;
    const int64_t* shape;
    int type;
    uint32_t dims, buffers;
    uint64_t bytes;
    Check(TRITONBACKEND_RequestInputByIndex(request, i, &input));
    Check(TRITONBACKEND_InputProperties(input, &name, &type, &shape, &dims, &bytes, &buffers));
    std::string data;
    for (uint32_t b = 0; b < buffers; ++b) {
      const void* buffer = nullptr;
      uint64_t size;
      int memory = 0;
      int64_t memory_id = 0;
      Check(TRITONBACKEND_InputBuffer(input, b, &buffer, &size, &memory, &memory_id));
      data.append(static_cast<const char*>(buffer), size);
    }
    socket.Put(name, std::strlen(name));
    socket.Put(static_cast<int64_t>(type));
    socket.Put(shape, dims * sizeof(int64_t));
    socket.Put(data.data(), data.size());
  }
}

// Requests of nobody want no outputs.
bool Wants(Request* request, const std::string& output) {
  uint32_t count;
  Check(TRITONBACKEND_RequestOutputCount(request, &count));
  for (uint32_t i = 0; i < count; ++i) {
    const char* name;
    Check(TRITONBACKEND_RequestOutputName(request, i, &name));
    if (output == name) return true;
  }
  return false;
}

void Answer(Socket& socket, Request* request, Response* response) {
  for (int64_t left = socket.Number(); left > 0; --left) {
    std::string name = socket.Bytes();
    int type = static_cast<int>(socket.Number());
    std::string dims = socket.Bytes(), data = socket.Bytes();
    auto shape = reinterpret_cast<const int64_t*>(dims.data());
    uint32_t count = dims.size() / sizeof(int64_t);
    void* buffer;
    int memory = 0;
    int64_t memory_id = 0;
    if (name.rfind("new_state.", 0) == 0) {
      State* state;
      Check(TRITONBACKEND_StateNew(&state, request, name.c_str(), type, shape, count));
      Check(TRITONBACKEND_StateBuffer(state, &buffer, data.size(), &memory, &memory_id));
      std::memcpy(buffer, data.data(), data.size());
      Check(TRITONBACKEND_StateUpdate(state));
    } else if (Wants(request, name)) {
      Output* output;
      Check(TRITONBACKEND_ResponseOutput(response, &output, name.c_str(), type, shape, count));
      Check(TRITONBACKEND_OutputBuffer(output, &buffer, data.size(), &memory, &memory_id));
      std::memcpy(buffer, data.data(), data.size());
    }
  }
}

}  // namespace

extern "C" Error* TRITONBACKEND_ModelInstanceExecute(Instance* instance, Request** requests, uint32_t count) {
  std::vector<Response*> responses(count, nullptr);
  Error* error = nullptr;
  try {
    for (uint32_t i = 0; i < count; ++i) Check(TRITONBACKEND_ResponseNew(&responses[i], requests[i]));
    Model* model;
    const char* name;
    Check(TRITONBACKEND_ModelInstanceModel(instance, &model));
    Check(TRITONBACKEND_ModelName(model, &name));
    Socket socket;
    socket.Put(name, std::strlen(name));
    socket.Put(static_cast<int64_t>(count));
    for (uint32_t i = 0; i < count; ++i) PutRequest(socket, requests[i]);
    socket.Send();
    for (uint32_t i = 0; i < count; ++i) Answer(socket, requests[i], responses[i]);
  } catch (const std::exception& problem) {
    error = TRITONSERVER_ErrorNew(kInternal, problem.what());
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (responses[i] != nullptr) TRITONBACKEND_ResponseSend(responses[i], kFinal, error);
    TRITONBACKEND_RequestRelease(requests[i], kReleaseAll);
  }
  return nullptr;
}
