// A stand-in for a GPU: a TensorFlow device of type "GPU" on a machine without one.
//
// What runs where is TensorFlow's own decision and is taken from the kernels that its wheel has for
// NVIDIA's GPUs: which operation has one, which of its arguments lie in the host's memory, how a
// graph is cut between the devices, what is copied. Only then does each kernel's twin for
// processors compute. So a test sees what would cross the bus, and that all of the product runs on
// such a device. It sees no CUDA, NCCL or XLA, no times, and no graph in the layout that NVIDIA's
// cores prefer: TensorFlow's layout optimizer knows NVIDIA's devices and leaves a plug-in's alone.
//
// TensorFlow loads it as a plug-in, from the path in TF_PLUGGABLE_DEVICE_LIBRARY_PATH, while it is
// imported. So every process of the product has it that inherits the environment, and none knows.
//
//   STAND_IN_GPUS=2              how many there are, one by default
//   STAND_IN_GPU_COUNTS=FOLDER   at its end a process writes what it counted to FOLDER/PID.json
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "tensorflow/core/common_runtime/copy_tensor.h"
#include "tensorflow/core/common_runtime/local_device.h"
#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/device_factory.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/public/session_options.h"
#include "tensorflow/core/public/version.h"

namespace tensorflow {
namespace {

constexpr char kName[] = "Stand-in GPU";
constexpr char kComputeCapability[] = "9.0";
constexpr int64_t kMemoryBytes = int64_t{80} << 30;
// Above that of the factory for NVIDIA's GPUs, 210: where there is one, it is left alone.
constexpr int kPriority = 300;

struct Tally {
  long count = 0;
  long bytes = 0;
};
using Tallies = std::map<std::string, Tally>;

// What all stand-ins of this process did since the last reset.
struct Counts {
  std::mutex mutex;
  // Numbers of the devices that were made.
  std::set<int> devices;
  // By operation: those that touch the GPU's memory, and those for which it is only a name, because
  // TensorFlow keeps all their arguments and results in the host's.
  Tallies kernels, host_kernels;
  // By type and shape; from the GPU also by the edge of the graph.
  Tallies to_gpu, from_gpu;

  void Add(Tallies& tallies, const std::string& key, long bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    Tally& tally = tallies[key];
    tally.count += 1;
    tally.bytes += bytes;
  }
};

Counts& counts() {
  // Never destroyed: threads of TensorFlow may still compute while the process ends.
  static Counts* counts = new Counts;
  return *counts;
}

std::string KindOf(const Tensor& tensor) {
  return DataTypeString(tensor.dtype()) + tensor.shape().DebugString();
}

// As a GPU's copies do, it fills a buffer that the receiver has made: sums over workers hand out
// parts of a larger one.
absl::Status Copied(const Tensor& from, Tensor* to) {
  if (!DataTypeCanUseMemcpy(from.dtype())) {
    return absl::InvalidArgumentError("a GPU can't hold " + KindOf(from));
  }
  if (from.TotalBytes() > 0) {
    std::memcpy(to->data(), from.data(), from.TotalBytes());
  }
  return absl::OkStatus();
}

class Bus : public DeviceContext {
 public:
  void CopyCPUTensorToDevice(const Tensor* host, Device*, Tensor* gpu, StatusCallback done,
                             bool) const override {
    counts().Add(counts().to_gpu, KindOf(*host), host->TotalBytes());
    done(Copied(*host, gpu));
  }

  void CopyDeviceTensorToCPU(const Tensor* gpu, absl::string_view edge, Device*, Tensor* host,
                             StatusCallback done) override {
    counts().Add(counts().from_gpu, std::string(edge) + " " + KindOf(*gpu), gpu->TotalBytes());
    done(Copied(*gpu, host));
  }

  void CopyTensorInSameDevice(const Tensor* input, Device*, Tensor* output,
                              StatusCallback done) const override {
    done(Copied(*input, output));
  }

  // There is no stream to wait for.
  absl::Status ThenExecute(Device*, stream_executor::Stream*,
                           std::function<void()> work) override {
    work();
    return absl::OkStatus();
  }
};

// How a kernel for NVIDIA's GPUs is computed.
struct Twin {
  // What it was made for: another kernel may later have the same address.
  std::string name;
  const NodeDef* def;
  DataTypeVector inputs, outputs;
  // All arguments and results lie in the host's memory.
  bool is_on_host;
  // Computes in its place; none where the kernel itself can, as it is no code for a GPU.
  std::unique_ptr<OpKernel> kernel;
  absl::Status status;

