// A second device for tests, on machines without one. Its memory is the host's and its operations run on the CPU, but
// it is a device of its own: like those of a GPU, its tensors do not mix with the CPU's, its random numbers come from
// generators of its own, and what is new there is filled with nonsense.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/strides.h>
#include <torch/library.h>

namespace {

using at::Tensor;
using c10::Device;
using c10::SymIntArrayRef;
constexpr auto kSecond = c10::DeviceType::PrivateUse1;
constexpr auto kKey = c10::DispatchKey::PrivateUse1;

bool has_float64 = true;

// --- memory ----------------------------------------------------------------------------------------------------------

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr;
    if (data) std::memset(data, 0xFF, bytes);  // NaN
    return {data, data, &std::free, Device(kSecond, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(kSecond, &memory);

void check_dtype(c10::ScalarType dtype) {
  TORCH_CHECK_TYPE(has_float64 || dtype != c10::kDouble, "The second device has no float64.");
}

bool is_second(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == kSecond; }

// A tensor of the CPU in the memory of one of the second device.
Tensor on_cpu(const Tensor& tensor) {
  auto storage = c10::Storage(
      c10::Storage::use_byte_size_t(), tensor.storage().nbytes(),
      at::DataPtr(tensor.storage().mutable_data(), Device(c10::kCPU)), c10::GetAllocator(c10::kCPU), true);
  Tensor found = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  found.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return found;
}

Tensor copy_on_second(const Tensor& tensor) {
  check_dtype(tensor.scalar_type());
  Tensor found = at::detail::empty_strided_generic(
      tensor.sizes(), tensor.strides(), &memory, c10::DispatchKeySet(kKey), tensor.scalar_type());
  on_cpu(found).copy_(tensor);
  return found;
}

// --- what torch asks of a device -------------------------------------------------------------------------------------

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kSecond> {
  Device getDevice() const override { return Device(kSecond, 0); }
  Device exchangeDevice(Device) const override { return getDevice(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Stream getStream(Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, Device(kSecond, 0));
  }
  c10::Stream getNewStream(Device device, int) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Generator final : at::CPUGeneratorImpl {
  Generator() { belong_to(kSecond); }
  void belong_to(c10::DeviceType type) { device_ = type == kSecond ? Device(kSecond, 0) : Device(type); }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  Device getDeviceFromPtr(void*) const override { return Device(kSecond, 0); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<Generator>(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static auto only = at::make_generator<Generator>();
    return only;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto larger = memory.allocate(bytes);
    if (storage.nbytes()) std::memcpy(larger.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(larger));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};
Hooks hooks;
const bool has_hooks = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

// --- operations ------------------------------------------------------------------------------------------------------

// The arguments of one call as the CPU takes them, and how its results come back.
struct Call {
  const c10::OperatorHandle& operation;
  std::vector<Tensor> originals = {}, stand_ins = {};
  bool has_second = false, has_cpu = false;
  Generator* generator = nullptr;

  Tensor stand_in(const Tensor& tensor, bool in_list) {
    if (!tensor.defined()) return tensor;
    if (!is_second(tensor)) {
      has_cpu |= tensor.dim() > 0 || in_list;  // single numbers may come from the host, as on a GPU
      return tensor;
    }
    has_second = true;
    for (size_t i = 0; i < originals.size(); ++i)
      if (originals[i].is_same(tensor)) return stand_ins[i];
    originals.push_back(tensor);
    stand_ins.push_back(on_cpu(tensor));
    return stand_ins.back();
  }

  void take(c10::IValue& value) {
    if (value.isTensor()) {
      value = stand_in(value.toTensor(), false);
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& one : value.toTensorList()) list.push_back(stand_in(one, true));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor> one : value.toOptionalTensorList())
        list.push_back(one ? std::optional<Tensor>(stand_in(*one, false)) : one);
      value = list;
    } else if (value.isDevice()) {
      value = Device(c10::kCPU);
    } else if (value.isGenerator() && value.toGenerator().defined()) {
      const auto given = value.toGenerator();
      TORCH_CHECK(given.device().type() == kSecond, operation.operator_name(), ": a generator of ", given.device());
      generator = static_cast<Generator*>(given.unsafeGetGeneratorImpl());
      generator->belong_to(c10::kCPU);
    }
  }

  void resize_outputs() {
    for (size_t i = 0; i < originals.size(); ++i)
      if (stand_ins[i].sizes() != originals[i].sizes()) {
        originals[i].resize_(stand_ins[i].sizes());
        on_cpu(originals[i]).copy_(stand_ins[i]);
      }
  }

  Tensor original(const Tensor& tensor) const {
    if (!tensor.defined() || is_second(tensor)) return tensor;
    for (size_t i = 0; i < stand_ins.size(); ++i)
      if (stand_ins[i].is_same(tensor)) return originals[i];
    return copy_on_second(tensor);
  }

  void give(c10::IValue& value) const {
    if (value.isTensor()) {
      value = original(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& one : value.toTensorList()) list.push_back(original(one));
      value = list;
    }
  }
};

void run_on_cpu(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  Call call{operation};
  const auto& schema = operation.schema();
  const auto take_from = stack->end() - static_cast<std::ptrdiff_t>(schema.arguments().size());
  std::for_each(take_from, stack->end(), [&](c10::IValue& value) { call.take(value); });
  TORCH_CHECK(
      !(call.has_second && call.has_cpu), operation.operator_name(),
      ": Expected all tensors to be on the same device, but found at least two devices, second:0 and cpu!");
  at::AutoDispatchBelowADInplaceOrView below;
  operation.callBoxed(stack);
  if (call.generator) call.generator->belong_to(kSecond);
  call.resize_outputs();
  const auto give_from = stack->end() - static_cast<std::ptrdiff_t>(schema.returns().size());
  std::for_each(give_from, stack->end(), [&](c10::IValue& value) { call.give(value); });
}

Tensor empty(
    SymIntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>, std::optional<Device>,
    std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  check_dtype(c10::dtype_or_default(dtype));
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), &memory, c10::DispatchKeySet(kKey), c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    SymIntArrayRef size, SymIntArrayRef stride, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<Device>, std::optional<bool>) {
  check_dtype(c10::dtype_or_default(dtype));
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory, c10::DispatchKeySet(kKey),
      c10::dtype_or_default(dtype));
}

Tensor copy_from(const Tensor& source, const Tensor& target, bool) {
  (is_second(target) ? on_cpu(target) : target).copy_(is_second(source) ? on_cpu(source) : source);
  return target;
}

Tensor copy_from_and_resize(const Tensor& source, const Tensor& target) {
  target.resize_(source.sizes());
  return copy_from(source, target, false);
}

Tensor as_strided(
    const Tensor& tensor, SymIntArrayRef size, SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  const auto start = offset ? std::optional<int64_t>(offset->guard_int(__FILE__, __LINE__)) : std::nullopt;
  return at::native::as_strided_tensorimpl(
      tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), start);
}

Tensor view(const Tensor& tensor, SymIntArrayRef size) { return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(size)); }

Tensor reshape_alias(const Tensor& tensor, SymIntArrayRef size, SymIntArrayRef stride) {
  return at::native::_reshape_alias(tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

const Tensor& resize_(const Tensor& tensor, SymIntArrayRef size, std::optional<c10::MemoryFormat>) {
  const auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  const auto strides = c10::contiguous_strides(sizes);
  const size_t bytes = at::detail::computeStorageNbytes(sizes, strides, tensor.itemsize(), tensor.storage_offset());
  if (bytes > tensor.storage().nbytes()) hooks.resizePrivateUse1Bytes(tensor.storage(), bytes);
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return tensor;
}

Tensor& set_storage(
    Tensor& tensor, at::Storage source, c10::SymInt offset, SymIntArrayRef size, SymIntArrayRef stride) {
  tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.guard_int(__FILE__, __LINE__));
  return tensor;
}

Tensor& set_whole_storage(Tensor& tensor, at::Storage source) {
  const auto count = static_cast<int64_t>(source.nbytes() / tensor.itemsize());
  tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous({count});
  return tensor;
}

Tensor& set_tensor(Tensor& tensor, const Tensor& source) {
  tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(source.storage());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(source.sizes(), source.strides(), source.storage_offset());
  return tensor;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>()); }

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("resize_", resize_);
  m.impl("set_.source_Storage", set_whole_storage);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Tensor", set_tensor);
}

TORCH_LIBRARY(second, m) {
  m.def("allow_float64(bool yes) -> ()", [](bool yes) { has_float64 = yes; });
}

}  // namespace
