"""Depthwise convolutions in compiled programs: the kernel's source, and the function in C that stands for its operation."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from ...layers.native import depthwise
from .native_code import Shims, calls, embedded, openmp

_SHIM = """
AOTITorchError aoti_torch_cpu_depthwise(AtenTensorHandle* ring, AtenTensorHandle* index, AtenTensorHandle x, AtenTensorHandle weight,
    AtenTensorHandle* bias, int64_t kernel, int64_t stride, int64_t pad_h, int64_t pad_w, int64_t dilation,
    int32_t relu, AtenTensorHandle* ret) {{
  using namespace continual_depthwise;
  int64_t *of, *shape;
  void *frame, *weights, *kept = nullptr, *place = nullptr, *bias_at = nullptr, *to;
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(x, &shape));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(weight, &of));
  const int64_t batch = shape[0], height = shape[1], width = shape[2], channels = shape[3], taps = of[1] / (kernel * kernel);
  const int64_t out_h = (height + 2 * pad_h - kernel) / stride + 1, out_w = (width + 2 * pad_w - kernel) / stride + 1;
  const int64_t sizes[] = {{batch, out_h, out_w, channels}};
  const int64_t strides[] = {{out_h * out_w * channels, out_w * channels, channels, 1}};
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      4, sizes, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, ret));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(x, &frame));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(weight, &weights));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*ret, &to));
  if (ring) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*ring, &kept));
  if (index) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*index, &place));
  if (bias) AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*bias, &bias_at));
  const int64_t size = height * width * channels, depth = dilation * (taps - 1);
  std::vector<Frame> frames;  // of each row, which is an output of its own: its frames lie in its own slots
  frames.reserve(batch * taps);
  for (int64_t row = 0; row < batch; ++row) {{
    for (int64_t back = depth; back > 0; back -= dilation) {{
      const int64_t slot = ((((const int64_t *)place)[row] - back) % depth + depth) % depth;
      frames.push_back({{(const float *)kept + (row * depth + slot) * size, 0}});
    }}
    frames.push_back({{(const float *)frame + row * size, 0}});
  }}
  const Geometry geometry{{channels, taps, kernel, stride, pad_h, pad_w, 1, taps}};
  const Call call{{&geometry, frames.data(), (const float *)weights, (const float *)bias_at, (float *)to,
                   batch, height, width, out_h, out_w, relu != 0}};
  const bool busy = batch * out_h * out_w * of[0] * of[1] * of[2] >= {alone};
  run(call, 1, {parallel}, busy ? {threads} : 1);
  return AOTI_TORCH_SUCCESS;
}}"""


def code(program: ExportedProgram, threads: int) -> Shims:
    """The functions in C that stand for operations of a program, behind the source that they call; empty where there are none."""
    kernel = depthwise.library()
    if kernel is None or not calls(program, "depthwise"):
        return {}
    check = f'static_assert(continual_depthwise::LANES == {kernel.lanes}, "weights are laid out for vectors of {kernel.lanes}");'
    parallel, several = openmp(kernel.parallel, threads)
    shim = _SHIM.format(alone=depthwise.ALONE, parallel=parallel, threads=several)
    return {torch.ops.continual.depthwise.default: [embedded(depthwise.SOURCE, check), shim]}