  bool IsOf(const OpKernel& op) const {
    return def == &op.def() && name == op.name() && inputs == op.input_types() &&
           outputs == op.output_types();
  }
};

bool IsOnHost(const OpKernel& op) {
  auto is_host = [](MemoryType type) { return type == HOST_MEMORY; };
  return std::all_of(op.input_memory_types().begin(), op.input_memory_types().end(), is_host) &&
         std::all_of(op.output_memory_types().begin(), op.output_memory_types().end(), is_host);
}

class StandIn : public LocalDevice {
 public:
  StandIn(const SessionOptions& options, const DeviceAttributes& attributes, int number)
      : LocalDevice(options, attributes), bus_(new Bus) {
    info_.default_context = bus_;
    info_.gpu_id = number;
    set_tensorflow_accelerator_device_info(&info_);
    std::lock_guard<std::mutex> lock(counts().mutex);
    counts().devices.insert(number);
  }

  ~StandIn() override { bus_->Unref(); }

  Allocator* GetAllocator(AllocatorAttributes) override { return cpu_allocator(); }

  absl::Status Sync() override { return absl::OkStatus(); }

  absl::Status TryGetDeviceContext(DeviceContext** context) override {
    bus_->Ref();
    *context = bus_;
    return absl::OkStatus();
  }

  // Constants of a graph, which are on the GPU from the beginning.
  absl::Status MakeTensorFromProto(const TensorProto& proto, const AllocatorAttributes,
                                   Tensor* tensor) override {
    return tensor->FromProto(cpu_allocator(), proto)
               ? absl::OkStatus()
               : absl::InvalidArgumentError("a constant that can't be read");
  }

  void Compute(OpKernel* op, OpKernelContext* context) override {
    Twin& twin = TwinOf(op);
    Count(op, twin.is_on_host);
    OP_REQUIRES_OK(context, twin.status);
    (twin.kernel ? twin.kernel.get() : op)->Compute(context);
  }

  void ComputeAsync(AsyncOpKernel* op, OpKernelContext* context,
                    AsyncOpKernel::DoneCallback done) override {
    Count(op, false);
    op->ComputeAsync(context, std::move(done));
  }

 private:
  void Count(OpKernel* op, bool is_on_host) {
    Tallies& tallies = is_on_host ? counts().host_kernels : counts().kernels;
    counts().Add(tallies, std::string(op->type_string_view()), 0);
  }

  Twin& TwinOf(OpKernel* op) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::unique_ptr<Twin>& twin = twins_[op];
    if (twin == nullptr || !twin->IsOf(*op)) twin = MakeTwin(op);
    return *twin;
  }

  std::unique_ptr<Twin> MakeTwin(OpKernel* op) {
    auto twin = std::make_unique<Twin>();
    twin->name = op->name();
    twin->def = &op->def();
    twin->inputs = op->input_types();
    twin->outputs = op->output_types();
    // Asynchronous are calls of functions, receiving and sums over workers: the same code on every
    // kind of device, and what workers agree on by the kind of theirs.
    const bool is_async = op->AsAsync() != nullptr;
    twin->is_on_host = !is_async && IsOnHost(*op);
    if (!twin->is_on_host && !is_async) {
      twin->kernel = CreateOpKernel(DeviceType("CPU"), this, cpu_allocator(), op->def(),
                                    TF_GRAPH_DEF_VERSION, &twin->status);
    }
    return twin;
  }

  std::mutex mutex_;
  std::unordered_map<OpKernel*, std::unique_ptr<Twin>> twins_;
  Bus* bus_;
  AcceleratorDeviceInfo info_;
};

class Factory : public DeviceFactory {
 public:
  absl::Status ListPhysicalDevices(std::vector<std::string>* devices) override {
    for (size_t i = 0; i < Present().size(); ++i) {
      devices->push_back("/physical_device:GPU:" + std::to_string(i));
    }
    return absl::OkStatus();
  }

  absl::Status GetDeviceDetails(
      int, std::unordered_map<std::string, std::string>* details) override {
    (*details)["device_name"] = kName;
    (*details)["compute_capability"] = kComputeCapability;
    return absl::OkStatus();
  }

  absl::Status CreateDevices(const SessionOptions& options, const std::string& prefix,
                             std::vector<std::unique_ptr<Device>>* devices) override {
    const std::vector<int> present = Present();
    // set_visible_devices of Python: numbers among those present.
    std::vector<int> visible;
    for (absl::string_view word : absl::StrSplit(
             options.config.gpu_options().visible_device_list(), ',', absl::SkipEmpty())) {
      int index;
      if (!absl::SimpleAtoi(word, &index) || index < 0 || index >= (int)present.size()) {
        return absl::InvalidArgumentError("no such GPU");
      }
      visible.push_back(present[index]);
    }
    if (visible.empty()) visible = present;
    const auto& limits = options.config.device_count();
    if (auto limit = limits.find("GPU"); limit != limits.end()) {
      visible.resize(std::min<size_t>(visible.size(), limit->second));
    }
    for (size_t i = 0; i < visible.size(); ++i) {
      devices->push_back(std::make_unique<StandIn>(
          options,
          Device::BuildDeviceAttributes(prefix + "/device:GPU:" + std::to_string(i),
                                        DeviceType("GPU"), Bytes(kMemoryBytes), DeviceLocality(),
                                        kName),
          visible[i]));
    }
    return absl::OkStatus();
  }

 private:
  // The numbers of those that CUDA would show this process: CUDA_VISIBLE_DEVICES holds up to the
  // first number that is none of a GPU.
  static std::vector<int> Present() {
    const char* wanted = std::getenv("STAND_IN_GPUS");
    const int count = wanted ? std::atoi(wanted) : 1;
    std::vector<int> present;
    if (const char* chosen = std::getenv("CUDA_VISIBLE_DEVICES")) {
      for (absl::string_view word : absl::StrSplit(chosen, ',')) {
        int number;
        if (!absl::SimpleAtoi(word, &number) || number < 0 || number >= count) break;
        present.push_back(number);
      }
    } else {
      for (int i = 0; i < count; ++i) present.push_back(i);
    }
    return present;
  }
};

void CopyBetween(DeviceContext*, DeviceContext*, Device*, Device*, AllocatorAttributes,
                 AllocatorAttributes, const Tensor* input, Tensor* output, int,
                 StatusCallback done) {
  done(Copied(*input, output));
}

std::string Json(const Tallies& tallies) {
  std::string text;
  for (const auto& [key, tally] : tallies) {
    text += (text.empty() ? "" : ", ") + ("\"" + key + "\": [") + std::to_string(tally.count) +
            ", " + std::to_string(tally.bytes) + "]";
  }
  return "{" + text + "}";
}

std::string Json(const std::set<int>& numbers) {
  std::string text;
  for (int number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return "[" + text + "]";
}

}  // namespace
}  // namespace tensorflow

extern "C" {

void stand_in_gpu_reset() {
  auto& counts = tensorflow::counts();
  std::lock_guard<std::mutex> lock(counts.mutex);
  for (auto* tallies :
       {&counts.kernels, &counts.host_kernels, &counts.to_gpu, &counts.from_gpu}) {
    tallies->clear();
  }
}

void stand_in_gpu_write(const char* path) {
  auto& counts = tensorflow::counts();
  std::lock_guard<std::mutex> lock(counts.mutex);
  FILE* file = std::fopen(path, "w");
  if (file == nullptr) {
    std::perror(path);
    return;
  }
  std::fprintf(file,
               "{\"devices\": %s,\n \"kernels\": %s,\n \"host_kernels\": %s,\n"
               " \"to_gpu\": %s,\n \"from_gpu\": %s}\n",
               tensorflow::Json(counts.devices).c_str(),
               tensorflow::Json(counts.kernels).c_str(),
               tensorflow::Json(counts.host_kernels).c_str(),
               tensorflow::Json(counts.to_gpu).c_str(),
               tensorflow::Json(counts.from_gpu).c_str());
  std::fclose(file);
}

}  // extern "C"

namespace tensorflow {
namespace {

void WriteAtExit() {
  const std::string folder = std::getenv("STAND_IN_GPU_COUNTS");
  stand_in_gpu_write((folder + "/" + std::to_string(getpid()) + ".json").c_str());
}

const bool registered = [] {
  DeviceFactory::Register("GPU", std::make_unique<Factory>(), kPriority,
                          /*is_pluggable_device=*/true);
  TF_CHECK_OK(CopyTensor::Register(DeviceType("GPU"), DeviceType("GPU"), CopyBetween,
                                   /*is_pluggable_device=*/true));
  // For get_memory_info: of all tensors, since they share one memory.
  EnableCPUAllocatorStats();
  if (std::getenv("STAND_IN_GPU_COUNTS")) std::atexit(WriteAtExit);
  return true;
}();

}  // namespace
}  // namespace tensorflow
